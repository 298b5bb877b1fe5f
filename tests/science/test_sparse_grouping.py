"""Grouping on a graph of nearest maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.sparse_grouping import group_sparse


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


def test_groups_without_any_pair_between_them_are_apart():
    distance, sigma, truth = problem(np.random.default_rng(1), [15, 15], 1.0)
    distance[truth[:, None] != truth[None]] = np.nan
    assert adjusted_rand_score(truth, group_sparse(distance, sigma, 2).labels) == 1.0


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


def odd_problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Maps of eight structures, two of them hardly apart, and some that are further from all than those two from each other."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(8), 12))
    apart = np.triu(rng.uniform(0.06, 0.14, (8, 8)), 1)
    apart[2, 3] = 0.025
    odd = rng.permutation(np.flatnonzero(truth < 2))[:5]
    own = np.where(np.isin(np.arange(96), odd), 0.05, 0.0)
    spread = np.triu(rng.uniform(0.6, 1.4, (96, 96)), 1)
    distance = (apart + apart.T)[truth][:, truth] + (own[:, None] + own[None]) * (spread + spread.T)
    noise = np.triu(rng.normal(size=distance.shape) * 0.002, 1)
    distance += noise + noise.T
    # A pose that is wrong here and there.
    for i, j in zip(*np.nonzero(np.triu((truth[:, None] == truth[None]) & (rng.random(distance.shape) < 0.01), 1)), strict=True):
        distance[i, j] = distance[j, i] = 0.15
    unknown = np.triu((truth[:, None] != truth[None]) & (rng.random(distance.shape) > 0.3), 1)
    distance[unknown | unknown.T] = np.nan
    np.fill_diagonal(distance, 0.0)
    return distance, np.full_like(distance, 0.003), truth, odd


@pytest.mark.parametrize("seed", range(4))
def test_single_odd_maps_take_no_group_from_structures_that_differ(seed):
    distance, sigma, truth, _ = odd_problem(seed)
    shared = np.full(len(truth), 0.0015)
    found = group_sparse(distance, sigma, 8, shared_sigma=shared, contrast=(distance, sigma, shared), n_resamplings=0)
    assert adjusted_rand_score(truth, found.labels) == 1.0
