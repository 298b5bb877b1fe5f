"""Synchronization recovers exact poses in spite of wrong pairs, and names those."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.science.frames import predicted_pair, star_frames, synchronize
from regroup_dask.science.rotations import Pose, compose_pose, invert_pose, rotation_angle_degrees
from tests.science.particles import random_rotation


def _truth(rng, n, hands=False):
    return [
        Pose(random_rotation(rng), rng.normal(size=3) * 20, bool(hands and rng.random() < 0.4))
        for _ in range(n)
    ]


def _pairs(poses):
    n = len(poses)
    rotation, shift, mirrored = (
        np.full((n, n, 3, 3), np.nan),
        np.full((n, n, 3), np.nan),
        np.zeros((n, n), bool),
    )
    for i in range(n):
        for j in range(i + 1, n):
            pose = compose_pose(invert_pose(poses[i]), poses[j])
            rotation[i, j], shift[i, j], mirrored[i, j] = pose
    return rotation, shift, mirrored


def _into_reference(poses, reference):
    return [compose_pose(invert_pose(poses[reference]), pose) for pose in poses]


@pytest.mark.parametrize("hands", [False, True])
@pytest.mark.parametrize("wrong", [0, 12])
def test_exact_poses_come_back_with_outliers(hands, wrong):
    rng = np.random.default_rng(wrong + hands)
    n, reference = 10, 3
    poses = _truth(rng, n, hands)
    rotation, shift, mirrored = _pairs(poses)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    broken = [pairs[k] for k in rng.choice(len(pairs), wrong, replace=False)]
    for i, j in broken:
        rotation[i, j], shift[i, j] = random_rotation(rng), rng.normal(size=3) * 20
        if hands:
            mirrored[i, j] ^= bool(rng.random() < 0.5)
    frames = synchronize(rotation, shift, mirrored, np.ones((n, n)), reference=reference)
    np.testing.assert_array_equal(frames.rotation[reference], np.eye(3))
    np.testing.assert_array_equal(frames.shift_angstrom[reference], 0)
    for k, pose in enumerate(_into_reference(poses, reference)):
        assert frames.mirrored[k] == pose.mirrored
        assert rotation_angle_degrees(frames.rotation[k], pose.rotation) < 0.1
        np.testing.assert_allclose(frames.shift_angstrom[k], pose.shift_angstrom, atol=0.1)
    assert set(frames.inconsistent) == set(broken)
    for i, j in broken:
        exact = compose_pose(invert_pose(poses[i]), poses[j])
        predicted = predicted_pair(frames, i, j)
        assert predicted.mirrored == exact.mirrored
        assert rotation_angle_degrees(predicted.rotation, exact.rotation) < 0.1
        np.testing.assert_allclose(predicted.shift_angstrom, exact.shift_angstrom, atol=0.1)


def test_star_frames_are_the_row_of_the_reference():
    rng = np.random.default_rng(5)
    poses = _truth(rng, 6, hands=True)
    frames = star_frames(*_pairs(poses), np.ones((6, 6)), reference=4)
    for k, pose in enumerate(_into_reference(poses, 4)):
        assert frames.mirrored[k] == pose.mirrored
        np.testing.assert_allclose(frames.rotation[k], pose.rotation, atol=1e-12)
        np.testing.assert_allclose(frames.shift_angstrom[k], pose.shift_angstrom, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_maps(n):
    poses = _truth(np.random.default_rng(n), n)
    frames = synchronize(*_pairs(poses), np.ones((n, n)), reference=n - 1)
    for k, pose in enumerate(_into_reference(poses, n - 1)):
        assert rotation_angle_degrees(frames.rotation[k], pose.rotation) < 1e-4
        np.testing.assert_allclose(frames.shift_angstrom[k], pose.shift_angstrom, atol=1e-4)


def test_pairs_that_were_not_compared_do_not_matter():
    rng = np.random.default_rng(7)
    poses = _truth(rng, 8)
    rotation, shift, mirrored = _pairs(poses)
    weight = np.ones((8, 8))
    for i, j in [(0, 5), (2, 3), (1, 7)]:
        weight[i, j], rotation[i, j], shift[i, j] = np.nan, np.nan, np.nan
    frames = synchronize(rotation, shift, mirrored, weight, reference=0)
    assert frames.inconsistent == []
    for k, pose in enumerate(_into_reference(poses, 0)):
        assert rotation_angle_degrees(frames.rotation[k], pose.rotation) < 1e-3


@pytest.mark.parametrize("symmetry", ["C2", "C4", "D2", "O"])
def test_maps_of_a_symmetric_structure_lie_on_one_of_its_equal_poses_and_never_between(symmetry):
    """Each pair names one of the equal poses by chance, so cycles do not close; a mean of them is no pose of the structure."""
    equal = Rotation.create_group(symmetry)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n = 7
        lies = Rotation.random(n, random_state=seed)
        rotation = np.tile(np.eye(3), (n, n, 1, 1))
        for i in range(n):
            for j in range(i + 1, n):
                error = Rotation.from_rotvec(np.radians(0.3) * rng.normal(size=3))
                rotation[i, j] = (lies[i] * equal[int(rng.integers(len(equal)))] * error * lies[j].inv()).as_matrix()
        solved = synchronize(
            rotation, np.zeros((n, n, 3)), np.zeros((n, n), bool), rng.uniform(0.8, 1.0, (n, n)), reference=0
        )
        for index in range(n):
            poses = (lies[0] * equal * lies[index].inv()).as_matrix()
            assert rotation_angle_degrees(solved.rotation[index], poses).min() < 2.0
