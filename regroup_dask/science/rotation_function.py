"""Correlation of two functions on the sphere over all rotations, by a fast transform on SO(3).

For functions given by their harmonic coefficients on concentric shells, the correlation over all rotations is
``C(R) = sum over l, m', m of (sum over shells w conj(a_lm') b_lm) D^l_m'm(R)``: a sum over l with Wigner's d
for each beta, then one two-dimensional FFT over alpha and gamma. Amplitudes do not change when a map is
shifted (the fast rotation function, Crowther 1972, The Molecular Replacement Method, 173); the transform is
that of Kostelec and Rockmore (2008), J. Fourier Anal. Appl. 14, 145, and its use for maps that of Kovacs and
Wriggers (2002), Acta Cryst. D58, 1282. Complex coefficients enter as their Hartley values Re F + Im F: real,
and even degrees carry Re F while odd ones carry Im F, so that the map of the other hand (conj F) differs by
the sign of the odd degrees only and shares all products.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from numba import njit

from regroup_dask.science.spherical_harmonics import wigner_d
from regroup_dask.science.wigner_sums import widened, wigner_sums, wigner_sums_of_one

PART_BYTES = 100_000
"""So much of the correlation with a bank of shifts is made at a time."""

KEPT_SHAPES = 4
"""Arrays of so many shapes are kept from one call to the next, per thread."""

PEAKS_PER_CHOSEN = 5
"""So many of the highest peaks are looked at for each that is wanted, before all are."""


_kept = threading.local()


class RotationGrid(NamedTuple):
    """An Euler grid on SO(3) and the Wigner table for it.

    Attributes
    ----------
    degree : int
        band limit L.
    parity_step : int
        1: all degrees; 2: even degrees only (amplitudes).
    n_azimuth : int
        points in alpha and in gamma, 2 pi k / n_azimuth.
    beta : numpy.ndarray
        float64 (n_beta,), pi (k + 1/2) / n_beta.
    wigner : numpy.ndarray
        float32 (2L + 1, L + 1, L + 1, n_beta): d^l_m'm(beta) at [m' + L, m, l], for m >= 0.
    quaternions : numpy.ndarray
        float32 (n_beta * n_azimuth^2, 4) of the grid rotations, order (beta, alpha, gamma).
    """

    degree: int
    parity_step: int
    n_azimuth: int
    beta: np.ndarray
    wigner: np.ndarray
    quaternions: np.ndarray


def euler_quaternions(alpha: np.ndarray, beta: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Return quaternions (x, y, z, w) of Rz(alpha) Ry(beta) Rz(gamma), float64 (..., 4)."""
    plus, minus = 0.5 * (alpha + gamma), 0.5 * (gamma - alpha)
    half_sine, half_cosine = np.sin(0.5 * beta), np.cos(0.5 * beta)
    return np.stack(
        [
            half_sine * np.sin(minus),
            half_sine * np.cos(minus),
            half_cosine * np.sin(plus),
            half_cosine * np.cos(plus),
        ],
        axis=-1,
    )


@lru_cache(maxsize=8)
def rotation_grid(degree: int, *, even_only: bool, n_azimuth: int, n_beta: int) -> RotationGrid:
    """Build, once per process, the Euler grid and Wigner table of a band limit."""
    beta = np.pi * (np.arange(n_beta) + 0.5) / n_beta
    table = np.zeros((2 * degree + 1, degree + 1, degree + 1, n_beta), dtype=np.float32)
    for l_ in range(0, degree + 1, 2 if even_only else 1):
        small = wigner_d(l_, beta)  # (beta, m', m)
        table[degree - l_ : degree + l_ + 1, : l_ + 1, l_, :] = small[:, :, l_:].transpose(1, 2, 0)
    azimuth = 2.0 * np.pi * np.arange(n_azimuth) / n_azimuth
    quaternions = euler_quaternions(azimuth[None, :, None], beta[:, None, None], azimuth[None, None, :])
    return RotationGrid(
        degree,
        2 if even_only else 1,
        n_azimuth,
        beta,
        table,
        quaternions.reshape(-1, 4).astype(np.float32),
    )


def correlate_rotations(
    fixed: np.ndarray,
    moving: np.ndarray,
    grid: RotationGrid,
    *,
    first_degree: int = 0,
    both_hands: bool = False,
) -> np.ndarray:
    """Return the correlation of functions on shells over all rotations of a grid.

    Parameters
    ----------
    fixed : numpy.ndarray
        complex64 ((L + 1)^2, shells, bank): coefficients of real functions, for each member of a bank
        (of shifted copies, say).
    moving : numpy.ndarray
        complex64 ((L + 1)^2, shells), the weights of the shells multiplied in.
    grid : RotationGrid
    first_degree : int
        degrees below are left out (2 for amplitudes: degree 0 does not depend on rotation).
    both_hands : bool
        also return the correlation with the odd degrees of `moving` negated.

    Returns
    -------
    numpy.ndarray
        float32 (hands, n_beta, n_azimuth (alpha), n_azimuth (gamma), bank).
    """
    n = grid.n_azimuth
    coefficients = _coefficients(fixed, moving, grid, first_degree, both_hands)
    return scipy.fft.irfft2(coefficients, s=(n, n), axes=(2, 3), norm="forward")


def best_rotations(
    fixed: np.ndarray, moving: np.ndarray, grid: RotationGrid, *, both_hands: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest of `correlate_rotations` over the bank, and which of the bank it is.

    Parameters as for `correlate_rotations`. What the transform gives goes no further than the nearer caches.

    Returns
    -------
    best : numpy.ndarray
        float32 (hands, n_beta, n_azimuth (alpha), n_azimuth (gamma)).
    which : numpy.ndarray
        int64, likewise.
    """
    n, bank = grid.n_azimuth, fixed.shape[2]
    coefficients = _coefficients(fixed, moving, grid, 0, both_hands)
    best = np.empty((len(coefficients), len(grid.beta), n, n), dtype=np.float32)
    which = np.empty(best.shape, dtype=np.int64)
    part = max(1, PART_BYTES // (4 * n * n * bank))
    for hand in range(len(coefficients)):
        for start in range(0, len(grid.beta), part):
            here = slice(start, start + part)
            values = scipy.fft.irfft2(coefficients[hand, here], s=(n, n), axes=(1, 2), norm="forward")
            best_over_bank(values.reshape(-1, bank), best[hand, here].reshape(-1), which[hand, here].reshape(-1))
    return best, which


def _coefficients(
    fixed: np.ndarray, moving: np.ndarray, grid: RotationGrid, first_degree: int, both_hands: bool
) -> np.ndarray:
    """Return what is transformed over alpha and gamma, complex64 (hands, n_beta, n_azimuth, n_azimuth // 2 + 1, bank).

    It is valid until the next call in this thread: new pages for it would take longer than the sums.
    """
    n, bank = grid.n_azimuth, fixed.shape[2]
    shape = (2 if both_hands else 1, len(grid.beta), n, n // 2 + 1, bank)
    kept: dict[tuple[int, ...], np.ndarray] = _kept.__dict__.setdefault("coefficients", {})
    if shape not in kept:
        if len(kept) == KEPT_SHAPES:
            kept.clear()
        kept[shape] = np.empty(shape, dtype=np.complex64)
    coefficients = kept[shape]
    coefficients[:] = 0.0
    moving = np.ascontiguousarray(moving)
    if bank == 1 and not both_hands:
        one = np.ascontiguousarray(fixed[:, :, 0])
        wigner_sums_of_one(one, moving, grid.wigner, first_degree, grid.parity_step, coefficients[0, ..., 0])
    else:
        wigner_sums(
            widened(fixed.real),
            widened(fixed.imag),
            moving,
            grid.wigner,
            first_degree,
            grid.parity_step,
            both_hands,
            coefficients,
        )
    return coefficients


@njit(cache=True, fastmath=True, nogil=True)
def best_over_bank(values: np.ndarray, best: np.ndarray, which: np.ndarray) -> None:
    """Fill best and which, float32 and int64 (p,), with the highest of values (p, bank) and where it is."""
    for i in range(values.shape[0]):
        top = values[i, 0]
        at = 0
        for k in range(1, values.shape[1]):
            if values[i, k] > top:
                top = values[i, k]
                at = k
        best[i] = top
        which[i] = at


@njit(cache=True, fastmath=True, nogil=True)
def _local_maxima(values: np.ndarray, found: np.ndarray) -> int:
    """List the flat indices of cells (beta, alpha, gamma) that no neighbour along an axis exceeds."""
    n_beta, n, _ = values.shape
    count = 0
    for j in range(n_beta):
        for a in range(n):
            before, after = (a - 1 if a > 0 else n - 1), (a + 1 if a < n - 1 else 0)
            for g in range(n):
                value = values[j, a, g]
                if (
                    value < values[j, a, g - 1 if g > 0 else n - 1]
                    or value < values[j, a, g + 1 if g < n - 1 else 0]
                ):
                    continue
                if value < values[j, before, g] or value < values[j, after, g]:
                    continue
                if j > 0 and value < values[j - 1, a, g]:
                    continue
                if j < n_beta - 1 and value < values[j + 1, a, g]:
                    continue
                found[count] = (j * n + a) * n + g
                count += 1
    return count


@njit(cache=True, fastmath=True, nogil=True)
def _separate(cells: np.ndarray, quaternions: np.ndarray, count: int, cosine: float) -> np.ndarray:
    """Choose the highest cells whose rotations differ by more than an angle; cells sorted highest first."""
    chosen = np.empty(count, dtype=np.int64)
    found = 0
    for cell in cells:
        if found == count:
            break
        near = False
        for k in range(found):
            other = chosen[k]
            overlap = np.float32(0.0)
            for axis in range(4):
                overlap += quaternions[cell, axis] * quaternions[other, axis]
            if abs(overlap) > cosine:
                near = True
                break
        if not near:
            chosen[found] = cell
            found += 1
    return chosen[:found]


def separated_peaks(
    values: np.ndarray, quaternions: np.ndarray, count: int, separation_degrees: float
) -> np.ndarray:
    """Return the flat indices of up to `count` highest peaks whose rotations differ by more than an angle.

    Parameters
    ----------
    values : numpy.ndarray
        float32 (n_beta, n, n), on the Euler grid.
    quaternions : numpy.ndarray
        float32 (n_beta n^2, 4).
    count : int
    separation_degrees : float
        least angle between two peaks.

    Returns
    -------
    numpy.ndarray
        int64, highest first.
    """
    cells = np.empty(values.size, dtype=np.int64)
    cells = cells[: _local_maxima(values, cells)]
    flat = values.reshape(-1)
    cosine = float(np.cos(np.radians(0.5 * separation_degrees)))
    if len(cells) > PEAKS_PER_CHOSEN * count:  # the highest are nearly always enough, and to sort all takes longest
        highest = cells[np.argpartition(-flat[cells], PEAKS_PER_CHOSEN * count)[: PEAKS_PER_CHOSEN * count]]
        chosen = _separate(highest[np.argsort(-flat[highest], kind="stable")], quaternions, count, cosine)
        if len(chosen) == count:
            return chosen
    return _separate(cells[np.argsort(-flat[cells], kind="stable")], quaternions, count, cosine)
