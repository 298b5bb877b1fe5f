"""Partition N classes into K superclasses, deterministically."""

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.block_model import Edges, agglomerate, merge_path
from regroup_dask.science.shell_model import ShellComparison, fit_shell_model, search_shell_model

_LARGEST_FOR_MODELS = 60


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
    edges: Edges | None = None,
    shells: ShellComparison | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Superclass of every class, numbered by first appearance.

    Without distances (``edges``) this is spectral clustering of the similarity. With them, several answers
    are made (weighted average linkage twice, the block model of distances, and, where the shell correlations
    are at hand, the shell model from these starts), and the one that agrees best with all of them is taken:
    their errors differ, so what they share is sound. On generated problems this is better than each of them,
    and all are far better than spectral clustering, which needs more contrast than structures of one complex
    have.
    """
    n = len(similarity)
    if n_clusters <= 1:
        return np.zeros(n, np.int64)
    if n_clusters >= n:
        return np.arange(n, dtype=np.int64)
    if edges is None:
        return spectral(similarity, n_clusters, seed=seed)
    linked = [agglomerate(edges, n_clusters, caution=caution) for caution in (0.0, 0.5)]
    if n > _LARGEST_FOR_MODELS:
        return canonical_labels(linked[0])
    models = merge_path(edges, min(n, n_clusters + 2), n_clusters)
    answers = [*linked, models[n_clusters].labels]
    if shells is not None and np.isfinite(shells.fsc).sum() >= n * (n - 1):
        answers.append(search_shell_model(shells, answers).labels)
        answers.append(fit_shell_model(shells, models[n_clusters].labels).labels)
    return canonical_labels(_most_agreed(answers))


def _most_agreed(answers: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The partition of largest mean adjusted Rand index (Hubert and Arabie 1985) to all."""
    from sklearn.metrics import adjusted_rand_score

    agreement = [np.mean([adjusted_rand_score(one, other) for other in answers]) for one in answers]
    return answers[int(np.argmax(np.round(agreement, 9)))]
