"""The folder of an export: made beside its final name, and there only when it is complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from regroup_dask.errors import FullDiskError, InputError, StoreError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.folder_claim import hold, remove_empty, remove_while_written
from regroup_dask.formats.full_disk import is_full_disk

MARK = ".export"
PARTS = ".parts"


def check_target(target: Path) -> None:
    """Raise `InputError` where something is already, or a folder cannot be."""
    if storage.is_remote(target):
        if storage.is_folder(target):
            raise InputError(f"The folder {target} exists: give another with -o.")
        return
    if not target.name:
        raise InputError("The folder to make has no name of its own: give another with -o.")
    if os.path.lexists(target):
        raise InputError(f"The folder {target} exists: give another with -o.")


def parts_of_export(folder: str) -> str:
    """Folder of the parts that files are joined from; gone when the export is complete."""
    return f"{folder}/{PARTS}"


@contextlib.contextmanager
def export_folder(target: Path) -> Iterator[Path]:
    """Yield the folder to write to: ``TARGET.partial``, which gets its name when the block ends well.

    In an object store it is the target itself, with a mark in it until it is complete. Of an export that failed nothing
    is left.

    Raises
    ------
    InputError
        The target exists, cannot be made or written, or another export is writing it now.
    """
    if storage.is_remote(target):
        with _folder_in_store(target) as folder:
            yield folder
        return
    target = Path(os.path.abspath(target))
    check_target(target)
    partial = target.with_name(target.name + ".partial")
    mark = partial / MARK
    if os.path.lexists(partial) and not mark.is_file():
        raise InputError(f"{partial}, where the export would be written, was not made by an export: move it away.")
    above = [folder for folder in partial.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(mark, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        remove_empty([partial, *above])
        if is_full_disk(error):
            raise FullDiskError(f"The disk of {target} is full: make room, or give another place with -o.") from None
        raise InputError(f"The folder {target} cannot be made ({error.strerror}): choose a place that can be written.") from None
    try:
        busy = InputError(f"Another export is writing to {partial}: wait for it, or give another name with -o.")
        hold(descriptor, busy)
        for path in partial.iterdir():  # what an export left that was killed
            if path != mark:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield partial
            storing.remove_folder(parts_of_export(str(partial)))
            mark.unlink()
            os.replace(partial, target)
        except BaseException as error:
            remove_while_written(partial)
            remove_empty(above)
            if isinstance(error, OSError) and is_full_disk(error):
                raise FullDiskError(
                    f"The disk of {target} is full and nothing was kept: make room, then give the same command again, or "
                    "another place with -o."
                ) from None
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _folder_in_store(target: Path) -> Iterator[Path]:
    if storage.exists(target / MARK):
        raise InputError(
            f"Another export is writing to {target}, or one was ended there half-way: wait for it, remove what is there, or "
            "give another name with -o."
        )
    if storage.exists(target):
        raise InputError(f"The folder {target} exists: give another with -o.")
    storing.write_bytes(target / MARK, b"")
    try:
        yield target
        storing.remove_folder(parts_of_export(str(target)))
        storing.remove_file(target / MARK)
    except BaseException:
        # A store that does not answer must not hide what went wrong before.
        with contextlib.suppress(StoreError):
            storing.remove_folder(target)
        raise
