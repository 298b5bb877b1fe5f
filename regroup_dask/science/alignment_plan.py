"""What an alignment will do, chosen once for a set of maps from their box, size and resolution.

The particle, not the box, sets the scale: maps are cut to a *particle box* of m voxels (the diameter of the
particle and a margin) about their centre of mass, and frequencies are counted in cycles per particle box. In
these units a map of the particle needs degree about pi k at shell k, whatever its size in voxels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from regroup_dask.errors import InputError

Hand = Literal["off", "detect"]

OVERSAMPLING = 2
"""Nodes of the stored spectrum per cycle per particle box."""


class AlignmentPlan(NamedTuple):
    """Sizes and numbers that all maps and pairs of one comparison share.

    Attributes
    ----------
    box : int
        working box in voxels.
    voxel_size_angstrom : float
    maximum_shift_voxels : float
        longest shift t between two maps.
    hand : "off" or "detect"
    particle_radius_voxels : float
        radius about the centre of mass within which maps are compared during the search.
    particle_box : int
        m, edge of the particle box in voxels.
    finest_shell : int
        finest shell of the refinement, cycles per particle box.
    coarse_degree, coarse_shells
        band limit and number of shells of the search with complex coefficients.
    amplitude_degree, amplitude_shells
        band limit and number of (half) shells of the search with amplitudes, which starts at 1.5 cycles.
    bank_spacing : float
        distance of the tried shifts in voxels.
    bank_radius : float
        how far from the centres of mass shifts are tried in the first search, in voxels.
    coarse_candidates, amplitude_candidates : int
        how many rotations of each search are looked at more closely.
    """

    box: int
    voxel_size_angstrom: float
    maximum_shift_voxels: float
    hand: Hand
    particle_radius_voxels: float
    particle_box: int
    finest_shell: int
    coarse_degree: int
    coarse_shells: int
    amplitude_degree: int
    amplitude_shells: int
    bank_spacing: float
    bank_radius: float
    coarse_candidates: int
    amplitude_candidates: int

    @property
    def n_shells(self) -> int:
        """Shells 0 .. box // 2 of the working box, as reported per pair."""
        return self.box // 2 + 1


def plan_alignment(
    *,
    box: int,
    voxel_size_angstrom: float,
    particle_radius_angstrom: float | None = None,
    resolution_angstrom: float | None = None,
    maximum_shift_angstrom: float,
    hand: Hand,
) -> AlignmentPlan:
    """Choose bands, grids and numbers of candidates for maps of one box.

    Parameters
    ----------
    box : int
        working box in voxels, at least 16.
    voxel_size_angstrom : float
        voxel size of the working box.
    particle_radius_angstrom : float, optional
        radius of the largest particle about its centre; without it 0.42 of the box.
    resolution_angstrom : float, optional
        finest resolution that any of the maps has; without it two thirds of Nyquist's frequency.
    maximum_shift_angstrom : float
        longest shift between two maps that is looked for.
    hand : "off" or "detect"

    Returns
    -------
    AlignmentPlan

    Raises
    ------
    InputError
        for a box, voxel size or shift that cannot be used.
    """
    if box < 16:
        raise InputError(
            f"maps of {box} voxels a side are too small to align; the working box must be at least 16"
        )
    if not np.isfinite(voxel_size_angstrom) or voxel_size_angstrom <= 0:
        raise InputError(
            f"a voxel size of {voxel_size_angstrom} A cannot be used; give a positive number of angstrom"
        )
    if not np.isfinite(maximum_shift_angstrom) or maximum_shift_angstrom < 0:
        raise InputError(f"a maximum shift of {maximum_shift_angstrom} A cannot be used; give 0 or more")
    if hand not in ("off", "detect"):
        raise InputError(f"hand must be off or detect, not {hand}")
    radius = (
        0.42 * box if particle_radius_angstrom is None else particle_radius_angstrom / voxel_size_angstrom
    )
    radius = float(np.clip(1.05 * radius + 2.0, 5.0, 0.47 * box))
    particle_box = int(np.clip(2 * np.ceil(1.06 * radius + 0.5), 12, 2 * (box // 2)))
    nyquist = 0.5 * particle_box
    finest = 0.62 * nyquist
    if resolution_angstrom is not None and np.isfinite(resolution_angstrom) and resolution_angstrom > 0:
        # beyond the stated resolution there is still some signal in clean maps; weights take care of noise
        finest = min(0.8 * nyquist, 1.15 * particle_box * voxel_size_angstrom / resolution_angstrom)
    finest_shell = int(np.clip(round(finest), 4, 15))
    coarse_shells = min(4, finest_shell)
    amplitude_last = min(7.0, finest_shell)
    return AlignmentPlan(
        box=int(box),
        voxel_size_angstrom=float(voxel_size_angstrom),
        maximum_shift_voxels=float(maximum_shift_angstrom / voxel_size_angstrom),
        hand=hand,
        particle_radius_voxels=radius,
        particle_box=particle_box,
        finest_shell=finest_shell,
        coarse_degree=9,
        coarse_shells=coarse_shells,
        amplitude_degree=18,
        amplitude_shells=round((amplitude_last - 1.5) / 0.5) + 1,
        bank_spacing=0.15 * particle_box,
        bank_radius=0.2 * particle_box,
        coarse_candidates=20,
        amplitude_candidates=16,
    )


@lru_cache(maxsize=16)
def particle_coefficients(finest_shell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return half of the frequencies 0 < |k| <= finest_shell + 1/2 of the particle box, sorted by shell.

    Returns
    -------
    frequency : numpy.ndarray
        float32 (3, c), rows kx, ky, kz; one of k and -k, kx >= 0.
    shell : numpy.ndarray
        int16 (c,), round(|k|).
    ends : numpy.ndarray
        int64 (finest_shell + 1,), how many coefficients have a shell up to s.
    """
    axis = np.arange(-finest_shell - 1, finest_shell + 2)
    kz, ky, kx = (a.ravel() for a in np.meshgrid(axis, axis, axis, indexing="ij"))
    squared = kx**2 + ky**2 + kz**2
    shell = np.rint(np.sqrt(squared)).astype(np.int64)
    half = (kx > 0) | ((kx == 0) & ((ky > 0) | ((ky == 0) & (kz > 0))))
    keep = np.flatnonzero(half & (shell <= finest_shell))
    keep = keep[np.argsort(shell[keep], kind="stable")]
    frequency = np.stack([kx[keep], ky[keep], kz[keep]]).astype(np.float32)
    shells = shell[keep].astype(np.int16)
    ends = np.searchsorted(shells, np.arange(finest_shell + 1), side="right").astype(np.int64)
    for array in (frequency, shells, ends):
        array.setflags(write=False)
    return frequency, shells, ends


@lru_cache(maxsize=16)
def shift_bank(spacing: float, radius: float) -> np.ndarray:
    """Return shifts float64 (s, 3) of a body-centred cubic lattice within a ball, nearest to 0 first.

    ``spacing`` is the edge of the lattice's cube. The body-centred lattice covers space with the fewest
    points.
    """
    reach = int(np.ceil(radius / spacing)) + 1
    axis = np.arange(-reach, reach + 1) * spacing
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.concatenate([cube, cube + 0.5 * spacing])
    distance = np.sqrt((points**2).sum(axis=1))
    keep = np.flatnonzero(distance <= radius + 1e-9)
    points = points[keep[np.argsort(distance[keep], kind="stable")]]
    points.setflags(write=False)
    return points
