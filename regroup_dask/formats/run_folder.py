"""The output folder of a run: made beside its final name, complete when it takes that name.

A run writes to ``OUT.partial``; the last thing it does is to rename it to ``OUT``. An interrupted run leaves
``OUT.partial`` with a ``run.json`` whose status is "incomplete": the same command with ``--resume`` takes it up.

Whoever writes a file here writes it under a name that begins with a dot or ends with ``.partial``, and renames it
when it is whole. What a killed process left of that kind is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regroup_dask.errors import FullDiskError, InputError, OutputExistsError, RegroupError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.folder_claim import hold, remove_empty, remove_while_written
from regroup_dask.formats.full_disk import is_full_disk
from regroup_dask.formats.store_run_folder import check_store_output, store_run_folder

RUN_FILE = "run.json"
WORK = "work"
LOCK = ".lock"


def partial_folder(output: Path) -> Path:
    """Where a run writes until it is complete; an object store knows no other name."""
    if storage.is_remote(output):
        return output
    return output.with_name(output.name + ".partial")


def _replaced_folder(output: Path) -> Path:
    """Where an output that is overwritten waits until the new one has its place."""
    return output.with_name(output.name + ".replaced")


@contextlib.contextmanager
def run_folder(output: Path, *, resume: bool, overwrite: bool, identity: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder to write to, and give it its final name when the block ends well.

    Parameters
    ----------
    output
        The final folder.
    resume, overwrite
        What to do with a folder that exists; with neither it is refused.
    identity
        Settings and inputs by content; a run is resumed only when they are the same.

    Raises
    ------
    OutputExistsError
        The folder, or an interrupted run for it, exists already, or another run is writing to it now.
    InputError
        `resume` was asked for and settings or inputs have changed, or the folder cannot be made.
    """
    check_output(output, resume=resume, overwrite=overwrite)
    if storage.is_remote(output):
        if resume and storage.exists(output):
            _check_identity(output, identity)
        claim = {"status": "incomplete", "identity": _plain(identity), "resume_with": "--resume"}
        with store_run_folder(output, resume=resume, overwrite=overwrite, claim=claim) as folder:
            yield folder
        return
    # Workers have working directories of their own.
    partial = Path(os.path.abspath(partial_folder(output)))
    if partial.exists() and not resume:
        with _locked(partial):
            shutil.rmtree(partial)
    resumed = partial.exists()
    above = [folder for folder in partial.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(output, error) from error
    with _locked(partial):
        if resumed:
            _check_identity(partial, identity)
        replaces = overwrite or (resumed and _replaces(partial))
        record = {"status": "incomplete", "identity": identity, "replaces": replaces, "resume_with": "--resume"}
        try:
            write_run(partial, record)
        except OSError as error:
            if not resumed:
                remove_while_written(partial)
            raise _cannot_be_made(output, error) from error
        try:
            yield partial
        except InputError:
            # Nothing of a run whose input was wrong is worth keeping.
            if not resumed:
                remove_while_written(partial)
                remove_empty(above)
            raise
        _give_final_name(partial, output)


def _give_final_name(partial: Path, output: Path) -> None:
    """Rename first and clean up after: a driver that dies in between leaves a complete run or a resumable one."""
    _remove_unfinished(partial)
    replaced = _replaced_folder(output)
    if output.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(output, replaced)
    os.replace(partial, output)
    shutil.rmtree(output / WORK, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    for root, folders, files in os.walk(folder):
        if Path(root) == folder and WORK in folders:
            folders.remove(WORK)
        for name in [name for name in folders if _unfinished(name)]:
            folders.remove(name)
            shutil.rmtree(Path(root) / name, ignore_errors=True)
        for name in files:
            if _unfinished(name):
                (Path(root) / name).unlink(missing_ok=True)


def _unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(".partial")


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends."""
    try:
        descriptor = os.open(partial / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise _cannot_be_made(partial, error) from error
    try:
        busy = f"Another run is writing to {partial}: wait for it, or end it, or give another name."
        hold(descriptor, OutputExistsError(busy))
        yield
    finally:
        os.close(descriptor)


def _cannot_be_made(output: Path, error: OSError) -> RegroupError:
    if is_full_disk(error):
        return FullDiskError(f"The disk of {output} is full: make room, then give the same command again, or another place.")
    return InputError(f"The output folder {output} cannot be made ({error.strerror}): choose a place that can be written.")


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output folder that exists, or an interrupted run, unless told what to do with it."""
    if resume and overwrite:
        raise InputError("Give --resume or --overwrite, not both.")
    if not output.name:
        raise InputError(f"The output folder {str(output)!r} has no name of its own: give the name of a folder to make.")
    if storage.is_remote(output):
        check_store_output(output, resume=resume, overwrite=overwrite)
        return
    partial = partial_folder(output)
    if output.exists() and not overwrite:
        if resume and not partial.exists():
            if _is_ours(output):
                shutil.rmtree(output / WORK, ignore_errors=True)
            raise OutputExistsError(f"The run in {output} is complete: there is nothing to resume.")
        if not (resume and _replaces(partial)):
            raise OutputExistsError(f"The output folder {output} exists: give another name, or --overwrite to replace it.")
    if output.exists() and overwrite and not _is_ours(output):
        raise OutputExistsError(
            f"The folder {output} was not made by regroup-dask (it has no {RUN_FILE}) and is not overwritten: give another name."
        )
    if partial.exists() and not _is_ours(partial):
        raise OutputExistsError(
            f"{partial}, where an unfinished run would lie, was not made by regroup-dask (it has no {RUN_FILE}): move it "
            "away, or give another name."
        )
    if partial.exists() and not (resume or overwrite):
        raise OutputExistsError(
            f"An interrupted run lies in {partial}: give --resume to go on with it, or --overwrite to start anew."
        )


def _replaces(partial: Path) -> bool:
    """Whether the interrupted run was to replace an output that exists."""
    try:
        return bool(json.loads((partial / RUN_FILE).read_text()).get("replaces"))
    except (OSError, ValueError, AttributeError):
        return False


def _is_ours(output: Path) -> bool:
    return output.is_dir() and ((output / RUN_FILE).is_file() or not any(output.iterdir()))


def _check_identity(partial: Path, identity: dict[str, Any]) -> None:
    try:
        kept = json.loads(storage.read_bytes(partial / RUN_FILE))["identity"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{partial} has no readable {RUN_FILE}, so it cannot be resumed: give --overwrite to start anew."
        ) from error
    now = json.loads(json.dumps(identity))
    changed = [
        sentence
        for name in sorted({*kept, *now})
        if kept.get(name) != now.get(name)
        for sentence in _differences(name, kept.get(name), now.get(name))
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"The interrupted run in {partial} cannot be resumed because these changed since: "
            f"{', '.join(changed[:3])}{more}; give --overwrite to start anew, or the settings and files it had."
        )


def _differences(name: str, kept: Any, now: Any) -> list[str]:
    """Say what differs between two parts of an identity: settings by name and value, inputs by path."""
    if isinstance(kept, dict) and isinstance(now, dict):
        keys = [key for key in {**kept, **now} if kept.get(key) != now.get(key)]
        return [f"{key} (was {kept.get(key)!r}, is {now.get(key)!r})" for key in keys]
    if isinstance(kept, list) and isinstance(now, list):
        before, after = ({entry["path"]: entry for entry in entries} for entries in (kept, now))
        return [path for path in {**before, **after} if before.get(path) != after.get(path)] or [f"the order of {name}"]
    return [f"{name} (was {kept}, is {now})"]


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json in one step."""
    storing.write_bytes(folder / RUN_FILE, (json.dumps(_plain(record), indent=1, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it: NaN and infinity, which it does not know, become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json of a finished run."""
    path = folder / RUN_FILE
    try:
        record = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        raise InputError(f"{folder} is no output folder of regroup-dask: it has no {RUN_FILE}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} does not hold the record of a run.")
    if storage.is_remote(folder) and record.get("status") == "incomplete":
        raise InputError(f"The run in {folder} is not finished: give its command again with --resume.")
    return record
