"""Compare all pairs of the maps that take part: reduce, mask, prepare, tiles, and what they say together."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats.class_store import class_dataset
from regroup_dask.formats.pairs_store import pairs_dataset
from regroup_dask.formats.volumes import VolumeReference, read_map
from regroup_dask.grouping import RELIABILITY_FIELDS
from regroup_dask.science import align, fourier, invariants, masks, noise, similarity
from regroup_dask.science.rotations import Pose
from regroup_dask.settings import Settings
from regroup_dask.steps.consistency import agree_on_poses, trust_in_hands
from regroup_dask.steps.pair_table import PairTable, collect_pairs
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.tasks import map_store, pairs, prepare

# The shells of all pairs of more maps than this are not worth their space in pairs.zarr.
MOST_MAPS_WITH_FSC = 300


class Comparison(NamedTuple):
    """What comparing the kept maps gave.

    Attributes
    ----------
    pairs
        Dataset on (class_i, class_j), as pairs.zarr holds it.
    classes
        The working maps of the kept classes and their statistics, as classes.zarr holds them.
    """

    pairs: xr.Dataset
    classes: xr.Dataset


class PreparedMaps(NamedTuple):
    """What preparing said of N masked maps.

    Attributes
    ----------
    power
        Noise, (N, shells).
    solvent_fraction, mask_volume_fraction
        Where it was measured and under how much mask, (N,).
    invariants, reliability
        (N, degrees, shells) and (N, shells), for choosing pairs.
    """

    power: np.ndarray
    solvent_fraction: np.ndarray
    mask_volume_fraction: np.ndarray
    invariants: np.ndarray
    reliability: np.ndarray


def compare_maps(
    references: tuple[VolumeReference, ...],
    selection: Selection,
    settings: Settings,
    run: RunContext,
    *,
    mask: VolumeReference | None = None,
    ssnr: np.ndarray | None = None,
) -> Comparison:
    """Compare every pair of the kept maps.

    Parameters
    ----------
    references
        The maps that take part, in the order of ``selection.kept``.
    selection
        Their ids and sizes.
    settings
        Parameters of the run.
    run
        The run.
    mask
        A mask map of the same box.
    ssnr
        Spectral signal-to-noise ratio per map and shell of the full box, ``(N, shells)``, where a model file
        gives it.
    """
    store = run.work / "maps.zarr"
    box = prepare.working_box(references[0].box)
    statistics, extents = _reduce(references, box, store, run)
    plan = plan_for_maps(
        box=box,
        voxel_size_angstrom=prepare.working_voxel_size(references[0].box, references[0].voxel_size_angstrom),
        extents_angstrom=extents,
        resolutions_angstrom=np.array([entry.resolution_angstrom for entry in statistics]),
        settings=settings,
    )
    try:
        table, prepared_maps, hand_trust = _compare_reduced(
            references, selection, plan, statistics, settings, run, store, mask
        )
    except DamagedStoreError as error:
        for stage in ("prepare", "prepare_unmasked"):
            run.forget(stage, [f"map_{error.position:05d}"])
        run.forget("reduce", [f"class_{references[error.position].class_id:05d}"])
        raise
    found = similarity.estimate_similarity(
        table.cross_power,
        table.power_fixed,
        table.power_moving,
        solvent_power=prepared_maps.power,
        solvent_fraction=prepared_maps.solvent_fraction,
        mask_volume_fraction=prepared_maps.mask_volume_fraction,
        half_map_fsc=_half_map_fsc(statistics),
        ssnr=None if ssnr is None else ssnr[:, : table.cross_power.shape[-1]],
        coefficients=noise.shell_coefficients(box),
    )
    dataset = _label(references, selection, settings, plan, table, found, hand_trust)
    return Comparison(dataset, _label_classes(selection, plan, statistics, extents, found, store))


def _compare_reduced(
    references: tuple[VolumeReference, ...],
    selection: Selection,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    settings: Settings,
    run: RunContext,
    store: Path,
    mask: VolumeReference | None,
) -> tuple[PairTable, PreparedMaps, np.ndarray | None]:
    """Mask, prepare and compare the working maps: all pairs, what preparing said, and the trust in their hands."""
    names = [reference.name for reference in references]
    map_store.create_arrays(store, len(references), align.prepared_shapes(plan))
    has_mask = mask is not None
    if mask is not None:
        _store_mask(mask, plan.box, store, turned=settings.align)
    poses: list[Pose] | None = None
    if has_mask and settings.align:
        poses = _poses_to_mask(selection, plan, statistics, settings, store, run, names)
    prepared_maps = _prepare(
        statistics, plan, settings, store, run, names, stage="prepare", has_mask=has_mask, poses=poses
    )
    token = f"{'masked' if has_mask else 'plain'}-{uuid.uuid4().hex}"
    table = _tiles(prepared_maps, names, plan, settings, store, run, token=token)
    hand_trust = None
    if settings.align:
        hand_trust = trust_in_hands(table, plan.box, prepared_maps.mask_volume_fraction)
        table = agree_on_poses(table, selection, plan, store, run, token=token, names=names, hand_trust=hand_trust)
    else:
        table = table._replace(correlation=_full_box_correlation(references, settings, mask, run))
    return table, prepared_maps, hand_trust


def _reduce(
    references: tuple[VolumeReference, ...], box: int, store: Path, run: RunContext
) -> tuple[tuple[noise.MapStatistics, ...], np.ndarray]:
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


def _store_mask(mask: VolumeReference, box: int, store: Path, *, turned: bool) -> None:
    map_store.create_arrays(store, 1, {prepare.MASK: ((box,) * 3, np.dtype(np.float32))})
    reduced = np.clip(fourier.fourier_crop(read_map(mask), box), 0, 1).astype(np.float32)
    map_store.write_map(store, 0, {prepare.MASK: masks.turnable_mask(reduced) if turned else reduced})


def _prepare(
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


def _poses_to_mask(
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
    _prepare(statistics, plan, settings, store, run, names, stage="prepare_unmasked", has_mask=False, poses=None)
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


def _tiles(
    maps: PreparedMaps,
    names: list[str],
    plan: align.AlignmentPlan,
    settings: Settings,
    store: Path,
    run: RunContext,
    *,
    token: str,
) -> PairTable:
    n_maps = len(maps.power)
    n_nearest = settings.n_nearest
    if n_nearest is None or n_nearest >= n_maps - 1:
        tiles = pairs.tile_pairs(n_maps)
    else:
        tiles = pairs.pair_runs(invariants.nearest_pairs(maps.invariants, maps.reliability, n_nearest))
    units = [
        pairs.TileUnit(
            f"tile_{number:06d}",
            tile,
            store,
            token,
            plan,
            settings.align,
            map_names=pairs.name_maps(tile, names),
        )
        for number, tile in enumerate(tiles)
    ]
    label = "Aligning pairs" if settings.align else "Comparing pairs"
    return collect_pairs(n_maps, run.run("pairs", label, pairs.compare_tile, units))


def _full_box_correlation(
    references: tuple[VolumeReference, ...], settings: Settings, mask: VolumeReference | None, run: RunContext
) -> np.ndarray:
    n_maps = len(references)
    compressed = any(reference.path.endswith((".gz", ".bz2", ".zst")) for reference in references)
    side = pairs.correlation_side(n_maps, references[0].box, compressed=compressed)
    runs = [range(start, min(start + side, n_maps)) for start in range(0, n_maps, side)]
    blocks = [(rows, columns) for rows in runs for columns in runs if rows.start <= columns.start]
    units = [
        pairs.CorrelationUnit(
            f"block_{rows.start:05d}_{columns.start:05d}",
            tuple(references[index] for index in rows),
            tuple(references[index] for index in columns),
            settings.mask_inner_radius,
            mask,
        )
        for rows, columns in blocks
    ]
    correlation = np.eye(n_maps)
    results = run.run("correlation", "Correlating maps", pairs.correlate_tile, units)
    for (rows, columns), result in zip(blocks, results, strict=True):
        correlation[rows.start : rows.stop, columns.start : columns.stop] = result["correlation"]
        correlation[columns.start : columns.stop, rows.start : rows.stop] = result["correlation"].T
    np.fill_diagonal(correlation, 1.0)
    return (correlation + correlation.T) / 2


def _half_map_fsc(statistics: tuple[noise.MapStatistics, ...]) -> np.ndarray | None:
    table = np.array([entry.half_map_fsc for entry in statistics])
    return table if np.isfinite(table).any() else None


def _label(
    references: tuple[VolumeReference, ...],
    selection: Selection,
    settings: Settings,
    plan: align.AlignmentPlan,
    table: PairTable,
    found: similarity.Similarity,
    hand_trust: np.ndarray | None,
) -> xr.Dataset:
    variables = {
        "correlation": table.correlation,
        "similarity": found.similarity,
        "distance": found.distance,
        "distance_sigma": found.distance_sigma,
        "rotation_quaternion": _quaternions(table.rotation),
        "shift_angstrom": table.shift_angstrom,
        "mirrored": table.mirrored,
        "confidence": table.confidence,
    }
    if settings.align:
        variables["corrected"] = table.corrected
    if hand_trust is not None:
        variables["hand_trust"] = hand_trust
        variables["correlation_other_hand"] = table.correlation_other_hand
    if len(references) <= MOST_MAPS_WITH_FSC:
        variables["fsc"] = found.shells.fsc.astype(np.float32)
    return pairs_dataset(
        selection.class_ids[selection.kept],
        names=[reference.name for reference in references],
        n_particles=None if selection.n_particles is None else selection.kept_sizes,
        variables=variables,
        per_class={
            "information": found.information,
            "shared_sigma": found.shared_sigma,
            **{name: getattr(found.shells.reliability, name) for name in RELIABILITY_FIELDS},
        },
        shell_coefficients=found.shells.coefficients,
        attributes={
            "align": int(settings.align),
            "maximum_shift_angstrom": float(settings.maximum_shift_angstrom),
            "box": int(references[0].box),
            "voxel_size_angstrom": float(references[0].voxel_size_angstrom),
            "working_box": int(plan.box),
            "working_voxel_size_angstrom": float(plan.voxel_size_angstrom),
        },
    )


def _label_classes(
    selection: Selection,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    extents_angstrom: np.ndarray,
    found: similarity.Similarity,
    store: Path,
) -> xr.Dataset:
    per_class = ("resolution_angstrom", "particle_radius_angstrom", "mask_radius_angstrom", "solvent_fraction")
    return class_dataset(
        selection.class_ids[selection.kept],
        map_store.lazy_field(store, prepare.WORKING),
        voxel_size_angstrom=plan.voxel_size_angstrom,
        per_shell={
            "solvent_power": np.array([entry.solvent_power for entry in statistics]),
            "map_power": np.array([entry.map_power for entry in statistics]),
            "half_map_fsc": np.array([entry.half_map_fsc for entry in statistics]),
            "signal_fraction": found.signal_fraction,
        },
        per_class={name: np.array([getattr(entry, name) for entry in statistics]) for name in per_class}
        | {"information": found.information, "extent_angstrom": extents_angstrom},
    )


def _quaternions(rotation: np.ndarray) -> np.ndarray:
    n_maps = rotation.shape[0]
    return Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat(canonical=True).reshape(n_maps, n_maps, 4)


def ssnr_table(ssnr: dict[int, np.ndarray], references: tuple[VolumeReference, ...]) -> np.ndarray | None:
    """Signal-to-noise ratio per map and shell; NaN where the model has none; None when it has none at all."""
    if not any(reference.class_id in ssnr for reference in references):
        return None
    shells = max(len(values) for values in ssnr.values())
    table = np.full((len(references), shells), np.nan)
    for row, reference in enumerate(references):
        values = ssnr.get(reference.class_id)
        if values is not None:
            table[row, : len(values)] = values
    return table
