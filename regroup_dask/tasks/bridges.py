"""Align two classes that were never compared, so that their superclass has one frame."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from regroup_dask.science import align, masks, noise
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory
from regroup_dask.tasks.prepare import apply_mask


class BridgeUnit(NamedTuple):
    """One pair of classes.

    Attributes
    ----------
    fixed, moving
        Rows of the store.
    store
        classes.zarr with the working maps, ``density`` (class, z, y, x).
    plan
        How to align.
    mask_inner_radius
        Of a spherical mask, as in `Settings`, or None.
    """

    name: str
    fixed: int
    moving: int
    store: Path
    plan: align.AlignmentPlan
    mask_inner_radius: float | None


@kept_memory(MAP_BYTES)
def align_bridge(unit: BridgeUnit) -> Result:
    """Return the pose that superposes the moving class onto the fixed one, and how well they agree."""
    maps = zarr.open_array(f"{unit.store!s}/density", mode="r", zarr_format=3)
    fixed, moving = (
        _prepare(np.ascontiguousarray(maps[row]), unit)  # type: ignore[index]
        for row in (unit.fixed, unit.moving)
    )
    found = align.align_pair(fixed, moving, unit.plan)
    return {
        "rotation": np.asarray(found.rotation),
        "shift_angstrom": np.asarray(found.shift_angstrom),
        "mirrored": np.array(found.mirrored),
        "correlation": np.array(found.correlation),
        "confidence": np.array(found.confidence),
    }


def _prepare(volume: np.ndarray, unit: BridgeUnit) -> align.PreparedMap:
    if unit.mask_inner_radius is not None:
        mask = masks.soft_sphere(volume.shape[0], inner_radius_fraction=unit.mask_inner_radius)
        volume = apply_mask(volume, mask)
    statistics = noise.map_statistics(volume, voxel_size_angstrom=unit.plan.voxel_size_angstrom)
    return align.prepare_map(volume, unit.plan, noise_power=statistics.solvent_power)
