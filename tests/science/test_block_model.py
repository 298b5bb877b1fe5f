"""The block model's variances and likelihoods against their closed forms."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from regroup_dask.science import block_model


def test_what_classes_bring_to_all_their_pairs_is_taken_off_the_variance():
    own, shared = 0.03, np.array([0.01, 0.02, 0.0])
    sigma = np.sqrt(own**2 + shared[:, None] ** 2 + shared[None, :] ** 2)
    edges = block_model.make_edges(np.zeros((3, 3)), sigma, shared)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(edges.variance[off], own**2 + block_model._MODEL_ERROR**2, rtol=1e-9)
    assert np.isinf(np.diag(edges.variance)).all()


@pytest.mark.parametrize("seed", range(3))
def test_costs_of_placing_a_class_are_a_normal_density_with_one_shared_error(seed):
    rng = np.random.default_rng(seed)
    n, labels = 7, np.array([0, 0, 1, 1, 2, 2, 2])
    distance = np.abs(rng.normal(0.05, 0.02, (n, n)))
    distance = (distance + distance.T) / 2
    shared = rng.uniform(0.005, 0.02, n)
    sigma = np.sqrt(rng.uniform(0.01, 0.03, (n, n)) ** 2 + shared[:, None] ** 2 + shared[None, :] ** 2)
    edges = block_model.make_edges(distance, (sigma + sigma.T) / 2, shared)
    offset = rng.normal(0, 0.01, n)
    block = np.array([[0, 0.04, 0.06], [0.04, 0, 0.05], [0.06, 0.05, 0]])
    for i in (0, 4):
        costs = block_model._placement_costs(edges, offset, labels, block, i)
        others = np.arange(n) != i
        exact = []
        for group in range(3):
            expected = block[group, labels[others]]
            spread = edges.variance[i, others] + (block_model.DISTANCE_SPREAD * expected) ** 2
            covariance = np.diag(spread) + edges.shared_variance[i]
            seen = edges.distance[i, others] - offset[others]
            exact.append(-2 * multivariate_normal(expected, covariance).logpdf(seen))
        np.testing.assert_allclose(costs - costs[0], np.array(exact) - exact[0], rtol=1e-6, atol=1e-8)
