"""Soft spherical masks, and where in its box a particle lies and how large it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage

from regroup_dask.science.average import PlanesOfMap
from regroup_dask.science.fourier import centred_spectrum, centred_volume, half_spectrum_shells


class MapExtent(NamedTuple):
    """Where the particle of a map lies.

    Attributes
    ----------
    centre_voxels : numpy.ndarray
        float64 (3,), centre of mass ``(x, y, z)`` in voxels from the origin voxel.
    radius_voxels : float
        radius around that centre that holds practically all of the particle.
    """

    centre_voxels: np.ndarray
    radius_voxels: float


def squared_radius(box: int, centre: tuple[float, float, float] | np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Return squared distances float64 (box, box, box) in voxels from ``origin + centre (x, y, z)``."""
    axis = np.arange(box) - box // 2
    x, y, z = ((axis - c) ** 2 for c in centre)
    return z[:, None, None] + y[None, :, None] + x[None, None, :]


def soft_edge(radius: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """Return 1 up to `inner`, 0 from `outer` on, and half a cosine period between; float32."""
    width = max(outer - inner, 1e-9)
    fraction = np.clip((radius - inner) / width, 0.0, 1.0)
    return (0.5 * (1.0 + np.cos(np.pi * fraction))).astype(np.float32)


def soft_sphere(
    box: int, *, inner_radius_fraction: float, edge_fraction: float = 0.1, planes: slice | None = None
) -> np.ndarray:
    """Return a spherical mask about the origin voxel with a cosine edge.

    Parameters
    ----------
    box : int
        voxels per side.
    inner_radius_fraction : float
        radius up to which the mask is 1, as a fraction of half the box.
    edge_fraction : float
        width of the edge outside it, as a fraction of half the box.
    planes : slice, optional
        only these planes z, for boxes of which a whole one is too much memory.

    Returns
    -------
    numpy.ndarray
        float32 (box, box, box) or (planes, box, box), from 0 to 1.
    """
    half = box / 2.0
    axis = (np.arange(box) - box // 2).astype(np.float64) ** 2
    chosen = axis if planes is None else axis[planes]
    radius = np.sqrt(chosen[:, None, None] + axis[None, :, None] + axis[None, None, :])
    return soft_edge(radius, inner_radius_fraction * half, (inner_radius_fraction + edge_fraction) * half)


def solvent_level(volume: PlanesOfMap) -> np.float32:
    """Return the level of the solvent of a map (n, n, n): the median near the faces of the box, beyond 0.9 of half of it.

    No mask decides what counts as solvent, and the level is the same whichever way the particle is turned. Of a large map,
    which may lie on disk, every so many voxels are enough.
    """
    box = volume.shape[0]
    step = max(1, box // 64)
    squared = (np.arange(box)[::step] - box // 2) ** 2
    outside = squared[:, None, None] + squared[None, :, None] + squared[None, None, :] > (0.45 * box) ** 2
    sample = np.stack([np.asarray(volume[plane : plane + 1])[0, ::step, ::step] for plane in range(0, box, step)])
    return np.float32(np.median(sample[outside]))


def occupied_radius(volume: np.ndarray) -> float:
    """Return the radius about the origin, in voxels, beyond which a map shows nothing but its solvent.

    Everything that stands out of the solvent counts, however weak beside the rest, by the root mean square on spheres of
    the blurred map. Half of the box where the map is too noisy to tell, or shows something as far as that.

    Parameters
    ----------
    volume : numpy.ndarray
        float (n, n, n).
    """
    box = volume.shape[0]
    half = box // 2
    blurred = low_pass(volume - solvent_level(volume), box / 6.0)
    ring = np.rint(np.sqrt(squared_radius(box))).astype(np.int64)
    count = np.bincount(ring.ravel())
    height = np.sqrt(np.bincount(ring.ravel(), weights=blurred.ravel().astype(np.float64) ** 2) / np.maximum(count, 1))[:half]
    solvent, strongest = float(np.median(height[int(0.7 * half) :])), float(height.max())
    if solvent > 0.1 * strongest:
        return box / 2.0
    return float(np.flatnonzero(height > max(1.5 * solvent, 0.01 * strongest)).max(initial=0) + 1)


def turnable_mask(mask: np.ndarray) -> np.ndarray:
    """Confine a mask to the sphere inside its box and blur it by a voxel, so that it is the same in every frame.

    A mask follows each map into its own frame. Corners of the box that a turned mask does not have, and edges that
    interpolation softens in all frames but one, would make maps of one structure differ.

    Parameters
    ----------
    mask : numpy.ndarray
        (n, n, n), from 0 to 1.

    Returns
    -------
    numpy.ndarray
        float32 (n, n, n), from 0 to 1.
    """
    blurred = scipy.ndimage.gaussian_filter(np.asarray(mask, np.float32), 1.0, mode="nearest")
    return blurred * soft_sphere(len(mask), inner_radius_fraction=0.85, edge_fraction=0.15)


def low_pass(volume: np.ndarray, shell: float) -> np.ndarray:
    """Blur a map with a Gaussian that falls to exp(-1/2) at the given Fourier shell."""
    box = volume.shape[0]
    shells, _ = half_spectrum_shells(box)
    spectrum = centred_spectrum(np.asarray(volume, dtype=np.float32))
    spectrum *= np.exp(-0.5 * (shells / shell) ** 2).astype(np.float32)
    return centred_volume(spectrum, box).astype(np.float32)


def estimate_extent(volume: np.ndarray, *, shell: float | None = None) -> MapExtent:
    """Find the particle in a map: its centre of mass and the radius that holds it.

    The map is blurred, the more so the noisier it is; what rises above a fifth of the blurred map's height
    over the solvent level is the particle, of which pieces with a tenth of the largest one's mass count.
    Works without a mask and at low signal, because the blurred map keeps the shells where signal is
    strongest.

    Parameters
    ----------
    volume : numpy.ndarray
        float (n, n, n).
    shell : float, optional
        Fourier shell at which the blur falls to exp(-1/2); box / 16 to box / 32 by default.

    Returns
    -------
    MapExtent
    """
    box = volume.shape[0]
    filled = volume != volume[0, 0, 0]  # not what a mask has blanked: it would make the noise look small
    if not filled.any():
        return MapExtent(np.zeros(3), box / 2.0)
    for tried in (box / 16.0, box / 22.0, box / 32.0) if shell is None else (shell,):
        blur = max(1.5, tried)
        blurred = low_pass(volume, blur)
        sample = blurred[filled]
        solvent = float(np.median(sample))
        spread = 1.4826 * float(np.median(np.abs(sample - solvent)))
        few = max(8, box**3 // 2000)
        height = float(np.partition(blurred.ravel(), -few)[-few]) - solvent
        if spread < 0.06 * height:  # the noise is low enough for the contour
            break
    threshold = solvent + max(0.2 * height, min(3.0 * spread, 0.5 * height))
    inside = (blurred > threshold) & filled
    labels, count = scipy.ndimage.label(inside)
    if count == 0:
        return MapExtent(np.zeros(3), box / 2.0)
    if count > 1:
        mass = np.bincount(labels.ravel(), weights=np.where(inside, blurred - solvent, 0.0).ravel())
        mass[0] = 0.0
        inside = (mass >= 0.1 * mass.max())[labels]
    index = np.argwhere(inside)
    weight = (blurred[inside] - solvent).astype(np.float64)
    position = (index - box // 2)[:, ::-1].astype(np.float64)
    centre = weight @ position / weight.sum()
    radius = float(np.quantile(np.sqrt(((position - centre) ** 2).sum(axis=1)), 0.995))
    widened = 0.6 * box / (2.0 * np.pi * blur)  # what the blur moved the contour out by
    return MapExtent(centre, max(radius - widened, 2.0))
