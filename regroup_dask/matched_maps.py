"""How alike the maps of two superclasses of different runs are, once they lie in one frame."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft

from regroup_dask.science import masks
from regroup_dask.science.fourier import shell_sums
from regroup_dask.science.rotations import Pose
from regroup_dask.single_pair import Alignment, GivenMap, align_maps, move_onto, read_given

MASK_FRACTION = 0.85
AGREEMENT = 0.5


class MapAgreement(NamedTuple):
    """Two maps compared in the frame of the first.

    Attributes
    ----------
    correlation
        Pearson correlation inside a soft sphere.
    resolution_angstrom
        Where their Fourier shell correlation falls below 0.5; the finest the maps have where it does not.
    rotation_degrees
        By how much the second was turned.
    fsc
        float64 (n // 2 + 1).
    """

    correlation: float
    resolution_angstrom: float
    rotation_degrees: float
    fsc: np.ndarray


def compare_superclass_maps(first: Path, second: Path, pose: Pose | None) -> MapAgreement:
    """Compare two superclass maps.

    Parameters
    ----------
    first, second
        MRC files; boxes and voxel sizes may differ.
    pose
        From the frame of the second into that of the first, about voxel ``n // 2``; None where it is not known and has to
        be found.
    """
    reference, moving = read_given(first), read_given(second)
    if pose is None:
        found = align_maps(moving, reference, maximum_shift_angstrom=_reach(reference), hand="detect")
    else:
        found = Alignment(pose.rotation, pose.shift_angstrom, pose.mirrored, np.nan, np.nan, np.nan, np.nan)
    still = np.array_equal(found.rotation, np.eye(3)) and not np.any(found.shift_angstrom) and not found.mirrored
    same_grid = moving.volume.shape == reference.volume.shape and moving.voxel_size_angstrom == reference.voxel_size_angstrom
    moved = moving.volume if still and same_grid else move_onto(moving, reference, found)
    box = reference.volume.shape[0]
    sphere = masks.soft_sphere(box, inner_radius_fraction=MASK_FRACTION)
    spectra = [scipy.fft.rfftn(_masked(volume, sphere)) for volume in (reference.volume, moved)]
    cross = shell_sums((spectra[0] * spectra[1].conj()).real, box)
    power = [shell_sums(np.abs(spectrum) ** 2, box) for spectrum in spectra]
    fsc = cross / np.sqrt(np.maximum(power[0] * power[1], 1e-300))
    angle = np.degrees(np.arccos(np.clip((np.trace(found.rotation) - 1) / 2, -1, 1)))
    return MapAgreement(
        float(cross[1:].sum() / np.sqrt(max(power[0][1:].sum() * power[1][1:].sum(), 1e-300))),
        _resolution(fsc, box * reference.voxel_size_angstrom),
        float(angle),
        fsc,
    )


def _reach(given: GivenMap) -> float:
    return 0.25 * given.volume.shape[0] * given.voxel_size_angstrom


def _masked(volume: np.ndarray, sphere: np.ndarray) -> np.ndarray:
    level = float((volume * sphere).sum() / sphere.sum())
    return (volume - level) * sphere


def _resolution(fsc: np.ndarray, extent_angstrom: float) -> float:
    """Where the FSC first falls below 0.5, between two shells by a straight line."""
    below = np.flatnonzero(fsc[1:] < AGREEMENT) + 1
    if not len(below):
        return extent_angstrom / (len(fsc) - 1)
    shell = int(below[0])
    if shell == 1:
        return extent_angstrom
    step = (fsc[shell - 1] - AGREEMENT) / max(fsc[shell - 1] - fsc[shell], 1e-12)
    return extent_angstrom / (shell - 1 + float(step))
