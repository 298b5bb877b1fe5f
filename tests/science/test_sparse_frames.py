"""Poses of a sparse graph of pairs come back exactly, part by part, in spite of wrong pairs, and those are named."""

import numpy as np
import pytest

from regroup_dask.science.hands import agree_on_hands
from regroup_dask.science.rotations import Pose, compose_pose, invert_pose, rotation_angle_degrees
from regroup_dask.science.sparse_frames import (
    cycle_residual_degrees,
    predicted_pairs,
    synchronize_pairs,
)
from regroup_dask.science.sparse_hands import agree_on_listed_hands
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
    weight = rng.uniform(0.2, 1, len(pairs))
    agreed = agree_on_listed_hands(pairs, mirrored, weight, sizes=np.ones(n, int))
    true_hand = np.array([pose.mirrored for pose in poses])
    for part in range(parts):
        members = np.flatnonzero(agreed.part == part)
        assert agreed.other_hand[members].sum() <= len(members) / 2
        assert len(set(agreed.other_hand[members] ^ true_hand[members])) == 1
    frames = synchronize_pairs(
        pairs, rotation, shift, mirrored, weight, priority=priority, other_hand=agreed.other_hand
    )
    assert frames.part.max() + 1 == parts
    for part in range(parts):
        members = np.flatnonzero(frames.part == part)
        root = members[np.argmax(priority[members])]
        np.testing.assert_array_equal(frames.rotation[root], np.eye(3))
        np.testing.assert_array_equal(frames.shift_angstrom[root], 0)
        for k in members:
            exact = compose_pose(invert_pose(poses[root]), poses[k])
            # The frame is the root's, inverted where the root itself is.
            exact = compose_pose(Pose(np.eye(3), np.zeros(3), bool(frames.mirrored[root])), exact)
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
    relative = _relative(poses, pairs)
    agreed = agree_on_listed_hands(pairs, relative[2], np.zeros(5), sizes=np.ones(6, int))
    assert not agreed.other_hand.any()
    assert agreed.part.tolist() == list(range(6))
    frames = synchronize_pairs(pairs, *relative, weight, priority=np.arange(6)[::-1], other_hand=agreed.other_hand)
    assert frames.part.tolist() == [0, 0, 0, 1, 2, 2]
    assert np.isnan(frames.residual_degrees[[2, 3]]).all()


@pytest.mark.parametrize("seed", range(4))
def test_hands_of_a_list_are_those_of_the_table(seed):
    rng = np.random.default_rng(seed)
    n = 30
    table = np.zeros((n, n))
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.15])
    truth, weight = rng.random(n) < 0.4, rng.uniform(1, 9, len(pairs))
    mirrored = truth[pairs[:, 0]] ^ truth[pairs[:, 1]] ^ (rng.random(len(pairs)) < 0.05)
    told = np.zeros((n, n), bool)
    for (i, j), one, other in zip(pairs, weight, mirrored, strict=True):
        table[i, j] = table[j, i] = one
        told[i, j] = told[j, i] = other
    sizes = rng.integers(1, 1000, n)
    dense, listed = agree_on_hands(told, table, sizes), agree_on_listed_hands(pairs, mirrored, weight, sizes=sizes)
    np.testing.assert_array_equal(listed.other_hand, dense.other_hand)
    np.testing.assert_array_equal(listed.part, dense.part)


def test_maps_of_which_no_two_were_compared_stay_as_they_are():
    none = np.zeros((0, 2), np.int64)
    solved = synchronize_pairs(
        none,
        *(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros(0, bool), np.zeros(0)),
        priority=np.array([3, 2, 1]),
        other_hand=np.zeros(3, bool),
    )
    np.testing.assert_array_equal(solved.rotation, np.tile(np.eye(3), (3, 1, 1)))
    np.testing.assert_array_equal(solved.shift_angstrom, np.zeros((3, 3)))
    closed = cycle_residual_degrees(none, np.zeros((0, 3, 3)), np.zeros(0, bool), np.zeros(0), n_maps=3)
    assert len(closed) == 0
