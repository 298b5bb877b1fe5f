"""Rotations and poses of maps: quaternions, angles, and the algebra of poses with a possible change of hand.

A pose ``(R, t, mirrored)`` is active: ``y = R x + t``, vectors ``(x, y, z)`` in angstrom from the origin
voxel. With ``mirrored`` the point x is replaced by -x (inversion through the origin) before R and t act.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation


class Pose(NamedTuple):
    """A rigid movement of a map, with or without inversion of its hand.

    Attributes
    ----------
    rotation : numpy.ndarray
        float64 (3, 3), proper rotation acting on ``(x, y, z)``.
    shift_angstrom : numpy.ndarray
        float64 (3,), ``(x, y, z)``.
    mirrored : bool
        True: x is replaced by -x before rotation and shift.
    """

    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: bool = False


def identity_pose() -> Pose:
    """Return the pose that moves nothing."""
    return Pose(np.eye(3), np.zeros(3), False)


def compose_pose(second: Pose, first: Pose) -> Pose:
    """Return the pose that applies `first` and then `second`.

    With s = -1 for a mirrored pose and +1 otherwise, ``y = R2 s2 (R1 s1 x + t1) + t2``.
    """
    sign = -1.0 if second.mirrored else 1.0
    return Pose(
        second.rotation @ first.rotation,
        sign * (second.rotation @ first.shift_angstrom) + second.shift_angstrom,
        bool(second.mirrored) != bool(first.mirrored),
    )


def invert_pose(pose: Pose) -> Pose:
    """Return the pose that undoes `pose`: ``x = s R^T (y - t)``."""
    sign = -1.0 if pose.mirrored else 1.0
    return Pose(pose.rotation.T.copy(), -sign * (pose.rotation.T @ pose.shift_angstrom), bool(pose.mirrored))


def apply_pose(pose: Pose, points: np.ndarray) -> np.ndarray:
    """Move points, float (..., 3) as ``(x, y, z)`` in angstrom, by a pose."""
    sign = -1.0 if pose.mirrored else 1.0
    return sign * points @ pose.rotation.T + pose.shift_angstrom


def matrix_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """Return unit quaternions (..., 4), order x, y, z, w with w >= 0, of rotation matrices (..., 3, 3)."""
    rotation = np.asarray(rotation, dtype=np.float64)
    flat = Rotation.from_matrix(rotation.reshape(-1, 3, 3)).as_quat()
    return canonical_quaternion(flat).reshape(*rotation.shape[:-2], 4)


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return rotation matrices (..., 3, 3) of quaternions (..., 4), order x, y, z, w."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    flat = Rotation.from_quat(quaternion.reshape(-1, 4)).as_matrix()
    return flat.reshape(*quaternion.shape[:-1], 3, 3)


def canonical_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Choose of q and -q (the same rotation) the one whose last nonzero component is positive."""
    quaternion = np.array(quaternion, dtype=np.float64)
    sign = np.zeros(quaternion.shape[:-1])
    for axis in (3, 2, 1, 0):
        sign = np.where(sign == 0, np.sign(quaternion[..., axis]), sign)
    return quaternion * np.where(sign < 0, -1.0, 1.0)[..., None] + 0.0


def rotation_angle_degrees(first: np.ndarray, second: np.ndarray | None = None) -> np.ndarray:
    """Return the angle between rotations (..., 3, 3), or of one rotation, in degrees from 0 to 180.

    The angle comes from the Frobenius distance below 90 degrees (exact near 0, where the arc cosine of the
    trace loses digits) and from the trace above.
    """
    first = np.asarray(first, dtype=np.float64)
    second = np.eye(3) if second is None else np.asarray(second, dtype=np.float64)
    squared = np.sum((first - second) ** 2, axis=(-2, -1))
    half_sine = np.sqrt(np.clip(squared / 8.0, 0.0, 1.0))
    cosine = 1.0 - squared / 4.0
    small = 2.0 * np.arcsin(half_sine)
    return np.degrees(np.where(cosine > 0, small, np.arccos(np.clip(cosine, -1.0, 1.0))))


def rotation_vector_to_matrix(vector: np.ndarray) -> np.ndarray:
    """Return exp([v]x) for a rotation vector (3,) in radians, by Rodrigues' formula."""
    angle = float(np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2))
    skew = np.array(
        [[0.0, -vector[2], vector[1]], [vector[2], 0.0, -vector[0]], [-vector[1], vector[0], 0.0]]
    )
    if angle < 1e-6:
        return np.eye(3) + skew + 0.5 * (skew @ skew)
    return np.eye(3) + np.sin(angle) / angle * skew + (1.0 - np.cos(angle)) / angle**2 * (skew @ skew)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the proper rotations nearest (Frobenius) to matrices (..., 3, 3): orthogonal Procrustes."""
    left, _, right = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    sign = np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)
    left = left.copy()
    left[..., :, 2] *= sign[..., None]
    return left @ right
