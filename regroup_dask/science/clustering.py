"""Partition N classes into K superclasses, deterministically."""

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.block_model import make_edges, merge_path


def canonical_labels(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Renumber labels by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[inverse].astype(np.int64)


def spectral(affinity: NDArray[np.float64], n_clusters: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Spectral clustering of a precomputed affinity (Ng, Jordan and Weiss 2002; von Luxburg 2007)."""
    from sklearn.cluster import SpectralClustering

    n = len(affinity)
    if n_clusters <= 1:
        return np.zeros(n, np.int64)
    if n_clusters >= n:
        return np.arange(n, dtype=np.int64)
    affinity = np.clip(np.nan_to_num((affinity + affinity.T) / 2, nan=0.0), 0, None)
    np.fill_diagonal(affinity, 1.0)
    model = SpectralClustering(
        n_clusters,
        affinity="precomputed",
        random_state=seed,
        assign_labels="kmeans",
        n_init=20,
        eigen_solver="arpack",
    )
    return canonical_labels(model.fit_predict(affinity))


def cluster(
    similarity: NDArray[np.float64],
    n_clusters: int,
    *,
    distance: NDArray[np.float64] | None = None,
    distance_sigma: NDArray[np.float64] | None = None,
    shared_sigma: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Superclass of every class, numbered by first appearance."""
    if distance is None or distance_sigma is None:
        return spectral(similarity, n_clusters, seed=seed)
    edges = make_edges(distance, distance_sigma, shared_sigma)
    models = merge_path(edges, min(len(distance), n_clusters + 3), n_clusters)
    return canonical_labels(models[n_clusters].labels)
