"""Make the maps that take part ready for comparing: reduce, choose how to align, mask, prepare."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.formats.volumes import VolumeReference, read_map
from regroup_dask.science import align, fourier, masks, noise
from regroup_dask.science.rotations import Pose
from regroup_dask.settings import Settings
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.tasks import map_store, pairs, prepare


class PreparedMaps(NamedTuple):
    """What preparing said of N masked maps.

    Attributes
    ----------
    power
        Noise, (N, shells).
    solvent_fraction, mask_volume_fraction
        Where it was measured and under how much mask, (N,).
    mask_spectrum
        Power spectrum of that mask, (N, shells).
    invariants, reliability
        (N, degrees, shells) and (N, shells), for choosing pairs.
    """

    power: np.ndarray
    solvent_fraction: np.ndarray
    mask_volume_fraction: np.ndarray
    mask_spectrum: np.ndarray
    invariants: np.ndarray
    reliability: np.ndarray


def reduce_maps(
    references: tuple[VolumeReference, ...], box: int, store: Path, run: RunContext
) -> tuple[tuple[noise.MapStatistics, ...], np.ndarray]:
    """Bring every map to the working box; returns statistics, and the radius of each particle in angstrom, (N,)."""
    map_store.create_arrays(store, len(references), {prepare.WORKING: ((box,) * 3, np.dtype(np.float32))})
    units = [
        prepare.ReduceUnit(f"class_{reference.class_id:05d}", index, reference, box, store)
        for index, reference in enumerate(references)
    ]
    results = run.run("reduce", "Reading maps", prepare.reduce_map, units)
    extents = np.array([float(result[prepare.EXTENT]) for result in results])
    return tuple(prepare.statistics_of(result) for result in results), extents


def plan_for_maps(
    *,
    box: int,
    voxel_size_angstrom: float,
    extents_angstrom: np.ndarray,
    resolutions_angstrom: np.ndarray,
    settings: Settings,
) -> align.AlignmentPlan:
    """Choose how to align from what was measured of all maps.

    The largest particle decides the box that is searched, so that none is cut, and the finest resolution the shells;
    weights per pair and shell take care of poorer maps.

    Parameters
    ----------
    box, voxel_size_angstrom
        Of the working maps.
    extents_angstrom, resolutions_angstrom
        Radius of the particle about its own centre, and resolution, of each map; NaN where not known.
    settings
        Parameters of the run.
    """
    extents = extents_angstrom[np.isfinite(extents_angstrom)]
    resolutions = resolutions_angstrom[np.isfinite(resolutions_angstrom)]
    return align.plan_alignment(
        box=box,
        voxel_size_angstrom=voxel_size_angstrom,
        particle_radius_angstrom=float(extents.max()) if len(extents) else None,
        resolution_angstrom=float(resolutions.min()) if len(resolutions) else None,
        maximum_shift_angstrom=settings.maximum_shift_angstrom,
        hand="detect" if settings.hand == "detect" and settings.align else "off",
    )


def store_mask(mask: VolumeReference, box: int, store: Path, *, turned: bool) -> None:
    """Keep the mask at the working box; ``turned`` where it will be moved with the classes."""
    map_store.create_arrays(store, 1, {prepare.MASK: ((box,) * 3, np.dtype(np.float32))})
    reduced = np.clip(fourier.fourier_crop(read_map(mask), box), 0, 1).astype(np.float32)
    map_store.write_map(store, 0, {prepare.MASK: masks.turnable_mask(reduced) if turned else reduced})


def prepare_maps(
    statistics: tuple[noise.MapStatistics, ...],
    plan: align.AlignmentPlan,
    settings: Settings,
    store: Path,
    run: RunContext,
    names: list[str],
    *,
    stage: str,
    has_mask: bool,
    poses: list[Pose] | None,
) -> PreparedMaps:
    """Mask every working map and prepare it for comparing, as one stage."""
    units = [
        prepare.PrepareUnit(
            f"map_{index:05d}",
            index,
            store,
            plan,
            settings.mask_inner_radius,
            has_mask,
            None if poses is None else poses[index],
            entry,
            names[index],
        )
        for index, entry in enumerate(statistics)
    ]
    results = run.run(stage, "Preparing maps", prepare.prepare_map, units)
    return PreparedMaps(*(np.array([result[name] for result in results]) for name in PreparedMaps._fields))


def poses_to_mask(
    selection: Selection,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    settings: Settings,
    store: Path,
    run: RunContext,
    names: list[str],
) -> list[Pose]:
    """Find the pose of every map in the frame of the largest class, where the mask lies."""
    if run.finished("prepare") and run.finished("place_mask") < len(selection.kept) - 1:
        # The store holds masked maps by now; what is to be placed anew must be without its mask.
        run.forget("prepare")
        run.forget("prepare_unmasked")
    prepare_maps(statistics, plan, settings, store, run, names, stage="prepare_unmasked", has_mask=False, poses=None)
    reference, n_maps = selection.reference, len(selection.kept)
    token = f"unmasked-{uuid.uuid4().hex}"
    others = [index for index in range(n_maps) if index != reference]
    units = [
        pairs.TileUnit(
            f"map_{index:05d}",
            ((reference, index),),
            store,
            token,
            plan,
            True,
            map_names=pairs.name_maps(((reference, index),), names),
        )
        for index in others
    ]
    results = run.run("place_mask", "Placing the mask", pairs.compare_tile, units)
    poses = [Pose(np.eye(3), np.zeros(3), False)] * n_maps
    for index, result in zip(others, results, strict=True):
        poses[index] = Pose(result["rotation"][0], result["shift_angstrom"][0], bool(result["mirrored"][0]))
    return poses
