"""Where maps of one frame differ: every map moved into it once, then all compared place by place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regroup_dask.science import align, frames, noise, similarity
from regroup_dask.science.local_covariance import LEAST_SPACING_VOXELS, SPACING_OF_RADIUS, LocalCovariance
from regroup_dask.science.rotations import Pose
from regroup_dask.settings import Settings
from regroup_dask.steps.pair_table import PairTable
from regroup_dask.steps.run_context import RunContext
from regroup_dask.superclass_frames import pair_weights
from regroup_dask.tasks import map_store, places

# The products of all pairs in all windows of more maps than this are not worth their time and space.
MOST_MAPS_BY_PLACE = 60
EDGE_VOXELS = 2.0


def compare_places(
    table: PairTable,
    found: similarity.Similarity,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    mask_volume_fraction: np.ndarray,
    settings: Settings,
    store: Path,
    run: RunContext,
    *,
    reference: int,
    other_hand: np.ndarray | None,
    has_mask: bool,
) -> LocalCovariance | None:
    """Second moments of all maps in the frame of one of them, band by band and window by window.

    Parameters
    ----------
    table, found
        The pairs, and signal and noise of every map as they say.
    plan
        The alignment plan.
    statistics, mask_volume_fraction
        Of the maps.
    settings, store, run
        Of the run.
    reference
        The map whose frame all are moved into; the mask, if there is one, lies there.
    other_hand
        Which maps are inverted to the hand of that map, bool (N,); None when nothing was aligned.
    has_mask
        Whether the store holds a mask.

    Returns
    -------
    LocalCovariance or None
        None for fewer than three maps, or too many, or where pairs are missing, or where no two maps share a band.
    """
    n_maps = len(statistics)
    apart = ~np.eye(n_maps, dtype=bool)
    if not 2 < n_maps <= MOST_MAPS_BY_PLACE or not np.isfinite(table.correlation[apart]).all():
        return None
    signal = np.nan_to_num(found.signal_fraction)
    usable = signal > 0
    usable[:, 0] = False
    shared = np.flatnonzero(usable.sum(axis=0) > 1)
    if not len(shared):
        return None
    box = min(plan.box, 2 * (int(shared[-1]) + 2))
    poses = _poses(table, settings, reference, other_hand)
    map_store.create_arrays(store, n_maps, {places.PLACED: ((box,) * 3, np.dtype(np.float32))})
    units = [
        places.PlaceUnit(f"map_{index:05d}", index, store, poses[index], plan.voxel_size_angstrom, box)
        for index in range(n_maps)
    ]
    run.run("place", "Placing maps", places.place_map, units)
    scale = (box / plan.box) ** 3
    diagonal = np.arange(n_maps)
    power = table.power_fixed[diagonal, diagonal] / (2 * noise.shell_coefficients(plan.box)) * scale**2
    fraction = np.broadcast_to(mask_volume_fraction, n_maps)[:, None]
    voxel = plan.voxel_size_angstrom * plan.box / box
    shells = box // 2 + 1
    unit = places.PlacesUnit(
        "all_maps",
        n_maps,
        store,
        box,
        (signal * power)[:, :shells],
        ((1 - signal) * power / fraction)[:, :shells],
        found.shells.reliability.scale_error,
        usable[:, :shells],
        region_radius(statistics, poses, voxel, box),
        window_spacing(statistics, voxel),
        has_mask,
    )
    result = run.run("places", "Comparing places", places.compare_places, [unit])[0]
    return LocalCovariance(**result) if result else None


def _poses(
    table: PairTable, settings: Settings, reference: int, other_hand: np.ndarray | None
) -> list[Pose] | list[None]:
    if not settings.align:
        return [None] * len(table.correlation)
    solved = frames.synchronize(
        table.rotation,
        table.shift_angstrom,
        table.mirrored,
        pair_weights(table.correlation, table.confidence),
        reference=reference,
        other_hand=other_hand,
    )
    return [frames.frame_pose(solved, index) for index in range(len(table.correlation))]


def region_radius(
    statistics: tuple[noise.MapStatistics, ...], poses: list[Pose] | list[None], voxel: float, box: int
) -> float:
    """Voxels from the centre within which every map has both signal and noise: its own mask moves with it."""
    radius = 0.5 * box - 1
    for entry, pose in zip(statistics, poses, strict=True):
        moved = 0.0 if pose is None else float(np.linalg.norm(pose.shift_angstrom))
        if np.isfinite(entry.mask_radius_angstrom):
            inner = max(entry.mask_radius_angstrom - moved, 0.8 * entry.particle_radius_angstrom)
            radius = min(radius, inner / voxel - EDGE_VOXELS)
    return max(radius, LEAST_SPACING_VOXELS)


def window_spacing(statistics: tuple[noise.MapStatistics, ...], voxel: float) -> float:
    """Voxels between windows: a part of the radius of the particle, as its subunits are."""
    particle = float(np.median([entry.particle_radius_angstrom for entry in statistics])) / voxel
    return max(SPACING_OF_RADIUS * particle, LEAST_SPACING_VOXELS)
