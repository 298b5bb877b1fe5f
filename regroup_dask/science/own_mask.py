"""The mask that a map came with: its radius and its soft edge, or its shape, read from the map."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EMPTY = 2e-3
_SILENT = 2e-4
_SUPPORT = 3e-3
_EDGE_VOXELS = 4.0
_BLANK = 0.07


def radii(box: int) -> NDArray[np.float32]:
    """Distance of every voxel from the origin voxel, in voxels."""
    axis = np.arange(box, dtype=np.float32) - box // 2
    return np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)


def _radial_rms(volume: NDArray[np.float32], radius: NDArray[np.float32]) -> NDArray[np.float64]:
    bins = np.rint(radius).astype(np.int64).ravel()
    counts = np.bincount(bins)
    return np.sqrt(np.bincount(bins, volume.astype(np.float64).ravel() ** 2) / np.maximum(counts, 1))


def find_mask_radius(volume: NDArray[np.float32], radius: NDArray[np.float32]) -> float:
    """Radius (voxels) of the program's own spherical mask; infinite without one.

    A mask is told from a quiet solvent by the step in the radial profile: beyond it there is next to nothing
    (Fourier cropping leaves some ringing), and the annulus just inside stands well above that.
    """
    rms = _radial_rms(volume, radius)
    if rms.max() <= 0:
        return float("inf")
    rms = rms / rms.max()
    outside = float(np.median(rms[int(0.85 * len(rms)) :]))
    if outside > _EMPTY:
        return float("inf")
    rms = np.maximum(rms, max(_SILENT, 3 * outside))
    drop = rms[:-3] / rms[3:]
    # In the corners of the box, where no mask ends, the ringing falls off too.
    steep = np.flatnonzero(drop[: volume.shape[0] // 2 + 1] > 3)
    # A particle may fall off right up to its mask: the mask is the outermost of the steepest places. What falls off ever
    # more steeply as far as the corners, a blurred particle or its ringing, ends at no mask.
    around = np.pad(drop, 1)
    steepest = steep[(drop[steep] > around[steep]) & (drop[steep] >= around[steep + 2])]
    return float(steepest[-1]) if len(steepest) else float("inf")


def find_own_mask(
    volume: NDArray[np.float32], radius: NDArray[np.float32], mask_radius: float
) -> NDArray[np.float32]:
    """The program's own mask with its soft edge: how the radial profile falls beyond the mask's radius.

    What lies there is solvent, whose noise has one level but for the mask. A sphere with a hard edge where the fall
    begins would miss a third of the noise that a mask with an edge of two voxels leaves in a box of 32.
    """
    if not np.isfinite(mask_radius):
        return np.ones_like(radius)
    rms = _radial_rms(volume, radius)
    start = int(mask_radius)
    # The particle may reach there: the quieter of two shells is nearer to the noise alone.
    inside = float(rms[max(start - 1, 0) : start + 1].min())
    profile = np.clip(rms / max(inside, 1e-30), 0, 1)
    profile[: start + 1] = 1.0
    profile[start:] = np.minimum.accumulate(profile[start:])
    return np.interp(radius, np.arange(len(profile)), profile).astype(np.float32)


def is_blank_inside(volume: NDArray[np.float32], radius: NDArray[np.float32], mask_radius: float) -> bool:
    """Whether a map is blank in many directions within the radius of its mask: then the mask is no sphere."""
    ring = (radius < mask_radius - 0.5) & (radius >= mask_radius - 2.5)
    if not ring.any():
        return False
    level = np.sqrt(ndimage.gaussian_filter(np.square(volume, dtype=np.float64), 1.0, mode="wrap")[ring])
    quiet, loud = np.quantile(level, [0.2, 0.9])
    return bool(quiet < _BLANK * loud)


def find_support(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where a map is not blank, with a soft edge within: a mask that follows the particle, as far as a map tells.

    How wide the edge of such a mask is cannot be told from density that falls off there; four voxels are usual.
    """
    level = np.sqrt(ndimage.gaussian_filter(np.square(volume, dtype=np.float64), 1.0, mode="wrap"))
    depth = ndimage.distance_transform_edt(level > _SUPPORT * level.max())
    fraction = np.clip((depth - 0.5) / _EDGE_VOXELS, 0.0, 1.0)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * fraction), np.float32)
