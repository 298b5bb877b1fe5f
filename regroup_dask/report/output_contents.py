"""What the output folder of a run holds, as the figures take it; whatever is missing is None."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xarray as xr

from regroup_dask.formats import storage
from regroup_dask.formats.consolidate import open_store
from regroup_dask.formats.pairs_store import read_pairs
from regroup_dask.formats.parquet_files import opened_parquet
from regroup_dask.formats.result_tables import read_table
from regroup_dask.formats.run_folder import read_run

logger = logging.getLogger(__name__)

DENSITY = "density"
LARGEST_FLOW_VALUES = 2 * 10**8


class OutputContents(NamedTuple):
    """What a run left in its folder.

    Attributes
    ----------
    folder
        The output folder.
    record
        run.json.
    classes, superclasses
        Rows of the two tables as dictionaries.
    groups
        As `regroup_dask.group` gives it, rebuilt from the tables: on ``class_id`` the classes that were grouped.
    pairs
        pairs.zarr, on (class_i, class_j), or None.
    class_maps
        classes.zarr: ``density`` (class_id, z, y, x) and statistics of each class, or None.
    volumes
        volumes.zarr: ``density`` (superclass, z, y, x), lazy, or None.
    """

    folder: Path
    record: dict[str, Any]
    classes: list[dict[str, Any]]
    superclasses: list[dict[str, Any]]
    groups: xr.Dataset
    pairs: xr.Dataset | None
    class_maps: xr.Dataset | None
    volumes: xr.Dataset | None


def read_output(folder: Path) -> OutputContents:
    """Read what an output folder holds.

    Raises
    ------
    InputError
        The folder has no run.json.
    """
    record = read_run(folder)
    classes = read_table(folder, "classes").to_pylist()
    superclasses = read_table(folder, "superclasses").to_pylist()
    pairs = read_pairs(folder / "pairs.zarr") if storage.is_folder(folder / "pairs.zarr") else None
    return OutputContents(
        folder,
        record,
        classes,
        superclasses,
        groups_of_tables(classes, superclasses),
        pairs,
        _open_store(folder / "classes.zarr"),
        _open_store(folder / "volumes.zarr"),
    )


def groups_of_tables(classes: list[dict[str, Any]], superclasses: list[dict[str, Any]]) -> xr.Dataset:
    """Rebuild the dataset of a grouping from the rows of its two tables.

    Parameters
    ----------
    classes, superclasses
        Rows of classes.parquet and superclasses.parquet.

    Returns
    -------
    xarray.Dataset
        On ``class_id``: ``superclass``, ``rotation_quaternion``, ``shift_angstrom``, ``mirrored``,
        ``similarity_to_superclass``, ``stability``; on ``superclass_id``: ``reference_class``.
    """
    grouped = [row for row in classes if row["superclass"] >= 0]
    n_classes = len(grouped)

    def column(name: str, kind: type, default: object) -> np.ndarray:
        return np.array([default if row.get(name) is None else row[name] for row in grouped], dtype=kind)

    data = {
        "superclass": ("class_id", column("superclass", int, -1)),
        "rotation_quaternion": (
            ("class_id", "quaternion"),
            column("rotation_quaternion", float, [0.0, 0.0, 0.0, 1.0]).reshape(n_classes, 4),
        ),
        "shift_angstrom": (("class_id", "axis"), column("shift_angstrom", float, [0.0] * 3).reshape(n_classes, 3)),
        "mirrored": ("class_id", column("mirrored", bool, False)),
        "similarity_to_superclass": ("class_id", column("similarity_to_superclass", float, np.nan)),
        "stability": ("class_id", column("stability", float, np.nan)),
        "reference_class": ("superclass_id", np.array([row["reference_class"] for row in superclasses], int)),
    }
    coords: dict[str, Any] = {
        "class_id": ("class_id", column("class_id", int, -1)),
        "name": ("class_id", np.array([str(row["name"]) for row in grouped], dtype=str)),
        "superclass_id": np.array([row["superclass"] for row in superclasses], int),
        "quaternion": ["x", "y", "z", "w"],
        "axis": ["x", "y", "z"],
    }
    if all(row["n_particles"] is not None for row in grouped):
        coords["n_particles"] = ("class_id", column("n_particles", int, 0))
    return xr.Dataset(data, coords=coords, attrs={"n_superclasses": len(superclasses)})


def _open_store(path: Path) -> xr.Dataset | None:
    if not storage.is_folder(path):
        return None
    try:
        store = open_store(path)
        names = [str(name) for name in store.data_vars if store[name].ndim == 4]
        # Read once: one value after the other takes as long as all of them, every time.
        store = store.assign({name: values.load() for name, values in store.data_vars.items() if values.ndim < 4})
        return store.rename({names[0]: DENSITY}) if names and DENSITY not in store else store
    except (KeyError, ValueError, OSError) as error:
        logger.warning("%s cannot be read and is left out of the report: %s", path, error)
        return None


def read_flow(
    folder: Path, classes: list[dict[str, Any]], n_superclasses: int, *, without_map: Collection[int] = ()
) -> xr.Dataset | None:
    """Count what went from each class to each superclass, from the particles that were written.

    Parameters
    ----------
    folder
        The output folder.
    classes
        Rows of classes.parquet.
    n_superclasses
        Number of superclasses.
    without_map
        Classes that particles name and that have no row in `classes`.

    Returns
    -------
    xarray.Dataset or None
        ``particles`` (class_id, destination), each particle counted where it went, by its best class; and where
        the posteriors were kept ``expected_particles``, the sum of its posteriors. Destination -1 is remaining,
        class -1 has no posterior. None without particles.
    """
    rows = _rows_of_particles(folder, n_superclasses)
    if rows is None:
        return _flow_of_classes(classes, n_superclasses)
    with_posteriors = sum(rows.values()) * max(n_superclasses, 1) <= LARGEST_FLOW_VALUES
    class_ids = np.array(sorted({-1, *(row["class_id"] for row in classes), *without_map}))
    counts = np.zeros((len(class_ids), n_superclasses + 1), np.int64)
    expected = np.zeros((len(class_ids), n_superclasses + 1))
    seen = False
    for path, _ in rows.items():
        destination = _destination(path, n_superclasses)
        with opened_parquet(path) as table:
            names = set(table.schema_arrow.names)
            if "assigned_class_id" not in names:
                return _flow_of_classes(classes, n_superclasses)
            posteriors = with_posteriors and "superclass_posterior" in names
            wanted = ["assigned_class_id", "superclass_posterior"] if posteriors else ["assigned_class_id"]
            for batch in table.iter_batches(columns=wanted):
                assigned = np.asarray(batch.column("assigned_class_id").to_numpy(zero_copy_only=False), np.int64)
                position = np.searchsorted(class_ids, assigned)
                known = class_ids[np.minimum(position, len(class_ids) - 1)] == assigned
                position = np.where(known, position, 0)
                counts[:, destination] += np.bincount(position, minlength=len(class_ids))
                if posteriors:
                    seen = True
                    _add_posteriors(expected, position, batch.column("superclass_posterior"))
    destinations = np.array([*range(n_superclasses), -1])
    data: dict[str, Any] = {"particles": (("class_id", "destination"), counts)}
    if seen:
        data["expected_particles"] = (("class_id", "destination"), expected)
    flow = xr.Dataset(data, coords={"class_id": class_ids, "destination": destinations})
    return flow.isel(class_id=np.isin(class_ids, [row["class_id"] for row in classes]) | (counts.sum(axis=1) > 0))


def _add_posteriors(expected: np.ndarray, position: np.ndarray, column: pa.Array) -> None:
    n_superclasses = expected.shape[1] - 1
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float64)
    if values.size != len(position) * n_superclasses:
        return
    values = np.nan_to_num(values.reshape(len(position), n_superclasses))
    for superclass in range(n_superclasses):
        expected[:, superclass] += np.bincount(position, values[:, superclass], minlength=len(expected))
    rest = np.clip(1 - values.sum(axis=1), 0, 1)
    expected[:, -1] += np.bincount(position, np.where(rest < 1e-4, 0, rest), minlength=len(expected))


def _rows_of_particles(folder: Path, n_superclasses: int) -> dict[str, int] | None:
    found = {}
    for name in ("particles", "remaining"):
        for path in storage.files_below(folder / name) if storage.is_folder(folder / name) else []:
            if path.endswith(".parquet"):
                with opened_parquet(path) as file:
                    found[path] = file.metadata.num_rows
    return found or None


def _destination(path: str, n_superclasses: int) -> int:
    for part in path.split("/")[::-1]:
        if part.startswith("superclass="):
            return int(part.split("=", 1)[1])
    return n_superclasses


def _flow_of_classes(classes: list[dict[str, Any]], n_superclasses: int) -> xr.Dataset | None:
    if not classes or any(row["n_particles"] is None for row in classes):
        return None
    counts = np.zeros((len(classes), n_superclasses + 1), np.int64)
    for row, values in zip(classes, counts, strict=True):
        values[row["superclass"]] = row["n_particles"]
    return xr.Dataset(
        {"particles": (("class_id", "destination"), counts)},
        coords={
            "class_id": [row["class_id"] for row in classes],
            "destination": np.array([*range(n_superclasses), -1]),
        },
    )
