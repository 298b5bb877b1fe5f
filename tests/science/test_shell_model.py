import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.clustering import average_linkage
from regroup_dask.science.reliability import Reliability
from regroup_dask.science.shell_model import (
    ShellComparison,
    fit_shell_model,
    prepare_shells,
    signal_and_structures,
    structures,
    total_cost,
)
from regroup_dask.science.shell_search import search_shell_model

COEFFICIENTS = np.array([1.0, 40, 80, 160, 300, 500])


def _maps(seed, sizes, *, apart=0.1):
    """Shell correlations of maps drawn from the model itself: structures that correlate by ``1 - apart``."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    n, n_shells = len(labels), len(COEFFICIENTS)
    q = 1 / (1 + np.exp(rng.uniform(-3, 0.5, n))[:, None] * np.linspace(0.05, 1, n_shells)[None])
    fsc = np.full((n, n, n_shells), np.nan)
    for s, count in enumerate(COEFFICIENTS.astype(int)):
        common = rng.normal(size=(1, 2 * count))
        own = rng.normal(size=(len(sizes), 2 * count))
        structure = np.sqrt(1 - apart) * common + np.sqrt(apart) * own
        noise = rng.normal(size=(n, 2 * count))
        fsc[:, :, s] = np.corrcoef(np.sqrt(q[:, s, None]) * structure[labels] + np.sqrt(1 - q[:, s, None]) * noise)
        np.fill_diagonal(fsc[:, :, s], np.nan)
    zeros = np.zeros((n, n_shells))
    return labels, ShellComparison(fsc, Reliability(q, zeros + 0.01, np.zeros(n), zeros, ("maps",) * n), COEFFICIENTS)


def test_cost_is_the_likelihood_of_the_whole_matrix():
    labels, comparison = _maps(1, (4, 3, 2))
    shells = prepare_shells(comparison)
    state, gamma = signal_and_structures(shells, labels, 3)
    direct = 0.0
    for s in range(len(state.r)):
        covariance = state.r[s][:, None] * gamma[s][labels][:, labels] * state.r[s][None] + np.diag(state.noise[s])
        misfit = np.trace(np.linalg.solve(covariance, state.correlation[s]))
        direct += 2 * state.coefficients[s] * (np.linalg.slogdet(covariance)[1] + misfit)
    assert total_cost(state, gamma, labels) - state.prior_cost == pytest.approx(direct, rel=1e-9)


def _direct_placements(state, gamma, labels, i):
    """Minus twice the log density of map i given all others as each structure, from dense covariances."""
    others = np.flatnonzero(np.arange(len(labels)) != i)
    costs = np.zeros(gamma.shape[-1])
    for structure in range(len(costs)):
        as_if = labels.copy()
        as_if[i] = structure
        for s in range(len(state.r)):
            covariance = state.r[s][:, None] * gamma[s][as_if][:, as_if] * state.r[s] + np.diag(state.noise[s])
            weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, i])
            variance = covariance[i, i] - covariance[i, others] @ weights
            contrast = np.eye(len(labels))[i]
            contrast[others] = -weights
            misfit = contrast @ state.correlation[s] @ contrast
            costs[structure] += 2 * state.coefficients[s] * (np.log(variance) + misfit / variance)
    return costs


@pytest.mark.parametrize("sizes", [(4, 3, 2), (1, 5, 1)])
def test_placing_a_map_is_its_density_given_all_others(sizes):
    """Also of a map that is the only one of its structure."""
    labels, comparison = _maps(4, sizes)
    found = fit_shell_model(prepare_shells(comparison), labels)
    state, gamma = signal_and_structures(prepare_shells(comparison), found.labels, len(sizes))
    direct = [_direct_placements(state, gamma, found.labels, i) for i in range(len(labels))]
    np.testing.assert_allclose(found.placement_costs, direct, rtol=1e-7, atol=1e-6)


def test_signal_is_judged_by_what_all_other_maps_say():
    """Half of the signal that a map was said to have: the others, without it, correct most of that."""
    labels, comparison = _maps(6, (6, 5))
    q = comparison.reliability.signal_fraction.copy()
    right = np.sqrt(q[2, 1:])
    q[2] *= 0.5
    wrong = comparison._replace(reliability=comparison.reliability._replace(signal_fraction=q))
    unsure = np.full(q.shape, 1.0)
    wrong = wrong._replace(reliability=wrong.reliability._replace(noise_variance=unsure))
    state, _ = signal_and_structures(prepare_shells(wrong), labels, 2)
    before = np.abs(np.sqrt(q[2, 1:]) - right).mean()
    assert np.abs(state.r[:, 2] - right).mean() < 0.5 * before


def test_correlations_of_structures_are_those_drawn():
    labels, comparison = _maps(2, (6, 6, 6), apart=0.2)
    state, _ = signal_and_structures(prepare_shells(comparison), labels, 3)
    gamma, _ = structures(state, labels, 3)
    above = np.triu_indices(3, 1)
    assert np.abs(gamma[-1][above] - 0.8).max() < 0.05
    assert np.allclose(np.einsum("skk->sk", gamma), 1)
    assert np.linalg.eigvalsh(gamma).min() > 0


@pytest.mark.parametrize("sizes", [(4, 3, 2), (5, 1, 1), (8, 8, 4, 2)])
def test_search_finds_the_structures_from_a_wrong_start(sizes):
    labels, comparison = _maps(3, sizes)
    wrong = np.arange(len(labels)) % len(sizes)
    shells = prepare_shells(comparison)
    found = search_shell_model(shells, [wrong])
    assert found.cost <= fit_shell_model(shells, labels).cost + 1e-6
    assert adjusted_rand_score(labels, found.labels) == 1


def test_average_linkage_of_equal_blocks():
    affinity = np.kron(np.eye(3), np.full((3, 3), 0.4)) + 0.5
    assert average_linkage(affinity, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
