"""Files and folders by path or URL: written whole, copied and removed; `storage` finds and reads them.

An object store has no rename and no append: a file appears there when it has been written whole, and a folder is only
the beginning of names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from regroup_dask.formats.storage import COPY_BYTES, PathOrUrl, absolute, files_below, filesystem, is_remote, open_reading
from regroup_dask.formats.store_errors import store_errors

WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "cos", "http", "https")
"""Stores where a folder is nothing but the beginning of names, and need not be made."""


def write_bytes(path: PathOrUrl, data: bytes) -> None:
    """Write a small file; it appears when it is whole."""
    if is_remote(path):
        fs, inside = filesystem(path)
        with store_errors(str(path)):
            fs.pipe_file(inside, data)
        return
    with whole_file(path) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: PathOrUrl) -> Iterator[Path]:
    """Yield a file on disk to write to; it appears under its name, whole, when the block ends well.

    For a URL it is a temporary file of this machine (``TMPDIR`` says where), and is sent in parts of bounded size.
    """
    if not is_remote(path):
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
        try:
            yield unfinished
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
        return
    descriptor, name = tempfile.mkstemp(prefix="regroup_dask_", suffix="_" + str(path).rsplit("/", 1)[-1])
    os.close(descriptor)
    try:
        yield Path(name)
        fs, inside = filesystem(path)
        with store_errors(str(path)):
            fs.put_file(name, inside)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def opened_writing(path: PathOrUrl) -> Iterator[BinaryIO]:
    """Yield a stream to write to from beginning to end; the file appears when it is whole.

    To a URL it goes in parts, as it is written, with one part of it in memory.
    """
    if is_remote(path):
        fs, inside = filesystem(path)
        with store_errors(str(path)):
            stream = fs.open(inside, "wb", autocommit=False)
            try:
                yield stream
                stream.close()
                stream.commit()
            except BaseException:
                stream.discard()
                # Else it would still be sent when it is forgotten.
                with contextlib.suppress(AttributeError):
                    stream.closed = True
                raise
        return
    with whole_file(path) as unfinished, open(unfinished, "wb") as local:
        yield local


def make_folder(path: PathOrUrl) -> None:
    """Make a folder and those above it, where there is such a thing as a folder."""
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)
    elif str(path).split("://", 1)[0] not in WITHOUT_FOLDERS:
        fs, inside = filesystem(path)
        with store_errors(str(path)):
            fs.makedirs(inside, exist_ok=True)


def remove_file(path: PathOrUrl) -> None:
    """Remove a file, if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    fs, inside = filesystem(path)
    with contextlib.suppress(FileNotFoundError), store_errors(str(path)):
        fs.rm_file(inside)


def remove_folder(path: PathOrUrl) -> None:
    """Remove a folder and all in it, if it is there."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    fs, inside = filesystem(path)
    with contextlib.suppress(FileNotFoundError), store_errors(str(path)):
        fs.rm(inside, recursive=True)


def copy_file(source: PathOrUrl, target: PathOrUrl) -> None:
    """Copy a file; within one store nothing passes through this machine."""
    if not is_remote(source) and not is_remote(target):
        shutil.copyfile(source, target)
        return
    if is_remote(source) and is_remote(target) and type(filesystem(source)[0]) is type(filesystem(target)[0]):
        fs, inside = filesystem(source)
        with store_errors(str(target)):
            fs.cp_file(inside, filesystem(target)[1])
        return
    with open_reading(source, buffering=0) as stream, opened_writing(target) as copied:
        shutil.copyfileobj(stream, copied, COPY_BYTES)


def copy_folder(source: PathOrUrl, target: PathOrUrl) -> None:
    """Copy a folder and all in it."""
    if not is_remote(source) and not is_remote(target):
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    before = absolute(source)
    for path in files_below(before):
        copied = f"{str(target).rstrip('/')}{path[len(before):]}"
        if not is_remote(copied):
            os.makedirs(os.path.dirname(copied), exist_ok=True)
        copy_file(path, copied)
