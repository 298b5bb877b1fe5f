"""Several ``.cs`` files of the same columns, read as one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.dataset_file import CHUNK_BYTES, DatasetFile
from regroup_dask.formats.particle_source import FRAGMENT_BYTES
from regroup_dask.formats.uid_index import hashes_of_integers


class StackedFiles(NamedTuple):
    """Files one below the other."""

    files: tuple[DatasetFile, ...]
    dtype: np.dtype
    """columns in the order of the first file, text as wide as the widest"""

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(file.n_rows for file in self.files)

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """Path and number of rows of each file."""
        return tuple((file.path, file.n_rows) for file in self.files)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Read a range of rows, which may span files."""
        if len(self.files) == 1:
            return self.files[0].read(start, stop, columns)
        result = {name: np.empty(stop - start, self.dtype[name]) for name in columns}
        first = 0
        for file in self.files:
            low, high = max(start, first), min(stop, first + file.n_rows)
            if low < high:
                for name, values in file.read(low - first, high - first, columns).items():
                    result[name][low - start : high - start] = values
            first += file.n_rows
        return result

    @property
    def plain_records(self) -> bool:
        """All files are records of the very type of the table, so that `records` can read them as they are."""
        return all(file.column_folder is None and file.dtype == self.dtype for file in self.files)

    def records(self, start: int, stop: int) -> np.ndarray:
        """Read a range of rows as records, where there are `plain_records`."""
        result = np.empty(stop - start, self.dtype)
        first = 0
        for file in self.files:
            low, high = max(start, first), min(stop, first + file.n_rows)
            if low < high:
                file.read_records(low - first, result[low - start : high - start])
            first += file.n_rows
        return result

    def parts(self) -> list[StackRows]:
        """Ranges of rows of about `FRAGMENT_BYTES`, to be looked at one by one."""
        step = max(1, FRAGMENT_BYTES // self.dtype.itemsize)
        return [StackRows(self, start, min(step, self.n_rows - start)) for start in range(0, self.n_rows, step)]

    def chunks(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Iterate over all rows in small pieces: first row and columns."""
        first = 0
        for file in self.files:
            for start, values in file.chunks(columns):
                yield first + start, values
            first += file.n_rows


class StackRows(NamedTuple):
    """A range of rows of stacked files; small and picklable."""

    stack: StackedFiles
    first_row: int
    n_rows: int

    def chunks(self, columns: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Iterate over the rows in small pieces."""
        step = max(1, CHUNK_BYTES // self.stack.dtype.itemsize)
        for start in range(self.first_row, self.first_row + self.n_rows, step):
            yield self.stack.read(start, min(start + step, self.first_row + self.n_rows), columns)

    def read_hashes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Hashes of the uids, u64[n_rows], and the names of columns with text that is not UTF-8."""
        hashes = [np.empty(0, np.uint64)]
        names = [name for name in self.stack.dtype.names or () if self.stack.dtype[name].kind == "S"]
        binary: set[str] = set()
        for values in self.chunks(["uid", *names]):
            hashes.append(hashes_of_integers(values["uid"]))
            binary.update(name for name in set(names) - binary if not _is_utf8(values[name]))
        return np.concatenate(hashes), tuple(sorted(binary))


def _is_utf8(texts: np.ndarray) -> bool:
    text = np.ascontiguousarray(texts)
    if not len(text) or int(text.view(np.uint8).max()) < 128:
        return True
    try:
        for item in np.unique(text).tolist():
            item.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def stack_files(files: Sequence[DatasetFile]) -> StackedFiles:
    """Stack files with the same columns; the order of columns and the width of text may differ.

    Raises
    ------
    InputError
        A column is missing in one, or has another type.
    """
    first = files[0]
    names = first.dtype.names or ()
    fields: list[tuple] = []
    for file in files[1:]:
        other = set(file.dtype.names or ())
        unlike = sorted(other.symmetric_difference(names))
        if unlike:
            raise InputError(
                f"{first.path} and {file.path} cannot be read as one table: only one of them has "
                f"{', '.join(unlike[:5])}{' and others' if len(unlike) > 5 else ''}"
            )
    for name in names:
        kinds = [file.dtype[name] for file in files]
        kind = kinds[0]
        if all(other.kind == "S" for other in kinds):
            kind = max(kinds, key=lambda other: other.itemsize)
        else:
            for file, found in zip(files, kinds, strict=True):
                if (found.base.newbyteorder("="), found.shape) != (kind.base.newbyteorder("="), kind.shape):
                    raise InputError(
                        f"{first.path} and {file.path} cannot be read as one table: {name} is {kind} in "
                        f"one and {found} in the other"
                    )
        fields.append((name, kind.base, kind.shape) if kind.shape else (name, kind))
    return StackedFiles(tuple(files), np.dtype(fields))
