"""Label what comparing gave: the datasets of pairs.zarr and classes.zarr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.formats.class_store import class_dataset
from regroup_dask.formats.pairs_store import pairs_dataset
from regroup_dask.formats.volumes import VolumeReference
from regroup_dask.grouping import RELIABILITY_FIELDS
from regroup_dask.science import align, noise, similarity
from regroup_dask.science.local_covariance import LocalCovariance
from regroup_dask.science.shell_contrast import ShellContrast
from regroup_dask.science.sparse_similarity import SparseSimilarity
from regroup_dask.settings import Settings
from regroup_dask.steps.pair_list import PairList, square, square_poses
from regroup_dask.steps.pair_table import PairTable
from regroup_dask.steps.selection import Selection
from regroup_dask.tasks import map_store, prepare

MOST_MAPS_WITH_FSC = 300


def table_variables(
    table: PairTable, found: similarity.Similarity, settings: Settings, hand_trust: np.ndarray | None
) -> dict[str, np.ndarray]:
    """What is known of every pair, by name, when all were compared."""
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
    if len(table.correlation) <= MOST_MAPS_WITH_FSC:
        variables["fsc"] = found.shells.fsc.astype(np.float32)
    return variables


def listed_variables(
    table: PairList,
    found: SparseSimilarity,
    contrast: ShellContrast,
    settings: Settings,
    hand_trust: np.ndarray | None,
    plain: np.ndarray | None,
    *,
    n_maps: int,
) -> dict[str, np.ndarray]:
    """What is known of every pair, by name; NaN for those not compared. `plain`: correlations of maps as they lie."""

    def filled(values: np.ndarray, diagonal: float = np.nan) -> np.ndarray:
        return square(n_maps, table.pairs, values, blank=np.nan, diagonal=diagonal)

    quaternion, shift = square_poses(n_maps, table)
    variables = {
        "correlation": filled(table.correlation, 1.0) if plain is None else plain,
        "similarity": filled(found.similarity, 1.0),
        "distance": filled(found.distance, 0.0),
        "distance_sigma": filled(found.distance_sigma, 0.0),
        "contrast": filled(contrast.contrast, 0.0),
        "contrast_sigma": filled(contrast.sigma, 0.0),
        "rotation_quaternion": quaternion,
        "shift_angstrom": shift,
        "mirrored": square(n_maps, table.pairs, table.mirrored, blank=False, diagonal=False),
        "confidence": filled(table.confidence),
    }
    if settings.align:
        variables["corrected"] = square(n_maps, table.pairs, table.corrected, blank=False, diagonal=False)
    if hand_trust is not None:
        variables["hand_trust"] = square(n_maps, table.pairs, hand_trust, blank=0.0, diagonal=0.0)
        variables["correlation_other_hand"] = filled(table.correlation_other_hand)
    return variables


def label_pairs(
    references: tuple[VolumeReference, ...],
    selection: Selection,
    settings: Settings,
    plan: align.AlignmentPlan,
    variables: dict[str, np.ndarray],
    found: similarity.Similarity | SparseSimilarity,
    local: LocalCovariance | None,
    contrast: ShellContrast | None = None,
) -> xr.Dataset:
    """Everything that is known of the pairs, as pairs.zarr holds it."""
    reliability, coefficients = found.reliability_of_shells
    return pairs_dataset(
        selection.class_ids[selection.kept],
        names=[reference.name for reference in references],
        n_particles=None if selection.n_particles is None else selection.kept_sizes,
        variables=variables,
        per_class={
            "information": found.information,
            "shared_sigma": found.shared_sigma,
            **({} if contrast is None else {"shared_contrast_sigma": contrast.shared_sigma}),
            **{name: getattr(reliability, name) for name in RELIABILITY_FIELDS},
        },
        shell_coefficients=coefficients,
        by_place={} if local is None else local._asdict(),
        attributes={
            "align": int(settings.align),
            "maximum_shift_angstrom": float(settings.maximum_shift_angstrom),
            "box": int(references[0].box),
            "voxel_size_angstrom": float(references[0].voxel_size_angstrom),
            "working_box": int(plan.box),
            "working_voxel_size_angstrom": float(plan.voxel_size_angstrom),
        },
    )


def label_classes(
    selection: Selection,
    plan: align.AlignmentPlan,
    statistics: tuple[noise.MapStatistics, ...],
    extents_angstrom: np.ndarray,
    found: similarity.Similarity | SparseSimilarity,
    store: Path,
) -> xr.Dataset:
    """The working maps and their statistics, as classes.zarr holds them."""
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
