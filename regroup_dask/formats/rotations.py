"""Rotations as files write them, to and from matrices: rotation vectors, quaternions, Euler angles.

One row after another in compiled loops, because there are as many rows as particles.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_POLE = 1e-7
"""Sine of tilt below which rot and psi turn about one axis, as far as six decimals of a degree can tell."""


def matrices_of_vectors(vectors: np.ndarray) -> np.ndarray:
    """Matrices f64[n, 3, 3] of rotation vectors [n, 3] in radians; NaN where a vector is not finite."""
    result = np.empty((len(vectors), 3, 3))
    _matrices_of_vectors(np.ascontiguousarray(vectors, dtype=np.float64), result)
    return result


def vectors_of_matrices(rotation: np.ndarray) -> np.ndarray:
    """Rotation vectors f64[n, 3], no longer than pi, of matrices [n, 3, 3]."""
    result = quaternions_of_matrices(rotation)
    _scale_to_vectors(result)
    return result[:, :3].copy()


def quaternions_of_matrices(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions x, y, z, w, f64[n, 4], of matrices [n, 3, 3]; NaN where a matrix is not finite.

    w >= 0; of w = 0 the first of x, y, z that is not 0 is positive.
    """
    result = np.empty((len(rotation), 4))
    _quaternions_of_matrices(np.ascontiguousarray(rotation, dtype=np.float64), result)
    return result


def matrices_of_quaternions(quaternion: np.ndarray) -> np.ndarray:
    """Matrices f64[n, 3, 3] of quaternions x, y, z, w of any length; NaN where one is zero or not finite."""
    result = np.empty((len(quaternion), 3, 3))
    _matrices_of_quaternions(np.ascontiguousarray(quaternion, dtype=np.float64), result)
    return result


def matrices_of_angles(angles_degrees: np.ndarray) -> np.ndarray:
    """Rz(rot) Ry(tilt) Rz(psi), f64[n, 3, 3], of angles [n, 3] in degrees."""
    result = np.empty((len(angles_degrees), 3, 3))
    _matrices_of_angles(np.ascontiguousarray(angles_degrees, dtype=np.float64), result)
    return result


def angles_of_matrices(rotation: np.ndarray) -> np.ndarray:
    """Angles (rot, tilt, psi) in degrees, f64[n, 3], of matrices [n, 3, 3].

    rot and psi are in -180..180, tilt in 0..180. At tilt 0 and 180 only one of rot and psi is determined; rot
    is 0 there, as in RELION.
    """
    result = np.empty((len(rotation), 3))
    _angles_of_matrices(np.ascontiguousarray(rotation, dtype=np.float64), result)
    return result


@njit(cache=True, nogil=True)
def _matrices_of_vectors(vectors, result):  # type: ignore[no-untyped-def]
    for row in range(len(vectors)):
        x, y, z = vectors[row]
        square = x * x + y * y + z * z
        angle = np.sqrt(square)
        if angle > 1e-3:
            a, b = np.sin(angle) / angle, (1 - np.cos(angle)) / square
        else:
            a, b = 1 - square / 6 * (1 - square / 20), 0.5 - square / 24
        result[row, 0, 0] = 1 - b * (y * y + z * z)
        result[row, 1, 1] = 1 - b * (x * x + z * z)
        result[row, 2, 2] = 1 - b * (x * x + y * y)
        result[row, 0, 1], result[row, 1, 0] = b * x * y - a * z, b * x * y + a * z
        result[row, 0, 2], result[row, 2, 0] = b * x * z + a * y, b * x * z - a * y
        result[row, 1, 2], result[row, 2, 1] = b * y * z - a * x, b * y * z + a * x


@njit(cache=True, nogil=True)
def _quaternions_of_matrices(rotation, result):  # type: ignore[no-untyped-def]
    """From the largest of the four components, so that no precision is lost (S. W. Shepperd, 1978)."""
    for row in range(len(rotation)):
        r = rotation[row]
        trace = r[0, 0] + r[1, 1] + r[2, 2]
        if trace >= r[0, 0] and trace >= r[1, 1] and trace >= r[2, 2]:
            x, y, z, w = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], 1 + trace
        elif r[0, 0] >= r[1, 1] and r[0, 0] >= r[2, 2]:
            x, y, z, w = 1 + 2 * r[0, 0] - trace, r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]
        elif r[1, 1] >= r[2, 2]:
            x, y, z, w = r[0, 1] + r[1, 0], 1 + 2 * r[1, 1] - trace, r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]
        else:
            x, y, z, w = r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], 1 + 2 * r[2, 2] - trace, r[1, 0] - r[0, 1]
        length = np.sqrt(x * x + y * y + z * z + w * w)
        negative = w < 0 or (w == 0 and (x < 0 or (x == 0 and (y < 0 or (y == 0 and z < 0)))))
        length = -length if negative else length
        result[row, 0], result[row, 1], result[row, 2] = x / length, y / length, z / length
        result[row, 3] = w / length + 0.0


@njit(cache=True, nogil=True)
def _scale_to_vectors(quaternions):  # type: ignore[no-untyped-def]
    for row in range(len(quaternions)):
        x, y, z, w = quaternions[row]
        sine = np.sqrt(x * x + y * y + z * z)
        scale = 2 * np.arctan2(sine, w) / sine if sine > 1e-12 else 2.0
        for axis in range(3):
            quaternions[row, axis] *= scale


@njit(cache=True, nogil=True)
def _matrices_of_quaternions(quaternion, result):  # type: ignore[no-untyped-def]
    for row in range(len(quaternion)):
        x, y, z, w = quaternion[row]
        length = np.sqrt(x * x + y * y + z * z + w * w)
        scale = 1 / length if length > 0 else np.nan
        x, y, z, w = x * scale, y * scale, z * scale, w * scale
        result[row, 0, 0] = 1 - 2 * (y * y + z * z)
        result[row, 0, 1] = 2 * (x * y - z * w)
        result[row, 0, 2] = 2 * (x * z + y * w)
        result[row, 1, 0] = 2 * (x * y + z * w)
        result[row, 1, 1] = 1 - 2 * (x * x + z * z)
        result[row, 1, 2] = 2 * (y * z - x * w)
        result[row, 2, 0] = 2 * (x * z - y * w)
        result[row, 2, 1] = 2 * (y * z + x * w)
        result[row, 2, 2] = 1 - 2 * (x * x + y * y)


@njit(cache=True, nogil=True)
def _matrices_of_angles(angles, result):  # type: ignore[no-untyped-def]
    for row in range(len(angles)):
        rot, tilt, psi = np.radians(angles[row, 0]), np.radians(angles[row, 1]), np.radians(angles[row, 2])
        cr, sr, ct, st, cp, sp = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
        result[row, 0, 0] = cr * ct * cp - sr * sp
        result[row, 0, 1] = -cr * ct * sp - sr * cp
        result[row, 0, 2] = cr * st
        result[row, 1, 0] = sr * ct * cp + cr * sp
        result[row, 1, 1] = -sr * ct * sp + cr * cp
        result[row, 1, 2] = sr * st
        result[row, 2, 0] = -st * cp
        result[row, 2, 1] = st * sp
        result[row, 2, 2] = ct


@njit(cache=True, nogil=True)
def _angles_of_matrices(rotation, result):  # type: ignore[no-untyped-def]
    for row in range(len(rotation)):
        r = rotation[row]
        sine = np.hypot(r[0, 2], r[1, 2])
        result[row, 1] = np.degrees(np.arctan2(sine, r[2, 2]))
        if sine < _POLE:
            result[row, 0] = 0.0
            result[row, 2] = np.degrees(np.arctan2(r[1, 0], r[1, 1]))
        else:
            result[row, 0] = np.degrees(np.arctan2(r[1, 2], r[0, 2]))
            result[row, 2] = np.degrees(np.arctan2(r[2, 1], -r[2, 0]))
