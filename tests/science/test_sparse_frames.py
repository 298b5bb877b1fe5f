"""Poses of a sparse graph of pairs come back exactly, part by part, in spite of wrong pairs, and those are named."""

import numpy as np
import pytest

from regroup_dask.science.rotations import Pose, compose_pose, invert_pose, rotation_angle_degrees
from regroup_dask.science.sparse_frames import predicted_pairs, synchronize_pairs
from tests.science.particles import random_rotation


def _truth(rng, n, hands):
    return [Pose(random_rotation(rng), rng.normal(size=3) * 20, bool(hands and rng.random() < 0.4)) for _ in range(n)]


def _graph(rng, n, parts, neighbours):
    """Pairs within each of some parts: a ring, so that it holds together, and chords."""
    pairs = set()
    for part in np.array_split(rng.permutation(n), parts):
        ring = [(part[k], part[(k + 1) % len(part)]) for k in range(len(part))]
        chords = [(one, other) for one in part for other in rng.choice(part, min(neighbours, len(part)), replace=False)]
        pairs |= {(min(i, j), max(i, j)) for i, j in [*ring, *chords] if i != j}
    return np.array(sorted(pairs))


def _relative(poses, pairs):
    found = [compose_pose(invert_pose(poses[i]), poses[j]) for i, j in pairs]
    return (
        np.array([pose.rotation for pose in found]),
        np.array([pose.shift_angstrom for pose in found]),
        np.array([pose.mirrored for pose in found]),
    )


@pytest.mark.parametrize("hands", [False, True])
@pytest.mark.parametrize(
    ("n", "parts", "neighbours", "wrong"), [(80, 1, 10, 0.15), (90, 5, 6, 0.1), (40, 20, 1, 0.0), (400, 3, 8, 0.2)]
)
def test_exact_poses_come_back_with_outliers(hands, n, parts, neighbours, wrong):
    rng = np.random.default_rng(n + hands)
    poses = _truth(rng, n, hands)
    pairs = _graph(rng, n, parts, neighbours)
    rotation, shift, mirrored = _relative(poses, pairs)
    broken = rng.choice(len(pairs), int(wrong * len(pairs)), replace=False)
    for row in broken:
        rotation[row], shift[row] = random_rotation(rng), rng.normal(size=3) * 20
    priority = rng.integers(0, 5, n)
    frames = synchronize_pairs(pairs, rotation, shift, mirrored, rng.uniform(0.2, 1, len(pairs)), priority=priority)
    assert frames.part.max() + 1 == parts
    for part in range(parts):
        members = np.flatnonzero(frames.part == part)
        root = members[np.argmax(priority[members])]
        np.testing.assert_array_equal(frames.rotation[root], np.eye(3))
        np.testing.assert_array_equal(frames.shift_angstrom[root], 0)
        for k in members:
            exact = compose_pose(invert_pose(poses[root]), poses[k])
            assert frames.mirrored[k] == exact.mirrored
            assert rotation_angle_degrees(frames.rotation[k], exact.rotation) < 0.1
            np.testing.assert_allclose(frames.shift_angstrom[k], exact.shift_angstrom, atol=0.1)
    assert set(frames.inconsistent) == set(broken)
    exact_rotation, exact_shift, exact_hand = _relative(poses, pairs[broken])
    predicted = predicted_pairs(frames, *pairs[broken].T)
    if len(broken):
        assert rotation_angle_degrees(predicted[0], exact_rotation).max() < 0.2
        np.testing.assert_allclose(predicted[1], exact_shift, atol=0.3)
        np.testing.assert_array_equal(predicted[2], exact_hand)


def test_pairs_without_weight_join_nothing_and_hands_that_nothing_tells_stay():
    rng = np.random.default_rng(2)
    poses = _truth(rng, 6, hands=True)
    pairs = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])
    weight = np.array([1.0, 1.0, 0.0, np.nan, 1.0])
    frames = synchronize_pairs(
        pairs, *_relative(poses, pairs), weight, priority=np.arange(6)[::-1], hand_weight=np.zeros(5)
    )
    assert frames.part.tolist() == [0, 0, 0, 1, 2, 2]
    assert not frames.mirrored.any()
    assert np.isnan(frames.residual_degrees[[2, 3]]).all()
