"""Inputs of an earlier run that lie elsewhere now: their new places, checked by content."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.fingerprint import WHOLE_BYTES, has_content
from regroup_dask.formats.result_tables import read_table, write_table
from regroup_dask.formats.run_folder import read_run, write_run

PATHS = ("particles", "passthrough", "volumes")
SINGLE_PATHS = ("job", "mask", "model")


def places_of_inputs(record: dict[str, Any]) -> list[str]:
    """Every path that a run read, each once."""
    given = record.get("inputs") or {}
    found = [str(path) for name in PATHS for path in given.get(name) or []]
    found += [str(given[name]) for name in SINGLE_PATHS if given.get(name) and name != "job"]
    found += [str(entry["path"]) for entry in record.get("fingerprints") or []]
    return list(dict.fromkeys(found))


def moves_to_job(record: dict[str, Any], folder: str | Path) -> list[tuple[str, str]]:
    """Old and new folder of a job that was moved as a whole.

    Parameters
    ----------
    record
        run.json.
    folder
        Where the job is now.

    Raises
    ------
    InputError
        The folder does not exist, or the inputs did not lie in one folder.
    """
    new = storage.absolute(folder)
    if not storage.is_folder(new):
        raise InputError(f"--job {folder} is no folder.")
    given = record.get("inputs") or {}
    files = [str(path) for path in given.get("volumes") or []]
    if not files:
        raise InputError("That run does not say where its class maps were: it cannot be told what --job stands for.")
    # A job that was named through a link has its files under the name that was given.
    old = [given["job"]] if given.get("job") else []
    parent = os.path.commonpath([os.path.dirname(path) for path in files])
    if given.get("job") and not all(_under(path, given["job"]) for path in files):
        old.append(parent)
    if not old:
        inside = [path for path in places_of_inputs(record) if _under(path, parent)]
        if len(inside) < len(places_of_inputs(record)):
            raise InputError(
                f"The inputs of that run did not lie in one folder ({parent} had only some): say where they are with "
                "--inputs OLD=NEW, once for each folder."
            )
        old = [parent]
    return [(str(place), new) for place in old]


def read_move(text: str) -> tuple[str, str]:
    """Read ``OLD=NEW``."""
    old, sign, new = text.partition("=")
    if not sign or not old or not new:
        raise InputError(f"--inputs {text}: give the old and the new place, as in --inputs /old/J42=/new/J42.")
    if not storage.exists(new):
        raise InputError(f"--inputs {text}: {new} does not exist.")
    return storage.absolute(old), storage.absolute(new)


def moves_of_inputs(record: dict[str, Any], job: str | Path | None, inputs: Sequence[str]) -> list[tuple[str, str]]:
    """Old and new places as a person says them: a whole job, and ``OLD=NEW``."""
    return [read_move(text) for text in inputs] + (moves_to_job(record, job) if job else [])


def moved_record(record: dict[str, Any], moves: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the record of a run with its inputs where they are now, after comparing their content.

    Parameters
    ----------
    record
        run.json.
    moves
        Old and new place of folders or files; the longest that fits a path counts.

    Raises
    ------
    InputError
        A place fits no input, a file is not there, or what is there is not what the run read.
    """
    places = places_of_inputs(record)
    for old, _ in moves:
        if not any(_under(path, old) for path in places):
            near = ", ".join(sorted({os.path.dirname(path) for path in places})[:3])
            raise InputError(f"That run read nothing from {old}: its inputs were in {near}.")
    changed = copy.deepcopy(record)
    given = changed["inputs"]
    for name in PATHS:
        given[name] = [_moved(path, moves) for path in given.get(name) or []]
    for name in SINGLE_PATHS:
        if given.get(name):
            given[name] = _moved(given[name], moves)
    for entry in changed.get("fingerprints") or []:
        old, entry["path"] = entry["path"], _moved(entry["path"], moves)
        _check_content(old, entry)
    return changed


def remember_places(folder: Path, moves: Sequence[tuple[str, str]]) -> None:
    """Write into an output folder where its inputs are now: run.json and the tables of classes.

    Raises
    ------
    InputError
        As `moved_record`; nothing is changed then.
    """
    record = moved_record(read_run(folder), moves)
    table = read_table(folder, "classes")
    volumes = pa.array([_moved(path, moves) for path in table.column("volume").to_pylist()], pa.string())
    write_table(table.set_column(table.schema.get_field_index("volume"), "volume", volumes), folder, "classes")
    write_run(folder, record)


def _moved(path: str, moves: Sequence[tuple[str, str]]) -> str:
    fitting = [move for move in moves if _under(path, move[0])]
    if not fitting:
        return path
    old, new = max(fitting, key=lambda move: len(move[0]))
    rest = path[len(old.rstrip("/")) :]
    return new.rstrip("/") + rest


def _under(path: str, folder: str) -> bool:
    # A map in a zarr store is named STORE[3].
    start = folder.rstrip("/")
    return path == start or path.startswith((start + "/", start + "["))


def _check_content(old: str, entry: dict[str, Any]) -> None:
    new = entry["path"]
    if not storage.exists(new):
        said = "" if new == old else f" ({old} in that run)"
        raise InputError(f"{new}{said} does not exist: say where it is with --inputs OLD=NEW, or --job FOLDER.")
    same = has_content(new, entry)
    if same is None:
        raise InputError(
            f"{new} cannot be compared with {old}: an object store stamps what it is sent in parts in its own way, so run anew "
            "from where the files are now."
        )
    if not same:
        hint = ""
        if entry.get("bytes", 0) > WHOLE_BYTES:
            hint = " (of a file this large the time of change counts too: copy it with cp -p or rsync -a)"
        raise InputError(f"{new} is not the file that run read as {old}: its content differs{hint}.")
