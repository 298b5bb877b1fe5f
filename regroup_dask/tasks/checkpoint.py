"""Results of finished units, a file each, so that an interrupted run goes on where it was."""

from __future__ import annotations

import io
import logging
import os
import uuid
import zipfile
import zlib
from pathlib import Path

import numpy as np

from regroup_dask.formats import storage, storing

logger = logging.getLogger(__name__)

Result = dict[str, np.ndarray]


def result_path(folder: Path, name: str) -> Path:
    """File of the result of one unit."""
    return folder / f"{name}.npz"


def save_result(folder: Path, name: str, result: Result) -> None:
    """Keep a result; it appears under its name only when it is whole."""
    path = result_path(folder, name)
    if storage.is_remote(path):
        packed = io.BytesIO()
        np.savez(packed, **result)  # type: ignore[arg-type]
        storing.write_bytes(path, packed.getvalue())
        return
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(partial, "wb") as stream:
            np.savez(stream, **result)  # type: ignore[arg-type]
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_result(folder: Path, name: str) -> Result | None:
    """Return a result that was kept, or None when there is none or it is damaged (zip checks a sum of each array)."""
    path = result_path(folder, name)
    try:
        packed = io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else path
        with np.load(packed, allow_pickle=False) as kept:
            return {entry: kept[entry] for entry in kept.files}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("the checkpoint %s is damaged (%s); its unit is run again", path, error)
        return None


def load_results(folder: Path, names: list[str]) -> dict[str, Result]:
    """Return every result that was kept, by name."""
    try:
        there = set(storage.file_names(folder))
    except FileNotFoundError:
        return {}
    found = {name: load_result(folder, name) for name in names if f"{name}.npz" in there}
    return {name: result for name, result in found.items() if result is not None}


def forget_results(folder: Path, names: list[str]) -> None:
    """Drop results, so that their units are run again."""
    for name in names:
        storing.remove_file(result_path(folder, name))
