"""The small tables of a result: classes and superclasses, as parquet and as CSV."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from regroup_dask.formats import storage, storing

COMPONENTS = {
    "rotation_quaternion": ("x", "y", "z", "w"),
    "shift_angstrom": ("x", "y", "z"),
}


def write_table(table: pa.Table, folder: Path, name: str) -> None:
    """Write ``NAME.parquet`` and ``NAME.csv``; vectors become one CSV column per component."""
    with storing.whole_file(folder / f"{name}.parquet") as unfinished:
        pyarrow.parquet.write_table(table, unfinished, compression="zstd")
    with storing.whole_file(folder / f"{name}.csv") as unfinished:
        pyarrow.csv.write_csv(flatten(table), unfinished)


def read_table(folder: Path, name: str) -> pa.Table:
    """Read ``NAME.parquet``."""
    with storage.open_reading(folder / f"{name}.parquet") as stream:
        return pyarrow.parquet.read_table(stream)


def flatten(table: pa.Table) -> pa.Table:
    """Spread fixed-size list columns over one column per component."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table[name]
        if not pa.types.is_fixed_size_list(column.type):
            columns[name] = column
            continue
        size = column.type.list_size
        suffixes = COMPONENTS.get(name, tuple(str(index) for index in range(size)))
        for index, suffix in enumerate(suffixes):
            columns[f"{name}_{suffix}"] = pc.list_element(column, index)
    return pa.table(columns)
