"""Align some classes of a superclass once more, each to the average of all the others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from regroup_dask.science import align, average, masks, noise
from regroup_dask.science.rotations import Pose
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory
from regroup_dask.tasks.prepare import apply_mask


class PolishUnit(NamedTuple):
    """Some members of one superclass.

    Attributes
    ----------
    rows
        Rows of the store that hold the maps of all members.
    poses
        Their poses into the superclass frame.
    weights
        Their weights in the average.
    chosen
        Positions, among the members, of those to align.
    store
        classes.zarr, with the working maps ``(class, z, y, x)`` and the power of their noise.
    """

    name: str
    rows: tuple[int, ...]
    poses: tuple[Pose, ...]
    weights: tuple[float, ...]
    chosen: tuple[int, ...]
    store: Path
    plan: align.AlignmentPlan
    mask_inner_radius: float | None


@kept_memory(MAP_BYTES)
def polish_members(unit: PolishUnit) -> Result:
    """Return the refined pose of each chosen member, and its correlation with the others before and after."""
    maps = zarr.open_array(f"{unit.store!s}/density", mode="r", zarr_format=3)
    known = None
    if unit.mask_inner_radius is None:  # under a mask of its own the noise of a map is measured again
        known = np.asarray(zarr.open_array(f"{unit.store!s}/solvent_power", mode="r", zarr_format=3)[:])
    voxel_size = unit.plan.voxel_size_angstrom
    volumes = [np.ascontiguousarray(maps[row]) for row in unit.rows]  # type: ignore[index]
    total = np.zeros(volumes[0].shape, np.float64)
    moved = []
    for volume, pose, weight in zip(volumes, unit.poses, unit.weights, strict=True):
        scale = weight / float(volume.std())
        moved.append(
            scale
            * average.move_map(
                volume,
                rotation=pose.rotation,
                shift_voxel=pose.shift_angstrom / voxel_size,
                mirrored=pose.mirrored,
            )
        )
        total += moved[-1]
    rows: dict[str, list] = {name: [] for name in ("rotation", "shift_angstrom", "before", "after")}
    for position in unit.chosen:
        pose = unit.poses[position]
        others = _prepare((total - moved[position]).astype(np.float32), unit)
        member = _prepare(volumes[position], unit, None if known is None else known[unit.rows[position]])
        start = {"rotation": pose.rotation, "shift_angstrom": pose.shift_angstrom, "mirrored": pose.mirrored}
        before = align.measure_pair(others, member, unit.plan, **start)  # type: ignore[arg-type]
        after = align.refine_pair(others, member, unit.plan, **start)  # type: ignore[arg-type]
        rows["rotation"].append(after.rotation)
        rows["shift_angstrom"].append(after.shift_angstrom)
        rows["before"].append(before.correlation)
        rows["after"].append(after.correlation)
    return {name: np.array(values, np.float64) for name, values in rows.items()}


def _prepare(volume: np.ndarray, unit: PolishUnit, noise_power: np.ndarray | None = None) -> align.PreparedMap:
    if unit.mask_inner_radius is not None:
        mask = masks.soft_sphere(volume.shape[0], inner_radius_fraction=unit.mask_inner_radius)
        volume = apply_mask(volume, mask)
    if noise_power is None:
        noise_power = noise.map_statistics(volume, voxel_size_angstrom=unit.plan.voxel_size_angstrom).solvent_power
    return align.prepare_map(volume, unit.plan, noise_power=noise_power, to_search=False)
