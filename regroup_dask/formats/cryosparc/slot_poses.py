"""The pose that a particle has against a class: which slot holds it, and in which units."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from regroup_dask.formats.cryosparc.arrow_columns import column_values
from regroup_dask.formats.cryosparc.posteriors import COMMON, PosteriorSlots
from regroup_dask.formats.rotations import matrices_of_vectors

NEEDED = ("pose", "shift", "psize_A")


def pose_is_common(names: Collection[str], slots: PosteriorSlots) -> bool:
    """Tell whether all classes share the pose in alignments3D.

    So they do in 3D Classification up to v4.4, whatever the slots of its classes hold, where there is only
    one class per particle, and where the slots of the classes have no poses of their own.
    """
    if slots.hard:
        return True
    own = f"{slots.slots[0]}/pose" in names
    return f"{COMMON}/pose" in names and (slots.prefix == "alignments_class3D_" or not own)


def slot_poses(table: pa.Table, slots: PosteriorSlots, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the pose of each row against one class, or None where the table has no poses with their units.

    Parameters
    ----------
    table : pyarrow.Table
    slots : PosteriorSlots
    class_index : int[n]
        Index into ``slots.class_ids``; -1 for none.

    Returns
    -------
    rotation f64[n, 3, 3], shift_angstrom f64[n, 2]
        Particle frame to volume; the image moves by +shift to centre it. NaN where a row has none.
    """
    names = table.column_names
    common = pose_is_common(names, slots)
    slot = COMMON if common else slots.slots[0]
    if any(f"{slot}/{field}" not in names for field in NEEDED):
        return None
    class_index = np.asarray(class_index)
    n = len(class_index)
    values = {}
    for field, extent in zip(NEEDED, ((3,), (2,), ()), strict=True):
        chosen = np.full((n, *extent), np.nan)
        if common or slots.multi:
            column = column_values(table, f"{slot}/{field}").astype(np.float64)
            per_class = column.ndim == len(extent) + 2
            chosen = column[np.arange(n), np.maximum(class_index, 0)] if per_class else column
        else:
            for index in np.unique(class_index[class_index >= 0]):
                rows = class_index == index
                chosen[rows] = column_values(table, f"{slots.slots[index]}/{field}")[rows]
        values[field] = chosen
    pixel = np.where(values["psize_A"] > 0, values["psize_A"], np.nan)
    pose = np.where((class_index >= 0)[:, None], values["pose"], np.nan)
    known = np.asarray(np.isfinite(pose).all(axis=1))
    rotation = matrices_of_vectors(pose)
    shift = np.where(known[:, None], values["shift"] * pixel[:, None], np.nan)
    return rotation, shift
