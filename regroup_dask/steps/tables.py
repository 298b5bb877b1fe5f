"""The tables a person reads: one row per input class, one row per superclass."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xarray as xr

from regroup_dask.steps.inputs import Inputs
from regroup_dask.steps.selection import Selection


def class_table(inputs: Inputs, selection: Selection, groups: xr.Dataset) -> pa.Table:
    """One row per input class: where it went, and its pose into its superclass frame."""
    references = {reference.class_id: reference for reference in inputs.series.references}
    position = {int(class_id): index for index, class_id in enumerate(groups["class_id"].values)}
    rows: dict[str, list] = {name: [] for name in CLASS_SCHEMA.names}
    for index, class_id in enumerate(int(value) for value in selection.class_ids):
        reference = references[class_id]
        at = position.get(class_id)
        rows["class_id"].append(class_id)
        rows["name"].append(reference.name)
        rows["volume"].append(reference.path if reference.kind == "mrc" else f"{reference.path}[{reference.index}]")
        rows["n_particles"].append(None if selection.n_particles is None else int(selection.n_particles[index]))
        rows["status"].append(selection.status[index])
        rows["superclass"].append(-1 if at is None else int(groups["superclass"].values[at]))
        rows["mirrored"].append(False if at is None else bool(groups["mirrored"].values[at]))
        rows["rotation_quaternion"].append(
            [0.0, 0.0, 0.0, 1.0] if at is None else groups["rotation_quaternion"].values[at].tolist()
        )
        rows["shift_angstrom"].append([0.0] * 3 if at is None else groups["shift_angstrom"].values[at].tolist())
        for name in ("similarity_to_superclass", "stability"):
            rows[name].append(None if at is None else float(groups[name].values[at]))
        rows["note"].append("" if at is None or "note" not in groups else str(groups["note"].values[at]))
    return pa.table(rows, schema=CLASS_SCHEMA)


def superclass_table(groups: xr.Dataset, n_particles: np.ndarray | None) -> pa.Table:
    """One row per superclass; paths are relative to the output folder."""
    labels = groups["superclass"].values
    count = int(labels.max()) + 1
    return pa.table(
        {
            "superclass": list(range(count)),
            "n_classes": [int((labels == label).sum()) for label in range(count)],
            "n_particles": [None] * count if n_particles is None else [int(value) for value in n_particles],
            "reference_class": [int(value) for value in groups["reference_class"].values],
            "stability": [float(value) for value in groups["superclass_stability"].values],
            "volume": [f"volumes/superclass_{label:03d}.mrc" for label in range(count)],
        },
        schema=SUPERCLASS_SCHEMA,
    )


CLASS_SCHEMA = pa.schema(
    [
        ("class_id", pa.int64()),
        ("name", pa.string()),
        ("volume", pa.string()),
        ("n_particles", pa.int64()),
        ("status", pa.string()),
        ("superclass", pa.int64()),
        ("mirrored", pa.bool_()),
        ("rotation_quaternion", pa.list_(pa.float64(), 4)),
        ("shift_angstrom", pa.list_(pa.float64(), 3)),
        ("similarity_to_superclass", pa.float64()),
        ("stability", pa.float64()),
        ("note", pa.string()),
    ]
)

SUPERCLASS_SCHEMA = pa.schema(
    [
        ("superclass", pa.int64()),
        ("n_classes", pa.int64()),
        ("n_particles", pa.int64()),
        ("reference_class", pa.int64()),
        ("stability", pa.float64()),
        ("volume", pa.string()),
    ]
)
