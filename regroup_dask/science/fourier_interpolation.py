"""Reading an oversampled spectrum at rotated frequencies: the inner loop of everything that moves a map.

Trilinear interpolation; the real-space window that it amounts to was divided out when the spectrum was
sampled (`fourier.sampled_spectrum`). Indices are unsigned and arrays flat so that no bound or sign is tested
per value.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, fastmath=True, nogil=True)
def interpolate_rotated(
    cube: np.ndarray,
    reach: int,
    frequency: np.ndarray,
    first: int,
    last: int,
    rotation: np.ndarray,
    oversampling: float,
    hand: float,
    values: np.ndarray,
) -> None:
    """Fill values[:, first:last] with the spectrum at ``R^T k``, conjugated when hand is -1.

    Parameters
    ----------
    cube : numpy.ndarray
        float32, flat: real and imaginary parts of nodes (2 reach + 1, 2 reach + 1, reach + 1), order z, y, x.
    frequency : numpy.ndarray
        float32 (3, c), kx, ky, kz.
    rotation : numpy.ndarray
        float64 (3, 3).
    oversampling : float
        nodes per unit of frequency.
    values : numpy.ndarray
        float32 (2, c), out.
    """
    one = np.float32(1.0)
    unit = np.uint64(1)
    step_x = np.uint64(2)
    step_y = np.uint64(2 * (reach + 1))
    step_z = np.uint64(2 * (reach + 1) * (2 * reach + 1))
    r00, r01, r02 = (
        np.float32(rotation[0, 0] * oversampling),
        np.float32(rotation[1, 0] * oversampling),
        np.float32(rotation[2, 0] * oversampling),
    )
    r10, r11, r12 = (
        np.float32(rotation[0, 1] * oversampling),
        np.float32(rotation[1, 1] * oversampling),
        np.float32(rotation[2, 1] * oversampling),
    )
    r20, r21, r22 = (
        np.float32(rotation[0, 2] * oversampling),
        np.float32(rotation[1, 2] * oversampling),
        np.float32(rotation[2, 2] * oversampling),
    )
    centre = np.float32(reach)
    hand32 = np.float32(hand)
    for i in range(first, last):
        kx = frequency[0, i]
        ky = frequency[1, i]
        kz = frequency[2, i]
        x = r00 * kx + r01 * ky + r02 * kz
        y = r10 * kx + r11 * ky + r12 * kz
        z = r20 * kx + r21 * ky + r22 * kz
        sign = one if x >= 0 else -one
        x *= sign
        y = y * sign + centre
        z = z * sign + centre
        ix = np.int32(x)
        iy = np.int32(y)
        iz = np.int32(z)
        ax = x - np.float32(ix)
        ay = y - np.float32(iy)
        az = z - np.float32(iz)
        bx = one - ax
        w00 = (one - az) * (one - ay)
        w01 = (one - az) * ay
        w10 = az * (one - ay)
        w11 = az * ay
        a = np.uint64(iz) * step_z + np.uint64(iy) * step_y + np.uint64(ix) * step_x
        b = a + step_y
        c = a + step_z
        d = c + step_y
        real_0 = w00 * cube[a] + w01 * cube[b] + w10 * cube[c] + w11 * cube[d]
        imag_0 = w00 * cube[a + unit] + w01 * cube[b + unit] + w10 * cube[c + unit] + w11 * cube[d + unit]
        a += step_x
        b += step_x
        c += step_x
        d += step_x
        real_1 = w00 * cube[a] + w01 * cube[b] + w10 * cube[c] + w11 * cube[d]
        imag_1 = w00 * cube[a + unit] + w01 * cube[b + unit] + w10 * cube[c + unit] + w11 * cube[d + unit]
        values[0, i] = bx * real_0 + ax * real_1
        values[1, i] = sign * hand32 * (bx * imag_0 + ax * imag_1)


# Taylor coefficients of sine and cosine, for arguments up to pi / 2; the error is below 6e-8
_S3, _S5, _S7, _S9, _S11 = (np.float32(v) for v in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800))
_C2, _C4, _C6, _C8, _C10, _C12 = (
    np.float32(v) for v in (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600)
)
_ONE, _TWO, _HALF, _PI = np.float32(1.0), np.float32(2.0), np.float32(0.5), np.float32(math.pi)


@njit(cache=True, fastmath=True, nogil=True)
def shift_values(
    values: np.ndarray, frequency: np.ndarray, first: int, last: int, shift: np.ndarray, box: float
) -> None:
    """Multiply values[:, first:last] by ``exp(-2 pi i k.t / box)`` in place.

    Sine and cosine are polynomials of half the angle, brought into one turn: nothing but arithmetic, so that
    the loop runs on vectors.
    """
    tx = np.float32(-shift[0] / box)
    ty = np.float32(-shift[1] / box)
    tz = np.float32(-shift[2] / box)
    for i in range(first, last):
        turn = tx * frequency[0, i] + ty * frequency[1, i] + tz * frequency[2, i]
        half = _PI * (turn - np.floor(turn + _HALF))
        q = half * half
        sine = half * (_ONE + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11)))))
        cosine = _ONE + q * (_C2 + q * (_C4 + q * (_C6 + q * (_C8 + q * (_C10 + q * _C12)))))
        c = cosine * cosine - sine * sine
        s = _TWO * sine * cosine
        real = values[0, i]
        imag = values[1, i]
        values[0, i] = real * c - imag * s
        values[1, i] = real * s + imag * c
