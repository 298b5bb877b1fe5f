"""Writing ``.cs`` files from many places: the file is laid out whole, then each writer fills its own rows."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from regroup_dask.formats import storage, storing


@dataclass(frozen=True)
class RecordFile:
    """A NumPy file of records whose rows are written in any order; small and picklable."""

    path: str
    dtype: np.dtype
    n_rows: int
    data_offset: int

    def write(self, first_row: int, records: np.ndarray) -> None:
        """Write records as rows ``first_row ...``; doing so again changes nothing.

        Only these bytes are touched, with positioned writes and no mapping, so that neighbours written
        elsewhere at the same time are safe on network file systems too.
        """
        with self.opened() as write:
            write(first_row, records)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Callable[[int, np.ndarray], None]]:
        """Open the file once for many writes: yields the function that does what `write` does."""
        descriptor = os.open(self.path, os.O_WRONLY)

        def write(first_row: int, records: np.ndarray) -> None:
            self._check(first_row, records)
            if not len(records):
                return
            data = memoryview(np.ascontiguousarray(records).view(np.uint8).data)
            position = self.data_offset + first_row * self.dtype.itemsize
            while data:
                written = os.pwrite(descriptor, data, position)
                data, position = data[written:], position + written

        try:
            yield write
        finally:
            os.close(descriptor)

    def _check(self, first_row: int, records: np.ndarray) -> None:
        if records.dtype != self.dtype:
            raise ValueError(f"{self.path} takes records of {self.dtype}, not {records.dtype}")
        if not 0 <= first_row <= self.n_rows - len(records):
            raise ValueError(f"{self.path} has {self.n_rows} rows: no place for {len(records)} from row {first_row}")


def create_record_file(path: str, dtype: np.dtype, n_rows: int) -> RecordFile:
    """Make a file of its final size with zeros for rows, or keep one that is laid out so already.

    Keeping it lets an interrupted run go on: rows written before are the rows that would be written again. In an object
    store nothing can be laid out: the file is joined in the end (see `store_parts`).
    """
    start = record_header(dtype, n_rows)
    result = RecordFile(path, dtype, n_rows, len(start))
    if storage.is_remote(path):
        return result
    size = len(start) + n_rows * dtype.itemsize
    if os.path.exists(path) and os.path.getsize(path) == size:
        with open(path, "rb") as stream:
            if stream.read(len(start)) == start:
                return result
    with open(path, "wb") as stream:
        stream.write(start)
        stream.truncate(size)
    return result


def record_header(dtype: np.dtype, n_rows: int) -> bytes:
    """What a NumPy file of records begins with."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows,)}
    try:
        np.lib.format.write_array_header_1_0(header, description)
    except ValueError:
        header = io.BytesIO()
        np.lib.format.write_array_header_2_0(header, description)
    return header.getvalue()


def write_records(path: str, records: np.ndarray) -> None:
    """Write a small file whole."""
    if storage.is_remote(path):
        storing.write_bytes(path, record_header(records.dtype, len(records)) + records.tobytes())
        return
    if os.path.exists(path):
        os.unlink(path)
    create_record_file(path, records.dtype, len(records)).write(0, records)
