"""Averaging maps in real space, each moved by its pose, a slab at a time.

Moving a map uses cubic B-spline interpolation: a recursive prefilter once per map, then 4 x 4 x 4 coefficients per
voxel (Unser, Aldroubi and Eden, IEEE Trans. Signal Process. 41, 821, 1993).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d

Map = NDArray[np.float32]


class PlanesOfMap(Protocol):
    """A map that gives its planes when indexed: an array, or one that lies on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels on each axis."""

    def __getitem__(self, key: slice) -> Map:
        """Planes of the map."""


def spline_coefficients(volume: PlanesOfMap, *, out: Map | None = None, slab: int = 32) -> Map:
    """Cubic B-spline coefficients of a map, filtered axis by axis in slabs so that little memory is needed.

    Parameters
    ----------
    volume
        Map ``[z, y, x]``; may be a memory map.
    out
        Where to write, float32 of the same shape (may be a memory map); made when None.
    slab
        Planes that are filtered at once.

    Returns
    -------
    numpy.ndarray
        Coefficients, float32, same shape.
    """
    result = np.empty(volume.shape, np.float32) if out is None else out
    depth, height, _ = volume.shape
    for start in range(0, depth, slab):
        part = np.asarray(volume[start : start + slab], np.float64)
        part = spline_filter1d(part, order=3, axis=2, mode="mirror")
        result[start : start + slab] = spline_filter1d(part, order=3, axis=1, mode="mirror")
    for start in range(0, height, slab):
        part = np.asarray(result[:, start : start + slab], np.float64)
        result[:, start : start + slab] = spline_filter1d(part, order=3, axis=0, mode="mirror")
    return result


@njit(cache=True)
def _weights(fraction: float, weight: NDArray[np.float64]) -> None:
    rest = 1.0 - fraction
    weight[0] = rest * rest * rest / 6.0
    weight[1] = 2.0 / 3.0 - 0.5 * fraction * fraction * (2.0 - fraction)
    weight[2] = 2.0 / 3.0 - 0.5 * rest * rest * (2.0 - rest)
    weight[3] = fraction * fraction * fraction / 6.0


@njit(cache=True)
def _reflect(index: int, size: int) -> int:
    if index < 0:
        index = -index
    if index >= size:
        index = 2 * size - 2 - index
    return index


@njit(cache=True, nogil=True)
def _add_moved_slab(
    coefficients: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    first: int,
    outside: float,
    total: NDArray[np.float64],
) -> None:
    size = coefficients.shape[0]
    weight_z, weight_y, weight_x = np.empty(4), np.empty(4), np.empty(4)
    index_z, index_y, index_x = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    limit = size - 1.0
    for plane in range(total.shape[0]):
        z = float(plane + first)
        for row in range(size):
            for column in range(size):
                source_z = matrix[0, 0] * z + matrix[0, 1] * row + matrix[0, 2] * column + offset[0]
                source_y = matrix[1, 0] * z + matrix[1, 1] * row + matrix[1, 2] * column + offset[1]
                source_x = matrix[2, 0] * z + matrix[2, 1] * row + matrix[2, 2] * column + offset[2]
                if not (0.0 <= source_z <= limit and 0.0 <= source_y <= limit and 0.0 <= source_x <= limit):
                    total[plane, row, column] += outside
                    continue
                base_z, base_y, base_x = int(source_z), int(source_y), int(source_x)
                _weights(source_z - base_z, weight_z)
                _weights(source_y - base_y, weight_y)
                _weights(source_x - base_x, weight_x)
                for tap in range(4):
                    index_z[tap] = _reflect(base_z + tap - 1, size)
                    index_y[tap] = _reflect(base_y + tap - 1, size)
                    index_x[tap] = _reflect(base_x + tap - 1, size)
                value = 0.0
                for tap_z in range(4):
                    sum_y = 0.0
                    for tap_y in range(4):
                        sum_x = 0.0
                        for tap_x in range(4):
                            sum_x += weight_x[tap_x] * coefficients[index_z[tap_z], index_y[tap_y], index_x[tap_x]]
                        sum_y += weight_y[tap_y] * sum_x
                    value += weight_z[tap_z] * sum_y
                total[plane, row, column] += value


def add_moved_slab(
    coefficients: Map,
    *,
    rotation: NDArray[np.float64],
    shift_voxel: NDArray[np.float64],
    mirrored: bool,
    first_plane: int,
    total: NDArray[np.float64],
    outside: float = 0.0,
) -> None:
    """Add planes of a moved map, ``V'(y) = V(R^T (y - t))``, to a running sum.

    Parameters
    ----------
    coefficients
        From `spline_coefficients`, ``[z, y, x]``.
    rotation, shift_voxel, mirrored
        The pose ``y = R x + t`` with t as (x, y, z) in voxels; when `mirrored`, x is replaced by -x first, about
        the origin voxel ``n // 2``.
    first_plane
        First plane of the slab.
    total
        Sum, float64 ``[planes, y, x]``, changed in place.
    outside
        What voxels get that come from outside the box: the level of the solvent.
    """
    size = coefficients.shape[0]
    sign = -1.0 if mirrored else 1.0
    inverse_xyz = sign * np.asarray(rotation, np.float64).T
    inverse_zyx = np.ascontiguousarray(inverse_xyz[::-1, ::-1])
    centre = np.full(3, float(size // 2))
    shift_zyx = np.asarray(shift_voxel, np.float64)[::-1]
    offset = centre - inverse_zyx @ (centre + shift_zyx)
    # Rounding at the faces of the box must not drop a plane of an exact half turn.
    snapped = np.where(np.abs(offset - np.rint(offset)) < 1e-9, np.rint(offset), offset)
    matrix = np.where(np.abs(inverse_zyx - np.rint(inverse_zyx)) < 1e-12, np.rint(inverse_zyx), inverse_zyx)
    _add_moved_slab(coefficients, matrix, snapped, first_plane, outside, total)


def move_map(
    volume: Map, *, rotation: NDArray[np.float64], shift_voxel: NDArray[np.float64], mirrored: bool = False
) -> Map:
    """Move one whole map by a pose; see `add_moved_slab` for the arguments.

    Returns
    -------
    numpy.ndarray
        The moved map, float32 ``[z, y, x]``.
    """
    total = np.zeros(volume.shape, np.float64)
    add_moved_slab(
        spline_coefficients(volume),
        rotation=rotation,
        shift_voxel=shift_voxel,
        mirrored=mirrored,
        first_plane=0,
        total=total,
    )
    return total.astype(np.float32)
