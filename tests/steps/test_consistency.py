"""Pairs that the others contradict are aligned again, the better score wins, and the table says which they were."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.science.align import plan_alignment
from regroup_dask.steps.consistency import agree_on_poses
from regroup_dask.steps.pair_table import collect_pairs

N_MAPS, SHELLS = 5, 4


def relative_poses(pairs):
    """Poses that the frames of five maps imply; the truth of these tests."""
    frame = Rotation.random(N_MAPS, random_state=3).as_matrix()
    place = np.random.default_rng(4).normal(scale=8.0, size=(N_MAPS, 3))
    i, j = np.transpose(pairs)
    rotation = np.einsum("nba,nbc->nac", frame[i], frame[j])
    return rotation, np.einsum("nba,nb->na", frame[i], place[j] - place[i])


def tile(pairs, correlation):
    rotation, shift = relative_poses(pairs)
    return {
        "pairs": np.array(pairs),
        "rotation": rotation,
        "shift_angstrom": shift,
        "mirrored": np.zeros(len(pairs), bool),
        "correlation": np.full(len(pairs), correlation),
        "correlation_other_hand": np.full(len(pairs), np.nan),
        "hand_lead": np.zeros(len(pairs)),
        "confidence": np.full(len(pairs), 9.0),
        **{name: np.ones((len(pairs), SHELLS)) for name in ("cross_power", "power_fixed", "power_moving")},
    }


class Aligner:
    """Stands for the cluster: refines to the truth, with a correlation that the test chooses."""

    def __init__(self, correlation):
        self.correlation, self.asked = correlation, []

    def run(self, stage, label, function, units):
        self.asked += [(pair, start) for unit in units for pair, start in zip(unit.pairs, unit.starts, strict=True)]
        return [tile(list(unit.pairs), self.correlation) for unit in units]


@pytest.mark.parametrize(("found_again", "mended"), [(0.9, True), (0.3, False)])
def test_a_contradicted_pair_is_mended_and_marked_only_if_it_scores_better(found_again, mended):
    pairs = [(i, j) for i in range(N_MAPS) for j in range(i + 1, N_MAPS)]
    first = tile(pairs, 0.8)
    wrong = pairs.index((1, 3))
    first["rotation"][wrong] = Rotation.from_rotvec([0.0, 2.0, 0.5]).as_matrix() @ first["rotation"][wrong]
    first["correlation"][wrong] = 0.4
    table = collect_pairs(N_MAPS, [first])
    aligner = Aligner(found_again)
    table = agree_on_poses(
        table,
        SimpleNamespace(kept=np.arange(N_MAPS), kept_sizes=np.ones(N_MAPS), reference=0),
        None,
        None,
        aligner,
        token="",
        hand_trust=np.zeros((N_MAPS, N_MAPS)),
        names=[f"map {index}" for index in range(N_MAPS)],
    )
    rotation, shift = relative_poses([(1, 3)])
    assert [pair for pair, _ in aligner.asked] == [(1, 3)]
    start = aligner.asked[0][1]
    np.testing.assert_allclose(start[0], rotation[0], atol=0.02)  # the others predict the truth
    np.testing.assert_allclose(start[1], shift[0], atol=0.5)
    marked = np.zeros((N_MAPS, N_MAPS), bool)
    marked[1, 3] = marked[3, 1] = mended
    np.testing.assert_array_equal(table.corrected, marked)
    assert (np.abs(table.rotation[1, 3] - rotation[0]).max() < 1e-6) == mended


def test_a_pair_that_cannot_tell_its_hand_is_searched_again_in_the_hand_of_the_others():
    pairs = [(i, j) for i in range(N_MAPS) for j in range(i + 1, N_MAPS)]
    first = tile(pairs, 0.8)
    wrong = pairs.index((1, 3))
    first["mirrored"][wrong] = True
    table = collect_pairs(N_MAPS, [first])
    asked = []

    def run(stage, label, function, units):
        asked.extend((unit.pairs, unit.starts, unit.plan.hand) for unit in units)
        return [tile(list(unit.pairs), 0.7) for unit in units]

    agree_on_poses(
        table,
        SimpleNamespace(kept=np.arange(N_MAPS), kept_sizes=np.ones(N_MAPS), reference=0),
        plan_alignment(box=32, voxel_size_angstrom=4.0, maximum_shift_angstrom=20.0, hand="detect"),
        None,
        SimpleNamespace(run=run),
        token="",
        hand_trust=np.zeros((N_MAPS, N_MAPS)),
        names=[f"map {index}" for index in range(N_MAPS)],
    )
    assert asked == [(((1, 3),), None, "off")]
    assert not table.mirrored.any()
    assert table.correlation[1, 3] == 0.7  # the hand of the others goes before a score that cannot tell it
    assert table.correlation_other_hand[1, 3] == 0.8
