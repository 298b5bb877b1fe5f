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
    assert adjusted_rand_score(truth, group_sparse(distance, sigma, count).labels) == 1.0


def test_the_number_of_groups_is_found_and_nothing_is_random():
    distance, sigma, truth = problem(np.random.default_rng(5), [20, 25, 30, 15], 0.6)
    first, second = group_sparse(distance, sigma, "auto"), group_sparse(distance.copy(), sigma.copy(), "auto")
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
