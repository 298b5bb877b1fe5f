"""Compare all pairs of the maps that take part: reduce, mask, prepare, tiles, and what they say together."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats.volumes import VolumeReference
from regroup_dask.science import align, hands, noise, similarity, sparse_similarity
from regroup_dask.science.rotations import Pose
from regroup_dask.science.shell_contrast import shell_contrast
from regroup_dask.settings import Settings
from regroup_dask.steps.consistency import agree_on_poses, trust_in_hands
from regroup_dask.steps.labelling import label_classes, label_pairs, listed_variables, table_variables
from regroup_dask.steps.listed import agree_on_listed_poses, are_listed, trust_in_listed_hands
from regroup_dask.steps.pair_list import PairList, list_pairs
from regroup_dask.steps.pair_table import PairTable, collect_pairs
from regroup_dask.steps.places import compare_places
from regroup_dask.steps.preparing import PreparedMaps, plan_for_maps, poses_to_mask, prepare_maps, reduce_maps, store_mask
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.steps.tiling import compare_pairs, full_box_correlation
from regroup_dask.tasks import prepare, prepared_store


class Comparison(NamedTuple):
    """What comparing the kept maps gave.

    Attributes
    ----------
    pairs
        Dataset on (class_i, class_j), as pairs.zarr holds it.
    classes
        The working maps of the kept classes and their statistics, as classes.zarr holds them.
    working_maps
        The run's own store of these maps.
    """

    pairs: xr.Dataset
    classes: xr.Dataset
    working_maps: Path


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
    statistics, extents = reduce_maps(references, box, store, run)
    plan = plan_for_maps(
        box=box,
        voxel_size_angstrom=prepare.working_voxel_size(references[0].box, references[0].voxel_size_angstrom),
        extents_angstrom=extents,
        resolutions_angstrom=np.array([entry.resolution_angstrom for entry in statistics]),
        settings=settings,
    )
    try:
        table, prepared_maps, hand_trust = _compare_reduced(
            references, selection, plan, statistics, settings, run, store, mask, ssnr
        )
    except DamagedStoreError as error:
        for stage in ("prepare", "prepare_unmasked"):
            run.forget(stage, [f"map_{error.position:05d}"])
        run.forget("reduce", [f"class_{references[error.position].class_id:05d}"])
        raise
    plain = None if settings.align else full_box_correlation(references, settings, mask, run)
    if isinstance(table, PairList):
        listed = _estimate_listed(table, prepared_maps, statistics, box, ssnr)
        contrast = shell_contrast(table.pairs, listed)
        variables = listed_variables(table, listed, contrast, settings, hand_trust, plain, n_maps=len(references))
        dataset = label_pairs(references, selection, settings, plan, variables, listed, None, contrast)
        return Comparison(dataset, label_classes(selection, plan, statistics, extents, listed, store), store)
    if plain is not None:
        table = table._replace(correlation=plain)
    found = _estimate_similarity(table, prepared_maps, statistics, box, ssnr)
    try:
        local = compare_places(
            table,
            found,
            plan,
            statistics,
            prepared_maps.mask_volume_fraction,
            settings,
            store,
            run,
            reference=selection.reference,
            other_hand=_other_hand(table, hand_trust, selection),
            has_mask=mask is not None,
        )
    except DamagedStoreError as error:
        run.forget("place", [f"map_{error.position:05d}"])
        run.forget("reduce", [f"class_{references[error.position].class_id:05d}"])
        raise
    variables = table_variables(table, found, settings, hand_trust)
    dataset = label_pairs(references, selection, settings, plan, variables, found, local)
    return Comparison(dataset, label_classes(selection, plan, statistics, extents, found, store), store)


def _compare_reduced(
    references: tuple[VolumeReference, ...],
    selection: Selection,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    settings: Settings,
    run: RunContext,
    store: Path,
    mask: VolumeReference | None,
    ssnr: np.ndarray | None,
) -> tuple[PairTable | PairList, PreparedMaps, np.ndarray | None]:
    """Mask, prepare and compare the working maps: the pairs, what preparing said, and the trust in their hands."""
    names = [reference.name for reference in references]
    prepared_store.create_folder(store)
    has_mask = mask is not None
    if mask is not None:
        store_mask(mask, plan.box, store, turned=settings.align)
    poses: list[Pose] | None = None
    if has_mask and settings.align:
        poses = poses_to_mask(selection, plan, statistics, settings, store, run, names)
    prepared_maps = prepare_maps(
        statistics, plan, settings, store, run, names, stage="prepare", has_mask=has_mask, poses=poses
    )
    token = f"{'masked' if has_mask else 'plain'}-{uuid.uuid4().hex}"
    results = compare_pairs(prepared_maps, names, plan, settings, store, run, token=token)
    hand_trust = None
    if are_listed(len(references), settings):
        pairs = list_pairs(results)
        if settings.align:
            alike = None
            if pairs.mirrored.any():
                alike = _estimate_listed(pairs, prepared_maps, statistics, plan.box, ssnr).similarity
            hand_trust = trust_in_listed_hands(pairs, plan.box, prepared_maps.mask_volume_fraction, alike)
            agree_on_listed_poses(pairs, selection, plan, store, run, token=token, names=names, hand_trust=hand_trust)
        return pairs, prepared_maps, hand_trust
    table = collect_pairs(len(references), results)
    if settings.align:
        alike = None
        if table.mirrored.any():
            alike = _estimate_similarity(table, prepared_maps, statistics, plan.box, ssnr).similarity
        hand_trust = trust_in_hands(table, plan.box, prepared_maps.mask_volume_fraction, alike)
        table = agree_on_poses(table, selection, plan, store, run, token=token, names=names, hand_trust=hand_trust)
    return table, prepared_maps, hand_trust


def _estimate_similarity(
    table: PairTable,
    prepared_maps: PreparedMaps,
    statistics: tuple[noise.MapStatistics, ...],
    box: int,
    ssnr: np.ndarray | None,
) -> similarity.Similarity:
    """How alike the structures of all pairs are, from everything that is known of the noise."""
    known = _known_of_noise(prepared_maps, statistics, box, ssnr)
    return similarity.estimate_similarity(table.cross_power, table.power_fixed, table.power_moving, **known)


def _estimate_listed(
    table: PairList,
    prepared_maps: PreparedMaps,
    statistics: tuple[noise.MapStatistics, ...],
    box: int,
    ssnr: np.ndarray | None,
) -> sparse_similarity.SparseSimilarity:
    """The same for a list of pairs."""
    known = _known_of_noise(prepared_maps, statistics, box, ssnr)
    powers = table.cross_power, table.power_fixed, table.power_moving
    return sparse_similarity.estimate_sparse_similarity(table.pairs, *powers, n_maps=len(statistics), **known)


def _known_of_noise(
    prepared_maps: PreparedMaps, statistics: tuple[noise.MapStatistics, ...], box: int, ssnr: np.ndarray | None
) -> dict[str, Any]:
    return {
        "solvent_power": prepared_maps.power,
        "solvent_fraction": prepared_maps.solvent_fraction,
        "mask_volume_fraction": prepared_maps.mask_volume_fraction,
        "mask_spectrum": prepared_maps.mask_spectrum,
        "half_map_fsc": _half_map_fsc(statistics),
        "ssnr": None if ssnr is None else ssnr[:, : box // 2 + 1],
        "coefficients": noise.shell_coefficients(box),
    }


def _other_hand(table: PairTable, hand_trust: np.ndarray | None, selection: Selection) -> np.ndarray | None:
    """Which maps are to be inverted into the frame of the largest class, where a mask lies; it is not inverted itself."""
    if hand_trust is None:
        return None
    agreed = hands.agree_on_hands(table.mirrored, hand_trust, selection.kept_sizes)
    return agreed.other_hand ^ agreed.other_hand[selection.reference]


def _half_map_fsc(statistics: tuple[noise.MapStatistics, ...]) -> np.ndarray | None:
    table = np.array([entry.half_map_fsc for entry in statistics])
    return table if np.isfinite(table).any() else None


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
