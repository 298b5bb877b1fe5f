"""Power and cross power per Fourier shell of two maps at a pose, on the working box.

The moving map is rotated in Fourier space: its twofold zero-padded spectrum is read at R^T k by trilinear
interpolation (the window of which was divided out beforehand), its shift is a phase. At a rotation that is
exactly the identity no interpolation happens and the sums are exact.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import njit

from regroup_dask.science.fourier import half_spectrum_shells


@lru_cache(maxsize=8)
def _shell_of_square(box: int) -> np.ndarray:
    """Return shell numbers by |k|^2, box // 2 + 1 for those beyond; int32."""
    limit = 3 * (box // 2 + 1) ** 2
    shells = np.minimum(np.rint(np.sqrt(np.arange(limit + 1))), box // 2 + 1).astype(np.int32)
    shells.setflags(write=False)
    return shells


@njit(cache=True, fastmath=True, nogil=True)
def _cross_power_interpolated(
    spectrum: np.ndarray,
    padded: np.ndarray,
    shell_of_square: np.ndarray,
    multiplicity: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
    hand: float,
    cross: np.ndarray,
    moving: np.ndarray,
) -> None:
    """Sum Re conj(F) M and |M|^2 per shell; spectrum float32 (n, n, h, 2), padded float32 (.., .., .., 2)."""
    box = spectrum.shape[0]
    half = spectrum.shape[2]
    last = box // 2
    reach = padded.shape[2] - 1
    phase = np.empty((3, box, 2), dtype=np.float32)
    for axis in range(3):
        for j in range(box):
            k = j if j < (box + 1) // 2 else j - box
            if axis == 0:
                k = j
            angle = -2.0 * math.pi * shift[axis] * k / box
            phase[axis, j, 0] = math.cos(angle)
            phase[axis, j, 1] = math.sin(angle)
    r = (rotation.T * 2.0).astype(np.float32)
    one = np.float32(1.0)
    hand32 = np.float32(hand)
    limit = (last + 0.5) ** 2
    for jz in range(box):
        kz = jz if jz < (box + 1) // 2 else jz - box
        for jy in range(box):
            ky = jy if jy < (box + 1) // 2 else jy - box
            rest = limit - kz * kz - ky * ky
            if rest <= 0:
                continue
            stop = min(half, int(math.sqrt(rest)) + 1)
            c1 = phase[2, jz, 0] * phase[1, jy, 0] - phase[2, jz, 1] * phase[1, jy, 1]
            s1 = phase[2, jz, 0] * phase[1, jy, 1] + phase[2, jz, 1] * phase[1, jy, 0]
            x0 = r[0, 1] * np.float32(ky) + r[0, 2] * np.float32(kz)
            y0 = r[1, 1] * np.float32(ky) + r[1, 2] * np.float32(kz)
            z0 = r[2, 1] * np.float32(ky) + r[2, 2] * np.float32(kz)
            for kx in range(stop):
                shell = shell_of_square[kx * kx + ky * ky + kz * kz]
                if shell > last:
                    continue
                x = x0 + r[0, 0] * np.float32(kx)
                y = y0 + r[1, 0] * np.float32(kx)
                z = z0 + r[2, 0] * np.float32(kx)
                sign = hand32
                if x < 0:
                    x = -x
                    y = -y
                    z = -z
                    sign = -hand32
                y += reach
                z += reach
                ix = int(x)
                iy = int(y)
                iz = int(z)
                ax = x - ix
                ay = y - iy
                az = z - iz
                bx = one - ax
                w00 = (one - az) * (one - ay)
                w01 = (one - az) * ay
                w10 = az * (one - ay)
                w11 = az * ay
                a = padded[iz, iy]
                b = padded[iz, iy + 1]
                c = padded[iz + 1, iy]
                d = padded[iz + 1, iy + 1]
                re = bx * (w00 * a[ix, 0] + w01 * b[ix, 0] + w10 * c[ix, 0] + w11 * d[ix, 0]) + ax * (
                    w00 * a[ix + 1, 0] + w01 * b[ix + 1, 0] + w10 * c[ix + 1, 0] + w11 * d[ix + 1, 0]
                )
                im = sign * (
                    bx * (w00 * a[ix, 1] + w01 * b[ix, 1] + w10 * c[ix, 1] + w11 * d[ix, 1])
                    + ax * (w00 * a[ix + 1, 1] + w01 * b[ix + 1, 1] + w10 * c[ix + 1, 1] + w11 * d[ix + 1, 1])
                )
                pc = c1 * phase[0, kx, 0] - s1 * phase[0, kx, 1]
                ps = c1 * phase[0, kx, 1] + s1 * phase[0, kx, 0]
                fr = spectrum[jz, jy, kx, 0]
                fi = spectrum[jz, jy, kx, 1]
                weight = multiplicity[kx]
                cross[shell] += weight * ((fr * pc + fi * ps) * re + (fi * pc - fr * ps) * im)
                moving[shell] += weight * (re * re + im * im)


@njit(cache=True, fastmath=True, nogil=True)
def _cross_power_shifted(
    fixed: np.ndarray,
    moving: np.ndarray,
    shells: np.ndarray,
    multiplicity: np.ndarray,
    shift: np.ndarray,
    hand: float,
    cross: np.ndarray,
) -> None:
    """Sum Re conj(F) M exp(-2 pi i k.t / n) per shell with no rotation."""
    box = fixed.shape[0]
    last = box // 2
    for jz in range(box):
        kz = jz if jz < (box + 1) // 2 else jz - box
        for jy in range(box):
            ky = jy if jy < (box + 1) // 2 else jy - box
            for kx in range(fixed.shape[2]):
                shell = shells[jz, jy, kx]
                if shell > last:
                    continue
                fr, fi = fixed[jz, jy, kx, 0], fixed[jz, jy, kx, 1]
                mr, mi = moving[jz, jy, kx, 0], hand * moving[jz, jy, kx, 1]
                angle = -2.0 * math.pi * (shift[0] * kx + shift[1] * ky + shift[2] * kz) / box
                c, s = math.cos(angle), math.sin(angle)
                cross[shell] += multiplicity[kx] * (fr * (mr * c - mi * s) + fi * (mr * s + mi * c))


def cross_power_at(
    spectrum: np.ndarray,
    moving_spectrum: np.ndarray,
    moving_padded: np.ndarray,
    moving_power: np.ndarray,
    *,
    rotation: np.ndarray,
    shift_voxels: np.ndarray,
    mirrored: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return cross power and power of the moved map per shell of the working box.

    Parameters
    ----------
    spectrum, moving_spectrum : numpy.ndarray
        complex64 (n, n, n // 2 + 1).
    moving_padded : numpy.ndarray
        complex64 cube of `sampled_spectrum` at spacing 1 / (2 n).
    moving_power : numpy.ndarray
        float64 (n // 2 + 1,) of the unmoved map.
    rotation : numpy.ndarray
        float64 (3, 3).
    shift_voxels : numpy.ndarray
        float64 (3,), (x, y, z).
    mirrored : bool

    Returns
    -------
    cross_power, power_moving : numpy.ndarray
        float64 (n // 2 + 1,).
    """
    box = spectrum.shape[0]
    shells, multiplicity = half_spectrum_shells(box)
    cross = np.zeros(box // 2 + 1)
    hand = -1.0 if mirrored else 1.0
    fixed = spectrum.view(np.float32).reshape(*spectrum.shape, 2)
    shift = np.asarray(shift_voxels, dtype=np.float64)
    if np.array_equal(rotation, np.eye(3)):
        moving = moving_spectrum.view(np.float32).reshape(*moving_spectrum.shape, 2)
        _cross_power_shifted(fixed, moving, shells, multiplicity, shift, hand, cross)
        return cross, moving_power.copy()
    power = np.zeros(box // 2 + 1)
    padded = moving_padded.view(np.float32).reshape(*moving_padded.shape, 2)
    _cross_power_interpolated(
        fixed,
        padded,
        _shell_of_square(box),
        multiplicity.astype(np.float32),
        np.ascontiguousarray(rotation, dtype=np.float64),
        shift,
        hand,
        cross,
        power,
    )
    # at frequency 0 rotation and shift do nothing, and need no interpolation
    cross[0] = float(spectrum[0, 0, 0].real) * float(moving_spectrum[0, 0, 0].real)
    power[0] = moving_power[0]
    return cross, power
