"""Fine maps tell their hand, blurred and symmetric ones do not; pairs that cannot tell have no voice."""

import numpy as np

from regroup_dask.science import align
from regroup_dask.science.fourier import shell_counts
from regroup_dask.science.frames import synchronize
from regroup_dask.science.hands import (
    agree_on_hands,
    hand_evidence,
    hand_weights,
    independent_coefficients,
    judge_by_structure,
)
from regroup_dask.science.rotations import rotation_angle_degrees
from tests.science.particles import blobs, random_rotation, render


def _evidence(width, flatten=False):
    rng = np.random.default_rng(2)
    centres, masses = blobs(rng, radius=12.0, count=50)
    if flatten:  # all in a plane: a map that is its own mirror image, up to a turn
        centres[:, 2] = 0
    plan = align.plan_alignment(
        box=40, voxel_size_angstrom=2.0, particle_radius_angstrom=30.0, maximum_shift_angstrom=20.0, hand="detect"
    )
    fixed = render(centres, masses, box=40, width=width, rotation=random_rotation(rng), mirrored=True)
    moving = render(centres, masses, box=40, width=width)
    noise = 0.02 * moving.max() * rng.normal(size=(2, 40, 40, 40)).astype(np.float32)
    found = align.align_pair(
        align.prepare_map(fixed + noise[0], plan), align.prepare_map(moving + noise[1], plan), plan
    )
    number = independent_coefficients(found.power_fixed, found.power_moving, shell_counts(40), filled_fraction=0.3)
    return found, hand_evidence(found.correlation, found.correlation_other_hand, number)


def test_a_fine_map_tells_its_hand():
    found, evidence = _evidence(1.6)
    assert found.mirrored
    assert evidence.told
    assert hand_weights(evidence) > 0


def test_a_map_that_is_its_own_mirror_image_does_not():
    _, evidence = _evidence(1.6, flatten=True)
    assert not evidence.told
    assert hand_weights(evidence) == 0


def test_hands_that_were_not_compared_have_no_voice():
    evidence = hand_evidence(np.array([0.9, 0.9]), np.array([np.nan, 0.5]), 500.0)
    np.testing.assert_array_equal(evidence.told, [False, True])
    assert hand_weights(evidence)[0] == 0


def test_independent_coefficients_of_white_maps_are_their_number():
    counts = shell_counts(16)
    assert np.isclose(independent_coefficients(counts, 3 * counts, counts), 0.5 * counts[1:].sum())


def test_pairs_without_a_voice_do_not_turn_hands():
    rng = np.random.default_rng(3)
    n = 6
    rotations = np.array([random_rotation(rng) for _ in range(n)])
    relative = np.einsum("iba,jbc->ijac", rotations, rotations)
    mirrored = np.triu(rng.random((n, n)) < 0.4, 1)  # hearsay
    frames = synchronize(
        relative, np.zeros((n, n, 3)), mirrored, np.ones((n, n)), reference=0, hand_weight=np.zeros((n, n))
    )
    assert not frames.mirrored.any()
    assert set(frames.inconsistent) == {(int(i), int(j)) for i, j in np.argwhere(mirrored)}
    voice = np.triu(np.ones((n, n)), 1)
    mirrored = np.zeros((n, n), bool)
    mirrored[:5, 5] = True
    frames = synchronize(relative, np.zeros((n, n, 3)), mirrored, np.ones((n, n)), reference=0, hand_weight=voice)
    np.testing.assert_array_equal(frames.mirrored, [False] * 5 + [True])
    for k in range(n):
        assert rotation_angle_degrees(frames.rotation[k], rotations[0].T @ rotations[k]) < 1e-3


def test_each_part_keeps_the_hand_of_most_of_it():
    other = np.array([True, False, False, True, True, False, True])
    part = np.array([0, 0, 0, 1, 1, 1, 2])
    mirrored = other[:, None] != other[None, :]
    weight = np.where(part[:, None] == part[None, :], 1.0, 0.0) * ~np.eye(7, dtype=bool)
    agreed = agree_on_hands(mirrored, weight)
    np.testing.assert_array_equal(agreed.other_hand, [True, False, False, False, False, True, False])
    np.testing.assert_array_equal(agreed.part, part)
    heavy = agree_on_hands(mirrored, weight, np.array([5, 2, 2, 1, 1, 3, 1]))
    np.testing.assert_array_equal(heavy.other_hand, [False, True, True, True, True, False, False])
    # of two hands that count the same the largest map's stays
    even = agree_on_hands(mirrored[:3, :3], weight[:3, :3], np.array([4, 3, 1]))
    np.testing.assert_array_equal(even.other_hand, [False, True, True])


def test_hands_are_right_in_spite_of_wrong_pairs():
    rng = np.random.default_rng(4)
    other = rng.random(12) < 0.35
    wrong = np.triu(rng.random((12, 12)) < 0.2, 1)
    mirrored = (other[:, None] != other[None, :]) ^ wrong ^ wrong.T
    weight = np.ones((12, 12)) - np.eye(12)
    np.testing.assert_array_equal(agree_on_hands(mirrored, weight).other_hand, other)


def test_maps_of_different_structures_tell_less():
    found, other = np.array([0.9, 0.67, 0.67, 0.8]), np.array([0.6, 0.6, 0.5, 0.6])
    evidence = hand_evidence(found, other, np.array([500.0, 4000.0, 6000.0, 500.0]))
    assert evidence.told.all()
    alike = np.array([0.99, 0.67, 0.67, np.nan])
    sure, unsure = np.full(4, 25.0), np.array([3.0, 3.0, 3.0, np.nan])
    judged = judge_by_structure(evidence, alike, found, other, sure)
    # one structure; another one; another one, far beyond chance; nothing known
    np.testing.assert_array_equal(judged.told, [True, False, True, False])
    assert 12 < evidence.deviations[2] < 20
    np.testing.assert_array_equal(judge_by_structure(evidence, alike, found, other, unsure).told, [True, False, False, False])
    symmetric = hand_evidence(found, other, np.full(4, 20000.0))
    assert symmetric.deviations[2] > 20
    np.testing.assert_array_equal(judge_by_structure(symmetric, alike, found, other, unsure).told[:3], [True, False, True])
