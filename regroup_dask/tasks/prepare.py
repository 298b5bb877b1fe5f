"""Per map, once: read it, look at it, bring it to the working box, mask it, and prepare it for comparing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.formats.volumes import VolumeReference, checked_map_slabs, read_map
from regroup_dask.science import align, average, fourier, invariants, masks, noise, rotations
from regroup_dask.tasks import map_store, prepared_store
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory

LARGEST_WORKING_BOX = 64
WORKING = "working"
MASK = "mask"
EXTENT = "extent_angstrom"


class ReduceUnit(NamedTuple):
    """Bring one class map to the working box."""

    name: str
    position: int
    reference: VolumeReference
    working_box: int
    store: Path

    @property
    def about(self) -> str:
        """The map's file."""
        return self.reference.path


class PrepareUnit(NamedTuple):
    """Mask one working map and prepare it for comparing."""

    name: str
    position: int
    store: Path
    plan: align.AlignmentPlan
    mask_inner_radius: float | None
    has_mask: bool
    pose_to_mask: rotations.Pose | None
    statistics: noise.MapStatistics
    map_name: str = ""

    @property
    def about(self) -> str:
        """The map."""
        return self.map_name or self.name


def working_box(box: int) -> int:
    """Box in which maps are compared: their own up to 64, else 64."""
    return min(box, LARGEST_WORKING_BOX)


def working_voxel_size(box: int, voxel_size_angstrom: float) -> float:
    """Voxel size of the working box; both cover the same extent."""
    return voxel_size_angstrom * box / working_box(box)


@kept_memory(MAP_BYTES)
def reduce_map(unit: ReduceUnit) -> Result:
    """Read one map, keep it in the working box, and return its statistics."""
    reference = unit.reference
    working = _reduced(reference, unit.working_box)
    voxel_size = reference.voxel_size_angstrom * reference.box / unit.working_box
    halves = None
    if reference.half_map_paths is not None:
        first, second = (
            _reduced(dataclasses.replace(reference, path=path, kind="mrc", index=0), unit.working_box)
            for path in reference.half_map_paths
        )
        halves = (first, second)
    statistics = noise.map_statistics(working, voxel_size_angstrom=voxel_size, half_maps=halves)
    map_store.write_map(unit.store, unit.position, {WORKING: working})
    extent = masks.estimate_extent(working).radius_voxels * voxel_size
    return {EXTENT: np.asarray(extent)} | {name: np.asarray(value) for name, value in statistics._asdict().items()}


def _reduced(reference: VolumeReference, box: int) -> np.ndarray:
    """A map in the working box, its solvent at zero: where it is turned nothing else comes in from outside the box."""
    if reference.box == box:
        volume = read_map(reference)
    else:
        volume = fourier.fourier_crop_slabs(checked_map_slabs(reference), reference.box, box)
    return volume - masks.solvent_level(volume)


def statistics_of(result: Result) -> noise.MapStatistics:
    """Rebuild the statistics that `reduce_map` returned."""
    return noise.MapStatistics(
        **{  # type: ignore[arg-type]
            name: value.item() if value.ndim == 0 else value for name, value in result.items() if name != EXTENT
        }
    )


def working_mask(unit: PrepareUnit, box: int) -> np.ndarray | None:
    """Mask of one map in its own frame, float32 ``[z, y, x]`` in 0..1, or None when nothing is masked."""
    mask = None
    if unit.mask_inner_radius is not None:
        mask = masks.soft_sphere(box, inner_radius_fraction=unit.mask_inner_radius)
    if unit.has_mask:
        given = map_store.read_field(unit.store, 0, MASK)
        if unit.pose_to_mask is not None:
            inverse = rotations.invert_pose(unit.pose_to_mask)
            given = average.move_map(
                given,
                rotation=inverse.rotation,
                shift_voxel=inverse.shift_angstrom / unit.plan.voxel_size_angstrom,
                mirrored=inverse.mirrored,
            )
        given = np.clip(given, 0, 1)
        mask = given if mask is None else mask * given
    return mask


def apply_mask(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Multiply by a mask after taking away the level of the solvent, so that the mask leaves no step in it."""
    return ((volume - masks.solvent_level(volume)) * mask).astype(np.float32)


@kept_memory(MAP_BYTES)
def prepare_map(unit: PrepareUnit) -> Result:
    """Mask and prepare one map; the prepared arrays go to the store.

    Returns
    -------
    dict
        The noise of the map under its mask: ``power`` and ``mask_spectrum``, float64 (shells,), and the scalars
        ``solvent_fraction`` and ``mask_volume_fraction``; and its ``invariants`` (degrees, shells) with their
        ``reliability`` (shells,).
    """
    working = map_store.read_field(unit.store, unit.position, WORKING)
    mask = working_mask(unit, working.shape[0])
    statistics = unit.statistics
    if mask is not None:
        statistics = noise.map_statistics(
            working, voxel_size_angstrom=unit.plan.voxel_size_angstrom, mask=mask
        )
        working = apply_mask(working, mask)
    prepared = align.prepare_map(working, unit.plan, noise_power=statistics.solvent_power)
    prepared_store.write_prepared(unit.store, unit.position, prepared)
    return {
        "power": np.asarray(statistics.solvent_power, np.float64),
        "solvent_fraction": np.asarray(statistics.solvent_fraction, np.float64),
        "mask_volume_fraction": np.asarray(statistics.mask_volume_fraction, np.float64),
        "mask_spectrum": np.asarray(statistics.mask_spectrum, np.float64),
        "invariants": invariants.rotation_invariants(prepared.amplitudes),
        "reliability": np.interp(
            invariants.invariant_shells(len(prepared.amplitudes[0])), np.arange(len(prepared.reliability)), prepared.reliability
        ),
    }
