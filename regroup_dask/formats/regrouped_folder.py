"""The particles of a finished output folder, fragment by fragment from its parquet, in the order of the input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.parquet_files import opened_parquet

SUPERCLASS_FOLDER = re.compile(r"superclass=(\d{1,9})")
FRAGMENT_FILE = re.compile(r"frag(\d{1,18})-\d+\.parquet")
ROW = "input_row"


@dataclass(frozen=True)
class RegroupedFragment:
    """Consecutive rows of the input, as they lie in a file of each superclass; small and picklable."""

    index: int
    first_row: int
    parts: tuple[tuple[int, str, int], ...]
    """superclass (-1 for remaining), file and its rows"""

    @property
    def n_rows(self) -> int:
        """Rows of all superclasses."""
        return sum(rows for _, _, rows in self.parts)

    def counts(self, n_superclasses: int) -> np.ndarray:
        """Rows of each superclass, the last of the remaining ones, i64[K + 1]."""
        counts = np.zeros(n_superclasses + 1, np.int64)
        for superclass, _, rows in self.parts:
            counts[superclass] += rows
        return counts

    def read(self, columns: Sequence[str] | None = None) -> tuple[pa.Table, np.ndarray]:
        """Read rows in input order, and the superclass of each, i64[n].

        Raises
        ------
        InputError
            A file cannot be read, or the rows are not those of one run.
        """
        wanted = None if columns is None else list(dict.fromkeys([*columns, ROW]))
        tables = [_read(path, wanted) for _, path, _ in self.parts]
        try:
            joined = pa.concat_tables(tables)
        except pa.ArrowException:
            raise InputError(f"{self.parts[0][1]} and {self.parts[-1][1]} have different columns.") from None
        superclass = np.repeat([group for group, _, _ in self.parts], [table.num_rows for table in tables])
        rows = joined.column(ROW).to_numpy()
        order = np.argsort(rows, kind="stable")
        if not np.array_equal(rows[order], np.arange(self.first_row, self.first_row + len(rows))):
            raise InputError(
                f"{self.parts[0][1]} and its neighbours do not hold each row of the input once: were files added or lost?"
            )
        return joined.take(pa.array(order)), superclass[order].astype(np.int64)


@dataclass(frozen=True)
class RegroupedFolder:
    """Particles of an output folder.

    Attributes
    ----------
    folder : Path
    n_superclasses : int
    fragments : tuple of RegroupedFragment
        In input order.
    schema : pyarrow.Schema
    """

    folder: Path
    n_superclasses: int
    fragments: tuple[RegroupedFragment, ...]
    schema: pa.Schema

    @property
    def counts(self) -> np.ndarray:
        """Rows of each fragment and superclass, the last column of the remaining ones, i64[n_fragments, K + 1]."""
        each = [fragment.counts(self.n_superclasses) for fragment in self.fragments]
        return np.array(each, np.int64).reshape(-1, self.n_superclasses + 1)


def open_regrouped(folder: Path) -> RegroupedFolder:
    """Find the particles of an output folder.

    Raises
    ------
    InputError
        The folder has no particles.
    """
    groups: list[tuple[int, str]] = []
    for path in storage.matching(f"{folder}/particles/superclass=*"):
        match = SUPERCLASS_FOLDER.fullmatch(path.rstrip("/").rpartition("/")[2])
        if match:
            groups.append((int(match[1]), path))
    groups.sort()
    if not groups or [number for number, _ in groups] != list(range(len(groups))):
        raise InputError(f"{folder} has no particles/superclass=K: give the output folder of a run with particles.")
    files: dict[int, list[tuple[int, str, int]]] = {}
    schema: pa.Schema | None = None
    for superclass, path in [*groups, (-1, f"{folder}/remaining")]:
        for file in storage.matching_files(f"{path}/*.parquet"):
            name = FRAGMENT_FILE.fullmatch(file.rpartition("/")[2])
            if name is None:
                raise InputError(f"{file} was not written by this program (fragNNNNN-0.parquet): move it away.")
            rows, found = _metadata(file)
            schema = schema or found
            files.setdefault(int(name[1]), []).append((superclass, file, rows))
    if schema is None or ROW not in schema.names:
        raise InputError(f"{folder}: its particles have no column {ROW}; were they written by this program?")
    fragments: list[RegroupedFragment] = []
    first_row = 0
    for number in sorted(files):
        parts = tuple(part for part in files[number] if part[2])
        if parts:
            fragments.append(RegroupedFragment(len(fragments), first_row, parts))
            first_row += fragments[-1].n_rows
    if not fragments:
        raise InputError(f"{folder} has no particles: all its parquet files are without rows.")
    return RegroupedFolder(folder, len(groups), tuple(fragments), schema)


def _metadata(path: str) -> tuple[int, pa.Schema]:
    try:
        with opened_parquet(path) as file:
            return int(file.metadata.num_rows), file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _read(path: str, columns: Sequence[str] | None) -> pa.Table:
    try:
        with opened_parquet(path) as file:
            return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"cannot read the parquet file {path}: {reason}")
