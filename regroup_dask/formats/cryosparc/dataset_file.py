"""One ``.cs`` file on disk: its header checked, any range or selection of its rows read in bounded memory.

Rows come from a NumPy file of packed records (``\\x93NUMPY``), read as byte ranges; or, for the columnar
encodings, from one NumPy file per column that `columnar.unpack_columns` laid out in a scratch folder once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from regroup_dask.errors import InputError, RegroupError
from regroup_dask.formats import storage
from regroup_dask.formats.remote_array import load_mapped, mapped

NUMPY_MAGIC = b"\x93NUMPY"
COLUMNAR_MAGICS = (b"\x95CSDAT", b"\x94CSDAT")
MAX_HEADER_BYTES = 2**24
"""NumPy refuses headers above 10 kB, as files with a dozen classes have; the header is a literal, parsed
without executing anything, so only its size is bounded."""
CHUNK_BYTES = 2**20
"""Records read at a time while columns are picked out of them: few enough to stay in the processor's cache."""
FETCHED_BYTES = 8 * 2**20
"""The same for a file in an object store, where each read is a request."""


@dataclass(frozen=True)
class DatasetFile:
    """A readable ``.cs`` file; small and picklable.

    Attributes
    ----------
    path : str
    dtype : numpy.dtype
        Packed record of all columns in file order; strings as ``S`` of the width in the file.
    n_rows : int
    data_offset : int
        Byte of the first record, for a NumPy file.
    column_folder : str or None
        Scratch folder with one ``.npy`` per column, for a columnar file.
    """

    path: str
    dtype: np.dtype
    n_rows: int
    data_offset: int = 0
    column_folder: str | None = None

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Read rows ``start:stop`` of some columns as contiguous arrays.

        Memory is that of the result plus `CHUNK_BYTES`.
        """
        n = stop - start
        if self.column_folder is not None:
            return {name: np.array(self._column(name)[start:stop]) for name in columns}
        result = {name: np.empty(n, self.dtype[name]) for name in columns}
        for first, records in self._records(start, stop):
            for name in columns:
                result[name][first - start : first - start + len(records)] = records[name]
        return result

    def read_records(self, start: int, records: np.ndarray) -> None:
        """Fill records with the rows from ``start`` on, for a NumPy file."""
        if storage.is_remote(self.path):
            for first, part in self._records(start, start + len(records)):
                records[first - start : first - start + len(part)] = part
            return
        data = memoryview(records.view(np.uint8).data)
        with open(self.path, "rb", buffering=0) as stream:
            stream.seek(self.data_offset + start * self.dtype.itemsize)
            while data:
                n_bytes = stream.readinto(data)
                if not n_bytes:
                    raise InputError(f"{self.path} became shorter while it was read: row {start + len(records)}")
                data = data[n_bytes:]

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Iterate over all rows in pieces of about `CHUNK_BYTES`: first row and columns."""
        step = max(1, CHUNK_BYTES // self.dtype.itemsize)
        for start in range(0, self.n_rows, step):
            yield start, self.read(start, min(start + step, self.n_rows), columns)

    def _records(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        if storage.is_remote(self.path):
            step = max(1, FETCHED_BYTES // self.dtype.itemsize)
            for first in range(start, stop, step):
                end = min(first + step, stop)
                records = mapped(self.path, self.dtype, offset=self.data_offset, shape=(self.n_rows,))
                yield first, records[first:end]
            return
        step = max(1, CHUNK_BYTES // self.dtype.itemsize)
        records = np.empty(min(step, stop - start), self.dtype)
        for first in range(start, stop, step):
            part = records[: stop - first]
            self.read_records(first, part)
            yield first, part

    def _column(self, name: str) -> np.ndarray:
        index = cast(tuple, self.dtype.names).index(name)
        path = column_path(cast(str, self.column_folder), index)
        return load_mapped(path)


def columns_of_records(records: np.ndarray, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Copy fields of records into an array each; few records at a time, so that each is in the cache for all fields."""
    names = records.dtype.names if columns is None else columns
    result = {name: np.empty(len(records), records.dtype[name]) for name in names or ()}
    step = max(1, CHUNK_BYTES // records.dtype.itemsize)
    for start in range(0, len(records), step):
        for name, values in result.items():
            values[start : start + step] = records[name][start : start + step]
    return result


def column_path(folder: str, index: int) -> str:
    """Return the file of a column in a scratch folder: by number, because names of columns hold slashes."""
    return os.path.join(folder, f"{index:05d}.npy")


def open_dataset_file(path: str, *, scratch: str) -> DatasetFile:
    """Open a ``.cs`` file of either encoding; columnar ones are unpacked into ``scratch`` first.

    Raises
    ------
    InputError
        The file cannot be read, is truncated, has no ``uid``, or has columns of types no particle table has.
    """
    try:
        with storage.open_reading(path, buffering=2**16) as stream:
            magic = stream.read(6)
            stream.seek(0)
            if magic == NUMPY_MAGIC:
                dtype, n_rows = _read_numpy_header(stream, path)
                offset = stream.tell()
                size = storage.size_bytes(path)
                if n_rows * dtype.itemsize > size - offset:
                    raise InputError(
                        f"{path} is truncated: its header says {n_rows} rows of {dtype.itemsize} bytes, but "
                        f"only {(size - offset) // dtype.itemsize} are there; copy the file again"
                    )
                _check_columns(dtype, path)
                return DatasetFile(path, dtype, n_rows, data_offset=offset)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if magic not in COLUMNAR_MAGICS:
        raise InputError(f"{path} is no CryoSPARC dataset: it begins with {magic!r}")
    from regroup_dask.formats.cryosparc.columnar import unpack_columns

    folder, dtype, n_rows = unpack_columns(path, scratch)
    _check_columns(dtype, path)
    return DatasetFile(path, dtype, n_rows, column_folder=folder)


def _read_numpy_header(stream: BinaryIO, path: str) -> tuple[np.dtype, int]:
    try:
        version = np.lib.format.read_magic(stream)
        readers: dict[tuple[int, int], Any] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version == (3, 0):
            # The third version differs from the second only in the encoding of its text.
            from numpy.lib._format_impl import _read_array_header  # type: ignore[attr-defined]

            shape, _, dtype = _read_array_header(stream, version, max_header_size=MAX_HEADER_BYTES)
        else:
            shape, _, dtype = readers[version](stream, max_header_size=MAX_HEADER_BYTES)
    except RegroupError:
        raise
    except Exception as error:
        # NumPy parses whatever text is there, and lets errors of the tokenizer and the compiler through.
        raise InputError(f"{path} has a damaged NumPy header: {error}") from None
    if dtype.names is None or len(shape) != 1 or shape[0] < 0:
        raise InputError(f"{path} is a NumPy array of shape {shape} and type {dtype}, not a table of particles")
    if dtype.hasobject:
        raise InputError(f"{path} holds pickled Python objects, which are never loaded; save it again as a .cs file")
    return dtype, int(shape[0])


def _check_columns(dtype: np.dtype, path: str) -> None:
    names = cast(tuple[str, ...], dtype.names)
    if "uid" not in names or dtype["uid"] != np.dtype("<u8"):
        raise InputError(f"{path} has no column uid of unsigned 64-bit integers, by which particles are known")
    if dtype.itemsize == 0:
        raise InputError(f"{path} has records of 0 bytes")
    for name in names:
        base = dtype[name].base
        if base.kind not in "uifS" or base.itemsize == 0 or (base.kind == "S" and dtype[name].subdtype):
            raise InputError(f"{path}: column {name} has type {dtype[name]}, which no particle table has")
        if base.kind == "f" and base.itemsize not in (2, 4, 8):
            raise InputError(f"{path}: column {name} has type {base}, which Arrow cannot hold")
        if 0 in dtype[name].shape:
            raise InputError(f"{path}: column {name} has shape {dtype[name].shape}, a vector without elements")
