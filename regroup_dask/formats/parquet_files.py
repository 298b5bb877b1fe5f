"""Parquet files as fragments: folders as Hive partitions them, footers, and ranges of row groups that read themselves."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.particle_source import FRAGMENT_BYTES

LARGE_ROW_GROUP_BYTES = 3 * FRAGMENT_BYTES
"""A row group above this is read in parts, each of which has to pass over the rows before it."""
STREAMED_ROWS = 2**16
STREAM_BYTES = 2**20
_TAKEABLE = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
"""Types of which Arrow cannot take rows, and those of the same values of which it can."""
NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"


class ParquetFile(NamedTuple):
    """A file, and the columns that the folders above it stand for."""

    path: str
    partition: tuple[tuple[str, pa.Scalar], ...] = ()


@dataclass(frozen=True)
class ParquetFragment:
    """Consecutive rows of one parquet file: some row groups, or a part of them."""

    index: int
    first_row: int
    n_rows: int
    path: str
    row_groups: tuple[int, ...]
    skip_rows: int
    partition: tuple[tuple[str, pa.Scalar], ...] = ()
    schema: pa.Schema = field(default=None, repr=False)
    streamed: bool = False
    """a part of a row group too large to be read whole: a few rows at a time, up to the last needed"""

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, in file order; ``columns=None`` means all."""
        names = self.schema.names if columns is None else list(columns)
        missing = [name for name in names if name not in self.schema.names]
        if missing:
            raise InputError(f"{self.path} has no column {missing[0]}; it has: {', '.join(self.schema.names)}")
        constants = dict(self.partition)
        stored = [name for name in names if name not in constants]
        try:
            with opened_parquet(self.path, streamed=self.streamed) as file:
                table = self._read_stored(file, stored)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"cannot read the parquet file {self.path}: {error}") from None
        fields = [self.schema.field(name) for name in names]
        arrays = [
            pa.chunked_array([pa.repeat(constants[item.name], self.n_rows)])
            if item.name in constants
            else table.column(item.name).cast(item.type)
            for item in fields
        ]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _read_stored(self, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
        groups = list(self.row_groups)
        if not columns or not self.streamed:
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
            return table.slice(self.skip_rows, self.n_rows) if columns else table
        batches, position = [], 0
        for batch in file.iter_batches(STREAMED_ROWS, row_groups=groups, columns=columns, use_threads=False):
            begin = max(self.skip_rows - position, 0)
            end = min(self.skip_rows + self.n_rows - position, len(batch))
            if begin < end:
                batches.append(batch.slice(begin, end - begin))
            position += len(batch)
            if position >= self.skip_rows + self.n_rows:
                break
        return pa.Table.from_batches(batches)


@contextlib.contextmanager
def opened_parquet(path: str | os.PathLike[str], *, streamed: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a parquet file; of one in an object store, its footer and the column chunks asked for are fetched.

    With ``streamed`` column chunks are not read whole before they are decoded.
    """
    with contextlib.ExitStack() as stack:
        where: Any = path
        if storage.is_remote(path):
            where = stack.enter_context(storage.open_reading(path, buffering=0))
        ahead = storage.is_remote(path) and not streamed
        yield stack.enter_context(pq.ParquetFile(where, pre_buffer=ahead, buffer_size=STREAM_BYTES if streamed else 0))


def parquet_files(paths: Sequence[str]) -> list[ParquetFile]:
    """List parquet files, and those below folders in sorted order with the values that ``name=value`` folders stand for.

    As Hive does it: special characters of a value are written as in a URL, and `NULL_FOLDER` is no value. A column whose
    values are all whole numbers is one of numbers, as ``pyarrow.dataset`` takes it, whatever file they are of.
    """
    found: list[tuple[str, list[tuple[str, str | None]]]] = []
    for path in paths:
        if not storage.is_folder(path):
            found.append((path, []))
            continue
        for file in sorted(storage.files_below(path), key=lambda name: name.split("/")):
            below = file[len(path) :].strip("/").split("/")
            if file.endswith(".parquet") and not any(part.startswith((".", "_")) for part in below):
                found.append((file, [_value_of_folder(part) for part in below[:-1] if "=" in part]))
    texts: dict[str, set[str]] = {}
    for _, pairs in found:
        for name, text in pairs:
            texts.setdefault(name, set()).update([text] if text is not None else [])
    kinds = {name: _type_of_texts(values) for name, values in texts.items()}
    return [ParquetFile(path, tuple((name, _scalar(text, kinds[name])) for name, text in pairs)) for path, pairs in found]


def _value_of_folder(part: str) -> tuple[str, str | None]:
    name, text = part.split("=", 1)
    return unquote(name), None if text == NULL_FOLDER else unquote(text)


def _type_of_texts(texts: set[str]) -> pa.DataType:
    if not texts or not all(text.removeprefix("-").isdecimal() and text.isascii() for text in texts):
        return pa.string()
    largest = max(abs(int(text)) for text in texts)
    return pa.int32() if largest < 2**31 else pa.int64() if largest < 2**63 else pa.string()


def _scalar(text: str | None, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(int(text) if text is not None and pa.types.is_integer(kind) else text, kind)


def read_metadata(file: ParquetFile) -> tuple[pq.FileMetaData, pa.Schema]:
    """Read the footer of a file, and its schema with the columns that its folders stand for.

    Raises
    ------
    InputError
        The file cannot be read, or a column name occurs twice.
    """
    try:
        with opened_parquet(file.path) as stream:
            metadata, schema = stream.metadata, stream.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read the parquet file {file.path}: {error}") from None
    of_folders = dict(file.partition)
    fields = [item.with_type(_TAKEABLE.get(item.type, item.type)) for item in schema if item.name not in of_folders]
    fields += [pa.field(name, value.type) for name, value in file.partition]
    if len({item.name for item in fields}) != len(fields):
        raise InputError(f"{file.path}: a column name occurs twice")
    return metadata, pa.schema(fields, metadata=schema.metadata)


def fragments_of_file(
    file: ParquetFile,
    metadata: pq.FileMetaData,
    schema: pa.Schema,
    before: Sequence[ParquetFragment],
    fragment_rows: int | None,
) -> list[ParquetFragment]:
    """Cut a file into fragments, numbered on after the last of those before it, if any."""
    index = before[-1].index + 1 if before else 0
    row = before[-1].first_row + before[-1].n_rows if before else 0
    fragments = []
    for row_groups, skip, n_rows in _cut(metadata, fragment_rows):
        size = sum(metadata.row_group(group).total_byte_size for group in row_groups)
        streamed = size > LARGE_ROW_GROUP_BYTES
        fragments.append(ParquetFragment(index, row, n_rows, file.path, row_groups, skip, file.partition, schema, streamed))
        index, row = index + 1, row + n_rows
    return fragments


def _cut(metadata: pq.FileMetaData, fragment_rows: int | None) -> list[tuple[tuple[int, ...], int, int]]:
    """Cut a file into (row groups, rows to skip in the first of them, rows)."""
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    begins = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)
    if fragment_rows is not None:
        cuts = [*range(0, int(begins[-1]), fragment_rows), int(begins[-1])]
    else:
        cuts, size = [0], 0
        for group in range(len(rows)):
            group_bytes = metadata.row_group(group).total_byte_size
            if size and size + group_bytes > FRAGMENT_BYTES:
                cuts.append(int(begins[group]))
                size = 0
            size += group_bytes
            if group_bytes > LARGE_ROW_GROUP_BYTES:
                begin, step = int(begins[group]), max(1, int(rows[group] * FRAGMENT_BYTES / group_bytes))
                cuts += [begin, *range(begin + step, int(begins[group + 1]), step), int(begins[group + 1])]
                size = 0
        cuts.append(int(begins[-1]))
    ranges = []
    for start, stop in itertools.pairwise(cuts):
        if stop > start:
            first = int(np.searchsorted(begins, start, side="right")) - 1
            last = int(np.searchsorted(begins, stop, side="left"))
            ranges.append((tuple(range(first, last)), start - int(begins[first]), stop - start))
    return ranges
