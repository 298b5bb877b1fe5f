"""Grouping on a graph of nearest maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.sparse_grouping import cluster_qr, group_sparse, sparse_affinity


def problem(rng: np.random.Generator, sizes: list[int], compared: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(truth)
    distance = np.where(truth[:, None] == truth[None], 0.0, 0.3) + rng.normal(scale=0.02, size=(len(truth),) * 2)
    distance = (distance + distance.T) / 2
    missing = rng.random(distance.shape) > compared
    missing |= missing.T
    distance[missing] = np.nan
    np.fill_diagonal(distance, 0.0)
    return distance, np.full_like(distance, 0.015), truth


@given(st.integers(0, 1000), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_groups_are_found_when_half_of_the_pairs_are_missing(seed, count):
    rng = np.random.default_rng(seed)
    distance, sigma, truth = problem(rng, list(rng.integers(12, 30, count)), 0.7)
    assert adjusted_rand_score(truth, group_sparse(distance, sigma, count, n_resamplings=0).labels) == 1.0


def test_the_number_of_groups_is_found_and_nothing_is_random():
    distance, sigma, truth = problem(np.random.default_rng(5), [20, 25, 30, 15], 0.6)
    first, second = (
        group_sparse(distance.copy(), sigma.copy(), "auto", n_resamplings=5) for _ in range(2)
    )
    assert first.n_superclasses == 4
    assert np.array_equal(first.labels, second.labels)
    assert adjusted_rand_score(truth, first.labels) == 1.0


def test_affinity_of_a_few_pairs_is_the_self_tuned_gaussian():
    distance = np.full((4, 4), np.nan)
    for i, j, value in ((0, 1, 0.02), (0, 2, 0.05), (0, 3, 0.09), (1, 2, 0.04), (1, 3, 0.08), (2, 3, 0.06)):
        distance[i, j] = distance[j, i] = value
    sigma = np.full((4, 4), 0.01)
    affinity = sparse_affinity(distance.copy(), sigma).toarray()
    scale = np.array([0.09, 0.08, 0.06, 0.09])  # the third neighbour's distance
    expected = np.exp(-(np.maximum(distance - 0.02, 0) ** 2) / (scale[:, None] * scale[None, :]))
    np.testing.assert_allclose(affinity[~np.eye(4, dtype=bool)], expected[~np.eye(4, dtype=bool)], rtol=1e-9)


def test_groups_without_any_pair_between_them_are_apart():
    distance, sigma, truth = problem(np.random.default_rng(1), [15, 15], 1.0)
    distance[truth[:, None] != truth[None]] = np.nan
    assert adjusted_rand_score(truth, group_sparse(distance, sigma, 2).labels) == 1.0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pivoted_qr_reads_exact_indicators(count):
    rng = np.random.default_rng(count)
    truth = np.arange(40) % count
    indicator = (truth[:, None] == np.arange(count)).astype(float)
    rotation, _ = np.linalg.qr(rng.normal(size=(count, count)))
    found = cluster_qr(indicator / np.linalg.norm(indicator, axis=0) @ rotation)
    assert adjusted_rand_score(truth, found) == 1.0


def test_how_sure_each_map_and_each_group_is():
    """Distances of one map are drawn from far wider than those of the others: it alone changes its group now and then."""
    rng = np.random.default_rng(3)
    distance, sigma, truth = problem(rng, [14, 14, 14], 0.8)
    doubtful = 5
    sigma[doubtful] = sigma[:, doubtful] = 0.5
    found = group_sparse(distance, sigma, 3)
    others = np.arange(len(truth)) != doubtful
    assert adjusted_rand_score(truth[others], found.labels[others]) == 1.0
    assert (found.class_stability[others] == 1.0).all()
    assert 0.2 < found.class_stability[doubtful] < 0.95
    assert ((found.superclass_stability > 0.9) & (found.superclass_stability <= 1)).all()
    assert found.superclass_stability.min() < 1.0


def test_the_curve_says_which_numbers_are_stable():
    distance, sigma, _ = problem(np.random.default_rng(4), [20, 20, 20, 20], 0.5)
    found = group_sparse(distance, sigma, 4, n_resamplings=10)
    stable = dict(zip(found.candidate_superclasses.tolist(), found.stability_curve.tolist(), strict=True))
    assert stable[4] == 1.0
    assert max(stable[k] for k in (2, 3, 6, 8)) < 0.98
    assert np.isfinite(found.eigengap_curve[:8]).all()
    assert found.eigengap_curve.argmax() == 3


def test_without_resampling_nothing_is_said_of_stability_and_the_groups_are_the_same():
    distance, sigma, _ = problem(np.random.default_rng(6), [15, 20, 12], 0.5)
    sure, unsure = (group_sparse(distance, sigma, 3, n_resamplings=count) for count in (5, 0))
    assert np.array_equal(sure.labels, unsure.labels)
    assert np.isnan(unsure.class_stability).all()


def test_noise_and_what_resembles_nothing_is_flagged_and_takes_no_group():
    distance, sigma, truth = problem(np.random.default_rng(8), [15, 15, 15], 0.7)
    n_maps = len(truth)
    information = np.full(n_maps, 50.0)
    noise, alone = 4, 11
    information[noise] = 0.5
    distance[noise] = distance[:, noise] = np.where(np.isfinite(distance[noise]), 0.1, np.nan)
    distance[alone] = distance[:, alone] = np.where(np.isfinite(distance[alone]), 0.9, np.nan)
    found = group_sparse(distance, sigma, 3, information=information, n_resamplings=10)
    assert np.flatnonzero(found.junk).tolist() == [noise, alone]
    assert "noise" in found.reason[noise]
    assert "resembles no other map" in found.reason[alone]
    others = np.setdiff1d(np.arange(n_maps), [noise, alone])
    assert adjusted_rand_score(truth[others], found.labels[others]) == 1.0
    assert found.class_stability[noise] == found.class_stability[alone] == 0.0


def test_one_structure_is_an_answer():
    distance, sigma, _ = problem(np.random.default_rng(9), [60], 0.4)
    assert group_sparse(distance, 2 * sigma, "auto", n_resamplings=5).n_superclasses == 1
