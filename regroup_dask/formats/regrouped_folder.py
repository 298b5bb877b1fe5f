"""The particles of a finished output folder, read from its parquet in the order of the input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import InputError

SUPERCLASS_FOLDER = re.compile(r"superclass=(\d{1,9})")


@dataclass(frozen=True)
class RegroupedFolder:
    """Particles of an output folder.

    Attributes
    ----------
    folder : Path
    n_superclasses : int
    files : dict of str to list of (int, Path)
        By the name of the fragment: superclass (-1 for remaining) and file.
    counts : i64[K + 1]
        Rows of each superclass, the last of the remaining ones.
    schema : pyarrow.Schema
    """

    folder: Path
    n_superclasses: int
    files: dict[str, list[tuple[int, Path]]]
    counts: np.ndarray
    schema: pa.Schema

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the rows of one fragment after another, in input order, and the superclass of each, i64[n]."""
        for name in sorted(self.files):
            tables, labels = [], []
            for superclass, path in self.files[name]:
                wanted = None if columns is None else [*columns, "input_row"]
                table = _read(path, wanted)
                tables.append(table)
                labels.append(np.full(table.num_rows, superclass, np.int64))
            joined = pa.concat_tables(tables)
            order = np.argsort(joined.column("input_row").to_numpy(), kind="stable")
            if len(order):
                yield joined.take(pa.array(order)), np.concatenate(labels)[order]


def open_regrouped(folder: Path) -> RegroupedFolder:
    """Find the particles of an output folder.

    Raises
    ------
    InputError
        The folder has no particles.
    """
    groups: list[tuple[int, Path]] = []
    for path in sorted((folder / "particles").glob("superclass=*")):
        match = SUPERCLASS_FOLDER.fullmatch(path.name)
        if match:
            groups.append((int(match[1]), path))
    groups.sort()
    if not groups or [number for number, _ in groups] != list(range(len(groups))):
        raise InputError(f"{folder} has no particles/superclass=K: give the output folder of a run with particles.")
    files: dict[str, list[tuple[int, Path]]] = {}
    counts = np.zeros(len(groups) + 1, np.int64)
    schema: pa.Schema | None = None
    for superclass, path in [*groups, (-1, folder / "remaining")]:
        for file in sorted(path.glob("*.parquet")):
            files.setdefault(file.name, []).append((superclass, file))
            with _open(file) as opened:
                counts[superclass] += opened.metadata.num_rows
                schema = schema or opened.schema_arrow
    if schema is None or "input_row" not in schema.names:
        raise InputError(f"{folder}: its particles have no column input_row; were they written by this program?")
    return RegroupedFolder(folder, len(groups), files, counts, schema)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read the parquet file {path}: {error}") from None


def _read(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        with _open(path) as file:
            return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot read the parquet file {path}: {error}") from None
