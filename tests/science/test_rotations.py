"""Poses form a group, quaternions are canonical, angles are exact near zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.science.rotations import (
    Pose,
    apply_pose,
    canonical_quaternion,
    compose_pose,
    identity_pose,
    invert_pose,
    matrix_to_quaternion,
    nearest_rotation,
    quaternion_to_matrix,
    rotation_angle_degrees,
    rotation_vector_to_matrix,
)
from tests.science.particles import random_rotation


def _pose(seed):
    rng = np.random.default_rng(seed)
    return Pose(random_rotation(rng), rng.normal(size=3) * 10, bool(rng.random() < 0.5))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_composition_is_applying_one_after_the_other(first, second):
    a, b = _pose(first), _pose(second)
    points = np.random.default_rng(first).normal(size=(4, 3))
    np.testing.assert_allclose(
        apply_pose(compose_pose(b, a), points), apply_pose(b, apply_pose(a, points)), atol=1e-9
    )
    back = compose_pose(invert_pose(a), a)
    np.testing.assert_allclose(back.rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(back.shift_angstrom, 0, atol=1e-9)
    assert not back.mirrored


def test_identity_moves_nothing():
    points = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(apply_pose(identity_pose(), points), points)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_quaternions_return_and_are_canonical(seed):
    rng = np.random.default_rng(seed)
    matrices = np.array([random_rotation(rng) for _ in range(4)]).reshape(2, 2, 3, 3)
    quaternion = matrix_to_quaternion(matrices)
    assert quaternion.shape == (2, 2, 4)
    assert (quaternion[..., 3] >= 0).all()
    np.testing.assert_allclose(quaternion_to_matrix(quaternion), matrices, atol=1e-12)


def test_half_turns_have_one_sign():
    for axis in np.eye(3):
        q = np.append(axis, 0.0)
        np.testing.assert_array_equal(canonical_quaternion(-q), canonical_quaternion(q))


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.01, 10.0, 90.0, 170.0, 179.99, 180.0])
def test_angles(degrees):
    rng = np.random.default_rng(1)
    base, axis = random_rotation(rng), rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    turned = Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix() @ base
    assert rotation_angle_degrees(turned, base) == pytest.approx(degrees, abs=1e-5 if degrees > 100 else 1e-8)


def test_rotation_vectors():
    for vector in (np.zeros(3), np.array([1e-8, 0, 0]), np.array([0.3, -1.2, 0.7])):
        np.testing.assert_allclose(
            rotation_vector_to_matrix(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12
        )


def test_nearest_rotation_is_proper():
    rng = np.random.default_rng(2)
    base = random_rotation(rng)
    np.testing.assert_allclose(nearest_rotation(2.5 * base), base, atol=1e-12)
    assert np.linalg.det(nearest_rotation(-base)) == pytest.approx(1.0)
