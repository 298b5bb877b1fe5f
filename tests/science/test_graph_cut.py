"""Spectral cuts of a graph of nearest maps."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.graph_cut import cluster_qr, sparse_affinity


def test_affinity_of_a_few_pairs_is_the_self_tuned_gaussian():
    distance = np.full((4, 4), np.nan)
    for i, j, value in ((0, 1, 0.02), (0, 2, 0.05), (0, 3, 0.09), (1, 2, 0.04), (1, 3, 0.08), (2, 3, 0.06)):
        distance[i, j] = distance[j, i] = value
    sigma = np.full((4, 4), 0.01)
    affinity = sparse_affinity(distance.copy(), sigma).toarray()
    scale = np.array([0.09, 0.08, 0.06, 0.09])  # the third neighbour's distance
    expected = np.exp(-(np.maximum(distance - 0.02, 0) ** 2) / (scale[:, None] * scale[None, :]))
    np.testing.assert_allclose(affinity[~np.eye(4, dtype=bool)], expected[~np.eye(4, dtype=bool)], rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pivoted_qr_reads_exact_indicators(count):
    rng = np.random.default_rng(count)
    truth = np.arange(40) % count
    indicator = (truth[:, None] == np.arange(count)).astype(float)
    rotation, _ = np.linalg.qr(rng.normal(size=(count, count)))
    found = cluster_qr(indicator / np.linalg.norm(indicator, axis=0) @ rotation)
    assert adjusted_rand_score(truth, found) == 1.0
