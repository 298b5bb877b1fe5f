"""The pose that a particle came with, against its own class: for particles that went to no superclass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from regroup_dask.formats.cryosparc.posteriors import COMMON, MULTI, PosteriorSlots, present_prefixes
from regroup_dask.formats.cryosparc.slot_poses import NEEDED, slot_poses
from regroup_dask.formats.relion.poses import ANGLES, ORIGINS_ANGSTROM, ORIGINS_PIXEL
from regroup_dask.formats.rotations import matrices_of_angles

CLASS_ID = "assigned_class_id"


def columns_of_own_poses(names: Sequence[str]) -> list[str]:
    """Name the columns of a table that `own_poses` reads."""
    relion = (CLASS_ID, *ANGLES, *ORIGINS_ANGSTROM, *ORIGINS_PIXEL)
    ends = tuple(f"/{field}" for field in NEEDED)
    return [name for name in names if name in relion or (name.startswith("alignments") and name.endswith(ends))]


def own_poses(table: pa.Table, pixel_angstrom: np.ndarray, n_axes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Pose of each row against its best class, as in the input.

    Parameters
    ----------
    table : pyarrow.Table
    pixel_angstrom : f64[n]
        Of the images, for origins in pixels.
    n_axes : int
        2 for images, 3 for subtomograms.

    Returns
    -------
    rotation f64[n, 3, 3], shift_angstrom f64[n, n_axes], or None
        Particle frame to volume, and +shift centres the image; NaN where a row has no class. None without poses.
    """
    names = set(table.column_names)
    if set(ANGLES) <= names:
        angles = np.stack([_numbers(table, name) for name in ANGLES], axis=1)
        in_angstrom = ORIGINS_ANGSTROM[0] in names
        labels = (ORIGINS_ANGSTROM if in_angstrom else ORIGINS_PIXEL)[:n_axes]
        origin = [_numbers(table, name) if name in names else np.zeros(table.num_rows) for name in labels]
        scale = np.ones(table.num_rows) if in_angstrom else pixel_angstrom
        return matrices_of_angles(angles), np.stack(origin, axis=1) * scale[:, None]
    slots = _slots(table)
    if slots is None or n_axes != 2 or CLASS_ID not in names:
        return None
    class_ids = np.asarray(slots.class_ids)
    chosen = table.column(CLASS_ID).to_numpy()
    index = np.minimum(np.searchsorted(class_ids, chosen), len(class_ids) - 1)
    known = chosen >= 0 if slots.hard else class_ids[index] == chosen
    return slot_poses(table, slots, np.where(known, 0 if slots.hard else index, -1))


def _slots(table: pa.Table) -> PosteriorSlots | None:
    names = table.column_names
    prefixes = present_prefixes([*names, *(f"{name.split('/')[0]}/class_posterior" for name in names if "/" in name)])
    for prefix in prefixes:
        if prefix.startswith(MULTI):
            if f"{MULTI}/pose" in names:
                n_classes = table.schema.field(f"{MULTI}/pose").type.list_size
                return PosteriorSlots(MULTI, tuple(range(n_classes)), (MULTI,) * n_classes)
        else:
            own = {name.split("/")[0] for name in names if name.startswith(prefix)}
            ids = sorted(int(slot[len(prefix) :]) for slot in own if slot[len(prefix) :].isdecimal())
            if ids:
                return PosteriorSlots(prefix, tuple(ids), tuple(f"{prefix}{class_id}" for class_id in ids))
    return PosteriorSlots(COMMON, (0,), (COMMON,)) if f"{COMMON}/pose" in names else None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy().astype(np.float64)
