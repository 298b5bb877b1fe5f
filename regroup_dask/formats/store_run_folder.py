"""The output folder of a run in an object store, where nothing can be renamed.

A run writes under the final name at once. ``run.json`` says how far it is: it is the first object that is made, with
the status "incomplete", and gets the status "complete" when everything else is there. A folder without ``run.json`` is
nobody's run and is left alone. Two runs cannot take one name: a store makes an object only once if asked to.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regroup_dask.errors import InputError, OutputExistsError, StoreError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.store_errors import store_errors

RUN_FILE = "run.json"
WORK = "work"
COMPLETE = "complete"
REMOVAL_ATTEMPTS = 20


def check_store_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that exists, or an interrupted run, unless told what to do with it."""
    kept = kept_record(output)
    if kept is None:
        if storage.exists(output):
            raise OutputExistsError(
                f"{output} exists and was not made by regroup-dask (it has no {RUN_FILE}): give another name."
            )
        return
    if overwrite:
        return
    if kept.get("status") == COMPLETE:
        if resume:
            storing.remove_folder(output / WORK)
            raise OutputExistsError(f"The run in {output} is complete: there is nothing to resume.")
        raise OutputExistsError(f"The output folder {output} exists: give another name, or --overwrite to replace it.")
    if not resume:
        raise OutputExistsError(
            f"An interrupted run lies in {output}: give --resume to go on with it, or --overwrite to start anew."
        )


def kept_record(output: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` says, or None where there is none."""
    try:
        record = json.loads(storage.read_bytes(output / RUN_FILE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{output / RUN_FILE} cannot be read: {error}.") from error
    return record if isinstance(record, dict) else {}


@contextlib.contextmanager
def store_run_folder(output: Path, *, resume: bool, overwrite: bool, claim: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder to write to; the block writes the complete ``run.json`` as its last act.

    Parameters
    ----------
    claim
        ``run.json`` of a run that has begun.

    Raises
    ------
    OutputExistsError
        Another run took the name just now.
    """
    resumed = resume and kept_record(output) is not None
    if not resumed:
        if overwrite:
            storing.remove_folder(output)
        _take_name(output, claim)
    try:
        yield output
    except StoreError:
        raise
    except InputError:
        # Nothing of a run whose input was wrong is worth keeping.
        if not resumed:
            _remove_while_written(output)
        raise
    storing.remove_folder(output / WORK)


def _take_name(output: Path, claim: dict[str, Any]) -> None:
    fs, inside = storage.filesystem(output / RUN_FILE)
    try:
        with store_errors(str(output)):
            fs.pipe_file(inside, json.dumps(claim, indent=1).encode(), mode="create")
    except FileExistsError as error:
        raise OutputExistsError(f"Another run is writing to {output}: wait for it, or give another name.") from error


def _remove_while_written(folder: Path) -> None:
    """Remove a folder that tasks already under way on other processes may still write to."""
    for _ in range(REMOVAL_ATTEMPTS):
        storing.remove_folder(folder)
        time.sleep(0.1)
        if not storage.exists(folder):
            return
