"""Power and cross power per Fourier shell of two maps at a pose, on the working box.

The moving map is rotated in Fourier space: its zero-padded spectrum is read at R^T k, its shift is a phase.
At a rotation that is exactly the identity no interpolation happens and the sums are exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from scipy.ndimage import median_filter

from regroup_dask.science.fourier import frequencies
from regroup_dask.science.fourier_interpolation import interpolate_rotated, shift_values

PADDING = 1.75
"""How many times its box a map is zero-padded to before its spectrum is read between the nodes."""

CHUNK = 1024


@lru_cache(maxsize=4)
def shell_coefficients(box: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one of each pair k, -k of the frequencies of a box with round(|k|) <= box // 2, sorted by shell.

    Returns
    -------
    frequency : numpy.ndarray
        int16 (3, c), kx >= 0, ky, kz.
    multiplicity : numpy.ndarray
        int8 (c,), 2, or 1 where -k is k itself.
    ends : numpy.ndarray
        int64 (box // 2 + 1,), how many coefficients have a shell up to s.
    """
    full, half = frequencies(box)
    kz, ky, kx = (a.ravel() for a in np.meshgrid(full, full, half, indexing="ij"))
    shell = np.rint(np.sqrt(kx**2 + ky**2 + kz**2)).astype(np.int64)
    # in the planes kx = 0 and kx = box / 2 both members of a pair are there: keep the one of lower rank
    own = (kz % box) * box + ky % box
    partner = (-kz % box) * box + (-ky % box)
    plane = (kx == 0) | (2 * kx == box)
    keep = np.flatnonzero((shell <= box // 2) & (~plane | (own <= partner)))
    keep = keep[np.argsort(shell[keep], kind="stable")]
    frequency = np.stack([kx[keep], ky[keep], kz[keep]]).astype(np.int16)
    multiplicity = np.where(plane[keep] & (own[keep] == partner[keep]), 1, 2).astype(np.int8)
    ends = np.searchsorted(shell[keep], np.arange(box // 2 + 1), side="right").astype(np.int64)
    for array in (frequency, multiplicity, ends):
        array.setflags(write=False)
    return frequency, multiplicity, ends


@njit(cache=True, fastmath=True, nogil=True)
def _moved_sums(
    fixed: np.ndarray,
    padded: np.ndarray,
    reach: int,
    frequency: np.ndarray,
    multiplicity: np.ndarray,
    ends: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
    hand: float,
    box: int,
    cross: np.ndarray,
    power: np.ndarray,
) -> None:
    """Sum Re conj(F) M and |M|^2 over shells; fixed float32 (2 c,), padded uint16, flat."""
    values = np.empty((2, CHUNK), dtype=np.float32)  # small: stays in the nearest cache
    chunk = np.empty((3, CHUNK), dtype=np.float32)
    one, two = np.uint64(1), np.uint64(2)
    start = 0
    for shell in range(ends.shape[0]):
        cross[shell] = 0.0
        power[shell] = 0.0
        for begin in range(start, ends[shell], CHUNK):
            number = min(CHUNK, ends[shell] - begin)
            first, count = np.uint64(begin), np.uint64(number)  # never negative, so that loops run on vectors
            for i in range(count):
                chunk[0, i] = np.float32(frequency[0, first + i])
                chunk[1, i] = np.float32(frequency[1, first + i])
                chunk[2, i] = np.float32(frequency[2, first + i])
            interpolate_rotated(padded, reach, chunk, 0, number, rotation, PADDING, hand, values)
            shift_values(values, chunk, 0, number, shift, float(box))
            c = np.float32(0.0)
            p = np.float32(0.0)
            for i in range(count):
                multiple = np.float32(multiplicity[first + i])
                real = multiple * values[0, i]
                imag = multiple * values[1, i]
                c += fixed[two * (first + i)] * real + fixed[two * (first + i) + one] * imag
                p += values[0, i] * real + values[1, i] * imag
            cross[shell] += c
            power[shell] += p
        start = ends[shell]


def cross_power_at(
    spectrum: np.ndarray,
    moving_spectrum: np.ndarray,
    moving_padded: np.ndarray,
    moving_power: np.ndarray,
    *,
    box: int,
    rotation: np.ndarray,
    shift_voxels: np.ndarray,
    mirrored: bool,
    last_shell: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return cross power and power of the moved map per shell of the working box.

    Parameters
    ----------
    spectrum, moving_spectrum : numpy.ndarray
        complex64 (c,) at `shell_coefficients`.
    moving_padded : numpy.ndarray
        uint16 (..., 2), cube of `fourier.sampled_spectrum` at spacing 1 / (PADDING n), `shortened`: a relative error
        of 0.002 per node, at random, is far below that of interpolation.
    moving_power : numpy.ndarray
        float64 (n // 2 + 1,) of the unmoved map.
    box : int
        n.
    rotation : numpy.ndarray
        float64 (3, 3).
    shift_voxels : numpy.ndarray
        float64 (3,), (x, y, z).
    mirrored : bool
    last_shell : int, optional
        finest shell that is wanted; all by default.

    Returns
    -------
    cross_power, power_moving : numpy.ndarray
        float64 (n // 2 + 1,), or (last_shell + 1,). Where interpolation leaks into a shell, the power is that of the
        unmoved map.
    """
    frequency, multiplicity, ends = shell_coefficients(box)
    n_shells = len(ends) if last_shell is None else min(last_shell + 1, len(ends))
    hand = -1.0 if mirrored else 1.0
    shift = np.asarray(shift_voxels, dtype=np.float64)
    if np.array_equal(rotation, np.eye(3)):
        moving = moving_spectrum.conj() if mirrored else moving_spectrum
        if shift.any():
            moving = moving * np.exp(-2j * np.pi / box * (shift @ frequency.astype(np.float64)))
        terms = multiplicity * (spectrum.astype(np.complex128).conj() * moving).real
        return np.add.reduceat(terms, np.concatenate([[0], ends[:-1]]))[:n_shells], moving_power[:n_shells].copy()
    cross, power = np.empty(n_shells), np.empty(n_shells)
    flat = moving_padded.reshape(-1)
    _moved_sums(
        spectrum.view(np.float32),
        flat,
        moving_padded.shape[2] - 1,
        frequency,
        multiplicity,
        ends[:n_shells],
        np.ascontiguousarray(rotation, dtype=np.float64),
        shift,
        hand,
        box,
        cross,
        power,
    )
    # at frequency 0 rotation and shift do nothing, and need no interpolation
    cross[0] = float(spectrum[0].real) * float(moving_spectrum[0].real)
    power[0] = moving_power[0]
    return cross, _without_leaks(power, moving_power, box)


def _without_leaks(power: np.ndarray, unmoved: np.ndarray, box: int) -> np.ndarray:
    """Put the power that a map has unmoved where interpolation leaks into the shells of the moved one.

    A turn changes which noise, and which part of the spectrum of a long or flat particle, falls on the coefficients of a
    shell: some shells gain what others lose, and it is the gained power that the cross power goes with. But past a filter
    that falls steeply shell after shell is interpolated from stronger ones beside it, and what is many times the map's own
    power there would pass for signal.
    """
    own = unmoved[: len(power)]
    count = np.maximum(np.diff(shell_coefficients(box)[2], prepend=0), 1)[: len(power)]
    ratio = np.divide(power, own, out=np.ones_like(power), where=own > 0)
    beyond_chance = 1.0 + 2.0 / np.sqrt(count)
    leaks = (ratio > beyond_chance) & (median_filter(ratio, 5, mode="nearest") > beyond_chance)
    return np.where(leaks, own, power)
