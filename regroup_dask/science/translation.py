"""Best shifts of a pair of maps for given rotations, over all shifts at once.

For each rotation the rotated moving spectrum times the conjugate of the fixed one, on a coarse grid of
frequencies, goes through one small inverse FFT: the correlation at every shift of the particle box.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numba import njit

from regroup_dask.science.fourier_interpolation import interpolate_rotated

GRID = 12
"""Shifts per axis; frequencies up to GRID / 2 - 1 cycles per particle box take part."""


@njit(cache=True, fastmath=True, nogil=True)
def _fill_products(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    count: int,
    rotations: np.ndarray,
    hands: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill out, complex64 (p, GRID, GRID, GRID // 2 + 1), with f conj(m): its inverse transform correlates."""
    grid = out.shape[1]
    values = np.empty((2, count), dtype=np.float32)
    for p in range(rotations.shape[0]):
        interpolate_rotated(cube, reach, frequency, 0, count, rotations[p], oversampling, hands[p], values)
        for i in range(count):
            kx = int(frequency[0, i])
            ky = int(frequency[1, i])
            kz = int(frequency[2, i])
            real = weight[i] * (coefficients[0, i] * values[0, i] + coefficients[1, i] * values[1, i])
            imag = weight[i] * (coefficients[1, i] * values[0, i] - coefficients[0, i] * values[1, i])
            out[p, kz % grid, ky % grid, kx] = complex(real, imag)
            if kx == 0:
                out[p, -kz % grid, -ky % grid, 0] = complex(real, -imag)


@njit(cache=True, nogil=True)
def _best_shifts(
    correlation: np.ndarray,
    box: float,
    centre_terms: np.ndarray,
    maximum_shift: float,
    widest: float,
    shifts: np.ndarray,
    values: np.ndarray,
) -> None:
    """Find per rotation the highest value among allowed shifts, with a parabola through its neighbours."""
    grid = correlation.shape[1]
    step = box / grid
    for p in range(correlation.shape[0]):
        best = -1e30
        bz, by, bx = 0, 0, 0
        for jz in range(grid):
            z = (jz if jz < grid // 2 else jz - grid) * step
            for jy in range(grid):
                y = (jy if jy < grid // 2 else jy - grid) * step
                for jx in range(grid):
                    value = correlation[p, jz, jy, jx]
                    if value <= best:
                        continue
                    x = (jx if jx < grid // 2 else jx - grid) * step
                    if x * x + y * y + z * z > widest * widest:
                        continue
                    length = math.sqrt(
                        (x + centre_terms[p, 0]) ** 2
                        + (y + centre_terms[p, 1]) ** 2
                        + (z + centre_terms[p, 2]) ** 2
                    )
                    if length > maximum_shift + 0.75 * step:
                        continue
                    best = value
                    bz, by, bx = jz, jy, jx
        values[p] = best
        at = (bx, by, bz)
        for axis in range(3):
            j = at[axis]
            centre = correlation[p, bz, by, bx]
            if axis == 0:
                low = correlation[p, bz, by, (bx - 1) % grid]
                high = correlation[p, bz, by, (bx + 1) % grid]
            elif axis == 1:
                low = correlation[p, bz, (by - 1) % grid, bx]
                high = correlation[p, bz, (by + 1) % grid, bx]
            else:
                low = correlation[p, (bz - 1) % grid, by, bx]
                high = correlation[p, (bz + 1) % grid, by, bx]
            bend = low - 2.0 * centre + high
            offset = 0.0
            if bend < 0.0:
                offset = min(0.5, max(-0.5, 0.5 * (low - high) / bend))
            shifts[p, axis] = ((j if j < grid // 2 else j - grid) + offset) * step


def best_shifts(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    count: int,
    box: float,
    rotations: np.ndarray,
    hands: np.ndarray,
    centre_terms: np.ndarray,
    maximum_shift: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each rotation the best shift (voxels, of centred maps) and its weighted correlation.

    Parameters as in `refinement.correlate_at`, with rotations float64 (p, 3, 3) and hands float64 (p,);
    ``centre_terms`` float64 (p, 3) is what to add to the shift of the centred maps to get that of the maps,
    whose length may not exceed ``maximum_shift``.

    Returns
    -------
    shifts : numpy.ndarray
        float64 (p, 3).
    values : numpy.ndarray
        float64 (p,).
    """
    products = np.zeros((len(rotations), GRID, GRID, GRID // 2 + 1), dtype=np.complex64)
    _fill_products(
        cube, reach, oversampling, frequency, coefficients, weight, count, rotations, hands, products
    )
    correlation = scipy.fft.irfftn(
        products, s=(GRID, GRID, GRID), axes=(1, 2, 3), norm="forward", overwrite_x=True
    )
    shifts = np.empty((len(rotations), 3))
    values = np.empty(len(rotations))
    _best_shifts(correlation, box, centre_terms, maximum_shift, 0.42 * box, shifts, values)
    return shifts, values
