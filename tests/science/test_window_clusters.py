"""Clusters of structures in a window, against all clusterings there are and dense normal densities."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from regroup_dask.science.window_clusters import clusters_after_unions, log_prior_of_unions, partition_terms

NOISE = np.array([0.05, 0.2, 0.1, 0.4])


def _clusterings(n):
    """All clusterings of n groups, as labels."""
    found = [[0]]
    for _ in range(n - 1):
        found = [[*labels, new] for labels in found for new in range(max(labels) + 2)]
    return [np.array(labels) for labels in found]


def _window(clusters, seed=0, coefficients=40, difference=0.8):
    """One band and window of four groups of one map each, drawn from a clustering: rows, and what the kernel takes."""
    rng = np.random.default_rng(seed)
    rows = np.sqrt(2.0) * rng.normal(size=coefficients)
    own = np.sqrt(2.0 * difference) * rng.normal(size=(4, coefficients))
    rows = rows + own[clusters] + rng.normal(size=(4, coefficients)) * np.sqrt(NOISE)[:, None]
    weight = 1 / NOISE
    product = rows @ rows.T / coefficients
    gram = product * weight[:, None] * weight
    base = np.log(NOISE).sum() + (np.diag(product) * weight).sum()
    return rows, weight[None, None], gram[None, None], np.array([[2.0]]), np.array([[float(coefficients)]]), np.array([[base]])


def _likelihood(rows, labels, size):
    """Log density of rows drawn from a clustering, without the constant of pi."""
    covariance = 2.0 + 2.0 * size * (labels[:, None] == labels) + np.diag(NOISE)
    density = multivariate_normal(np.zeros(4), covariance).logpdf(rows.T).sum()
    return density + 2 * np.log(2 * np.pi) * rows.shape[1]


@pytest.mark.parametrize("n_groups", [1, 2, 5])
def test_every_clustering_of_a_number_of_clusters_is_equally_likely_before(n_groups):
    clusters = np.array([labels.max() + 1 for labels in _clusterings(n_groups)])
    prior = np.exp(log_prior_of_unions(n_groups))
    for count in range(1, n_groups + 1):
        np.testing.assert_allclose(prior[n_groups - count] * (clusters == count).sum(), 1 / n_groups)


@pytest.mark.parametrize("truth", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 2, 3], [0, 0, 1, 2]])
def test_likelihoods_are_the_densities_of_the_clusterings_and_the_likeliest_of_all_is_met(truth):
    rows, weight, gram, shared, coefficients, base = _window(np.array(truth))
    sizes = np.array([[0.1], [0.8]])
    terms, order = partition_terms(weight, gram, shared, sizes, np.array([0.1]), coefficients, base, np.zeros(4))
    together = clusters_after_unions(order, 4)[0]
    met = [np.unique(row, axis=0, return_inverse=True)[1].ravel() for row in together]
    for number, size in enumerate(sizes[:, 0]):
        np.testing.assert_allclose(terms[0, number], [_likelihood(rows, labels, size) for labels in met], rtol=1e-9)
    best = max(_likelihood(rows, labels, 0.8) for labels in _clusterings(4))
    assert terms[0, 1].max() > best - 1e-6
