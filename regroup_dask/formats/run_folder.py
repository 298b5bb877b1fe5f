"""The output folder of a run: made beside its final name, complete when it takes that name.

A run writes to ``OUT.partial``; the last thing it does is to rename it to ``OUT``. An interrupted run leaves
``OUT.partial`` with a ``run.json`` whose status is "incomplete": the same command with ``--resume`` takes it up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import numbers
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regroup_dask.errors import InputError, OutputExistsError

RUN_FILE = "run.json"
WORK = "work"


def partial_folder(output: Path) -> Path:
    """Where a run writes until it is complete."""
    return output.with_name(output.name + ".partial")


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
        The folder, or an interrupted run for it, exists already.
    InputError
        `resume` was asked for and settings or inputs have changed, or the folder cannot be made.
    """
    check_output(output, resume=resume, overwrite=overwrite)
    # Workers have working directories of their own.
    partial = Path(os.path.abspath(partial_folder(output)))
    if partial.exists() and not resume:
        shutil.rmtree(partial)
    resumed = partial.exists()
    if resumed:
        _check_identity(partial, identity)
    above = [folder for folder in partial.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
        write_run(partial, {"status": "incomplete", "identity": identity, "resume_with": "--resume"})
    except OSError as error:
        raise InputError(
            f"The output folder {output} cannot be made ({error.strerror}): choose a place that can be written."
        ) from error
    try:
        yield partial
    except InputError:
        # Nothing of a run whose input was wrong is worth keeping.
        if not resumed:
            shutil.rmtree(partial, ignore_errors=True)
            for made in above:
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise
    shutil.rmtree(partial / WORK, ignore_errors=True)
    if output.exists():
        shutil.rmtree(output)
    os.replace(partial, output)


def check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output folder that exists, or an interrupted run, unless told what to do with it."""
    if resume and overwrite:
        raise InputError("Give --resume or --overwrite, not both.")
    if not output.name:
        raise InputError(f"The output folder {str(output)!r} has no name of its own: give the name of a folder to make.")
    partial = partial_folder(output)
    if output.exists() and not overwrite:
        if resume and not partial.exists():
            raise OutputExistsError(f"The run in {output} is complete: there is nothing to resume.")
        raise OutputExistsError(
            f"The output folder {output} exists: give another name, or --overwrite to replace it."
        )
    if output.exists() and overwrite and not _is_ours(output):
        raise OutputExistsError(
            f"The folder {output} was not made by regroup-dask (it has no {RUN_FILE}) and is not overwritten: give "
            "another name."
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


def _is_ours(output: Path) -> bool:
    return output.is_dir() and ((output / RUN_FILE).is_file() or not any(output.iterdir()))


def _check_identity(partial: Path, identity: dict[str, Any]) -> None:
    try:
        kept = json.loads((partial / RUN_FILE).read_text())["identity"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{partial} has no readable {RUN_FILE}, so it cannot be resumed: give --overwrite to start anew."
        ) from error
    now = json.loads(json.dumps(identity))
    changed = sorted(name for name in {*kept, *now} if kept.get(name) != now.get(name))
    if changed:
        raise InputError(
            f"The interrupted run in {partial} cannot be resumed because {', '.join(changed)} changed since: give "
            "--overwrite to start anew, or the settings and files it had."
        )


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json in one step."""
    partial = folder / f".{RUN_FILE}.partial"
    partial.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    os.replace(partial, folder / RUN_FILE)


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
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is no output folder of regroup-dask: it has no {RUN_FILE}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} does not hold the record of a run.")
    return record


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size and a SHA-256 of a file, or of a store's file names and sizes.

    The digest of a file over 64 MB is of its first, middle and last 16 MB and its size.
    """
    target = Path(path)
    digest = hashlib.sha256()
    if target.is_dir():
        size = 0
        for entry in sorted(item for item in target.rglob("*") if item.is_file()):
            size += entry.stat().st_size
            digest.update(f"{entry.relative_to(target)}:{entry.stat().st_size};".encode())
        return {"path": str(target), "bytes": size, "sha256": digest.hexdigest()}
    size = target.stat().st_size
    piece = 16 * 2**20
    with open(target, "rb") as stream:
        if size <= 4 * piece:
            for block in iter(lambda: stream.read(2**20), b""):
                digest.update(block)
        else:
            for start in (0, (size - piece) // 2, size - piece):
                stream.seek(start)
                digest.update(stream.read(piece))
            digest.update(str(size).encode())
    return {"path": str(target), "bytes": size, "sha256": digest.hexdigest()}
