"""One map superposed onto another, boxes and voxel sizes as they come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.volumes import find_volumes, read_map
from regroup_dask.science import align, average, fourier, hands, masks, noise
from regroup_dask.science.rotations import rotation_angle_degrees

WORKING_BOX = 64
LEAST_WORKING_BOX = 32

ROOM = 1.6
"""Half of the working box over the radius of what the maps show: enough solvent to measure the noise in."""

DOUBTFUL_CONFIDENCE = 3.0
"""A best pose nearer than this to the next different one may be the wrong one of the two."""

CONTRAST_GAIN = 0.2
LEAST_CORRELATION = 0.4
"""Maps are of opposite contrast when a change of sign raises their correlation by this much, to this much at least."""


class Alignment(NamedTuple):
    """The pose that superposes the moving map onto the reference: ``x_reference = R (+-x_moving) + t``.

    Attributes
    ----------
    rotation
        float64 (3, 3), acting on (x, y, z).
    shift_angstrom
        float64 (3,), (x, y, z).
    mirrored
        The moving map is inverted through its origin first.
    correlation
        Pearson correlation of the two maps at the pose, at the working resolution.
    correlation_other_hand
        The best correlation of the other hand; NaN when it was not looked at.
    confidence
        How far the best pose stands above the next one that differs by 10 degrees or more, in standard deviations of
        what unrelated maps score by chance. Below `DOUBTFUL_CONFIDENCE` the two could as well change places.
    working_voxel_size_angstrom
        Voxel size at which the maps were compared.
    hand_told
        Whether the maps tell their hand: if not, the moving map keeps it. None when it was not looked at.
    notes
        Sentences on what to know before relying on the pose.
    """

    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: bool
    correlation: float
    correlation_other_hand: float
    confidence: float
    working_voxel_size_angstrom: float
    hand_told: bool | None = None
    notes: tuple[str, ...] = ()


class GivenMap(NamedTuple):
    """A map in memory with its voxel size."""

    volume: np.ndarray
    voxel_size_angstrom: float


def read_given(
    given: str | Path | np.ndarray | xr.DataArray, *, voxel_size_angstrom: float | None = None
) -> GivenMap:
    """Read a map from a file, or take it from an array."""
    if storage.is_path(given):
        reference = find_volumes([given], voxel_size_angstrom=voxel_size_angstrom).references[0]
        return GivenMap(read_map(reference), reference.voxel_size_angstrom)
    size = voxel_size_angstrom or getattr(given, "attrs", {}).get("voxel_size_angstrom")
    volume = np.ascontiguousarray(np.squeeze(np.asarray(given)), np.float32)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"A map of shape {volume.shape} is not a cube: give an array [z, y, x] of equal sides.")
    if size is None:
        raise InputError("The voxel size of an array is not known: give voxel_size_angstrom=.")
    if not np.isfinite(volume).all() or np.ptp(volume) == 0:
        raise InputError("A map is constant or has values that are not finite: there is nothing to align.")
    return GivenMap(volume, float(size))


def align_two(
    moving: str | Path | np.ndarray | xr.DataArray,
    reference: str | Path | np.ndarray | xr.DataArray,
    *,
    maximum_shift_angstrom: float = 20.0,
    hand: str = "detect",
    voxel_size_angstrom: float | None = None,
) -> Alignment:
    """Find the pose of one map on another; see `regroup_dask.align`."""
    first = read_given(moving, voxel_size_angstrom=voxel_size_angstrom)
    second = read_given(reference, voxel_size_angstrom=voxel_size_angstrom)
    return align_maps(
        first, second, maximum_shift_angstrom=maximum_shift_angstrom, hand=hand, same_contrast=True
    )


def align_maps(
    moving: GivenMap,
    reference: GivenMap,
    *,
    maximum_shift_angstrom: float,
    hand: str,
    same_contrast: bool = False,
) -> Alignment:
    """Bring two maps to one working grid and align them there over all rotations.

    Parameters
    ----------
    moving, reference
        Boxes and voxel sizes may differ.
    maximum_shift_angstrom
        Longest shift.
    hand
        ``"detect"`` or ``"off"``.
    same_contrast
        Refuse maps of which one has the contrast of the other inverted.

    Raises
    ------
    InputError
        With `same_contrast`, one map is dark where the other is bright.
    """
    voxel_size, box = _working_grid((moving, reference))
    working = [
        fourier.fourier_resample(
            entry.volume - masks.solvent_level(entry.volume),
            voxel_size_angstrom=entry.voxel_size_angstrom,
            box=box,
            target_voxel_size_angstrom=voxel_size,
        )
        for entry in (moving, reference)
    ]
    statistics = [noise.map_statistics(volume, voxel_size_angstrom=voxel_size) for volume in working]
    radii = [entry.particle_radius_angstrom for entry in statistics if np.isfinite(entry.particle_radius_angstrom)]
    plan = align.plan_alignment(
        box=box,
        voxel_size_angstrom=voxel_size,
        particle_radius_angstrom=max(radii) if radii else None,
        resolution_angstrom=None,
        maximum_shift_angstrom=maximum_shift_angstrom,
        hand="detect" if hand == "detect" else "off",
    )
    moved, fixed = (
        align.prepare_map(volume, plan, noise_power=entry.solvent_power)
        for volume, entry in zip(working, statistics, strict=True)
    )
    found, hand_told = _of_told_hand(fixed, moved, plan)
    if same_contrast and found.correlation < 1 - CONTRAST_GAIN:
        negative = align.prepare_map(-working[0], plan, noise_power=statistics[0].solvent_power)
        _refuse_opposite_contrast(found.correlation, align.align_pair(fixed, negative, plan).correlation)
    if rotation_angle_degrees(found.rotation, np.eye(3)) < 1 and not found.mirrored:
        # Nothing is interpolated where nothing moves: maps that lie on each other score best as they are.
        still = align.measure_pair(fixed, moved, plan)
        if still.correlation >= found.correlation:
            found = still._replace(
                confidence=found.confidence, correlation_other_hand=found.correlation_other_hand
            )
    return Alignment(
        np.asarray(found.rotation),
        np.asarray(found.shift_angstrom),
        bool(found.mirrored),
        float(found.correlation),
        float(found.correlation_other_hand),
        float(found.confidence),
        float(voxel_size),
        hand_told,
        _notes(found, hand_told, plan),
    )


def _working_grid(maps: tuple[GivenMap, ...]) -> tuple[float, int]:
    """Choose the voxel size and box in which maps are compared: no finer than either, and no wider than what they show."""
    coarsest = max(entry.voxel_size_angstrom for entry in maps)
    whole = max(entry.volume.shape[0] * entry.voxel_size_angstrom for entry in maps)
    shown = max(_shown_extent(entry) for entry in maps)
    extent = min(whole, max(shown, LEAST_WORKING_BOX * coarsest))
    voxel_size = max(coarsest, extent / WORKING_BOX)
    return voxel_size, 2 * math.ceil(extent / voxel_size / 2)


def _shown_extent(given: GivenMap) -> float:
    """Edge in angstrom of the box about the origin that holds what a map shows, and some solvent about it."""
    extent = given.volume.shape[0] * given.voxel_size_angstrom
    box = min(given.volume.shape[0], 2 * WORKING_BOX)
    radius = masks.occupied_radius(fourier.fourier_crop(given.volume, box)) * extent / box
    return min(extent, 2.0 * ROOM * radius)


def _of_told_hand(
    fixed: align.PreparedMap, moving: align.PreparedMap, plan: align.AlignmentPlan
) -> tuple[align.PairAlignment, bool | None]:
    """Align a pair; where the hand cannot be told, in the hand that the moving map has."""
    found = align.align_pair(fixed, moving, plan)
    if plan.hand == "off":
        return found, None
    filled = min(1.0, 4 / 3 * math.pi * plan.particle_radius_voxels**3 / plan.box**3)
    number = hands.independent_coefficients(
        found.power_fixed, found.power_moving, fourier.shell_counts(plan.box), filled_fraction=filled
    )
    both = np.array(found.correlation), np.array(found.correlation_other_hand)
    told = bool(hands.hand_evidence(*both, number).told) or hands.lead_that_tells(found) > 0
    if found.mirrored and not told:
        kept = align.align_pair(fixed, moving, plan._replace(hand="off"))
        return kept._replace(correlation_other_hand=found.correlation), False
    return found, told


def _refuse_opposite_contrast(correlation: float, of_negative: float) -> None:
    if of_negative > max(LEAST_CORRELATION, correlation + CONTRAST_GAIN):
        raise InputError(
            f"One map is dark where the other is bright: they correlate at {correlation:.2f} as they are and at "
            f"{of_negative:.2f} with the sign of one changed. Multiply one of them by -1."
        )


def _notes(found: align.PairAlignment, hand_told: bool | None, plan: align.AlignmentPlan) -> tuple[str, ...]:
    notes = []
    if hand_told is False:
        notes.append("The hand cannot be told from these maps: the moving map keeps the hand it has.")
    if found.confidence < DOUBTFUL_CONFIDENCE:
        notes.append(
            "Another pose, at least 10 degrees away, fits about as well: the maps are symmetric, or have too little in common."
        )
    longest = plan.maximum_shift_voxels * plan.voxel_size_angstrom
    if math.hypot(*found.shift_angstrom) > longest - 0.5 * plan.voxel_size_angstrom:
        notes.append(
            f"The shift is as long as the maximum shift of {longest:g} A allows: if the particles may lie further apart in "
            "their boxes, the right pose is beyond it; allow more."
        )
    return tuple(notes)


def move_onto(moving: GivenMap, reference: GivenMap, alignment: Alignment) -> np.ndarray:
    """Return the moved map on the grid of the reference, float32 ``[z, y, x]``."""
    # What a turned box does not reach, and what lies outside it, is solvent.
    level = masks.solvent_level(moving.volume)
    on_grid = fourier.fourier_resample(
        moving.volume - level,
        voxel_size_angstrom=moving.voxel_size_angstrom,
        box=reference.volume.shape[0],
        target_voxel_size_angstrom=reference.voxel_size_angstrom,
    )
    moved = average.move_map(
        on_grid,
        rotation=alignment.rotation,
        shift_voxel=alignment.shift_angstrom / reference.voxel_size_angstrom,
        mirrored=alignment.mirrored,
    )
    return moved + level
