"""Partition N classes into K superclasses, deterministically."""

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.block_model import Edges, agglomerate, merge_path
from regroup_dask.science.local_covariance import LocalCovariance
from regroup_dask.science.local_model import LocalModel
from regroup_dask.science.local_search import VERY_STRONG_EVIDENCE, search_partition
from regroup_dask.science.shell_model import (
    PreparedShells,
    ShellComparison,
    prepare_shells,
    signal_and_structures,
    total_cost,
)
from regroup_dask.science.shell_search import search_shell_model

LARGEST_FOR_BLOCKS = 60
_EQUAL_SIGNAL = 0.06
_EQUAL_NOISE, _LITTLE_NOISE = 0.5, 0.99
_SAY_OF_THE_WHOLE_BOX = 0.1


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


def average_linkage(affinity: NDArray[np.float64], n_clusters: int) -> NDArray[np.int64]:
    """Average linkage (UPGMA) of one minus a precomputed affinity; NaN counts as unlike."""
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.nan_to_num((affinity + affinity.T) / 2, nan=-1.0)
    tree = linkage(squareform(distance, checks=False), "average")
    return canonical_labels(cut_tree(tree, n_clusters)[:, 0])


def cluster(
    similarity: NDArray[np.float64],
    n_clusters: int,
    *,
    edges: Edges | None = None,
    shells: ShellComparison | None = None,
    local: LocalCovariance | None = None,
    correlation: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Superclass of every class, numbered by first appearance.

    Without distances (``edges``) this is spectral clustering of the similarity. With them, weighted average
    linkage and the block model of distances give partitions, and where the shell correlations are at hand, the
    likeliest partition of the shell model is searched from these. Maps of about one share of signal differ in
    plain correlation mostly by structure: then what plain correlation says is among the starts. What the maps have in
    common place by place (``local``) decides in the end; but where the noise of all maps is equal, plain correlation differs
    by structure only, and what it says is left only for something very much likelier.
    """
    n = len(similarity)
    if n_clusters <= 1:
        return np.zeros(n, np.int64)
    if n_clusters >= n:
        return np.arange(n, dtype=np.int64)
    if edges is None:
        return spectral(similarity, n_clusters, seed=seed)
    starts = [agglomerate(edges, n_clusters, caution=caution) for caution in (0.0, 0.5)]
    if n <= LARGEST_FOR_BLOCKS:
        starts.append(merge_path(edges, min(n, n_clusters + 2), n_clusters)[n_clusters].labels)
    whole = shells is not None and np.isfinite(shells.fsc).sum() >= n * (n - 1)
    if shells is None or not whole:
        return canonical_labels(starts[-1])
    plain = None
    equal_noise = _equally_noisy(shells)
    if correlation is not None and (equal_noise or _equally_sure(shells)):
        starts += [spectral(correlation, n_clusters, seed=seed), average_linkage(correlation, n_clusters)]
        plain = starts[-2] if equal_noise else None
    attempts = 12 if n <= LARGEST_FOR_BLOCKS else 3
    prepared = prepare_shells(shells)
    found = canonical_labels(search_shell_model(prepared, starts, attempts=attempts).labels)
    return found if local is None else decide_by_place(local, prepared, found, plain)


def decide_by_place(
    local: LocalCovariance,
    shells: PreparedShells,
    labels: NDArray[np.int64],
    plain: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The partition of greatest evidence place by place, or the one given, whichever is likelier.

    The model of the whole box sees the same maps shell by shell, but knows nothing of misfits of poses and of what is
    wrong with the noise in one place only, so that it is far too sure. It has `_SAY_OF_THE_WHOLE_BOX` of its log
    likelihood to say, which decides where the places leave it open. A partition that needs neither model (``plain``, of
    maps of equal noise) is left only on very strong evidence (150 to 1; Kass and Raftery, 1995).
    """
    k = int(labels.max()) + 1
    found, model = search_partition(LocalModel(local), k, [labels])
    partitions = [labels, found] if plain is None else [labels, found, plain]
    if all(np.array_equal(partition, labels) for partition in partitions):
        return labels
    score = []
    for partition in partitions:
        fitted = model.copy()
        fitted.improve(partition, 3)
        state, structures = signal_and_structures(shells, partition, k)
        by_place = fitted.evidence(partition) + fitted.log_prior()
        score.append(by_place - _SAY_OF_THE_WHOLE_BOX * 0.5 * total_cost(state, structures, partition))
    if plain is not None:
        score[2] += VERY_STRONG_EVIDENCE
    return partitions[int(np.argmax(score))]


def _equally_sure(shells: ShellComparison) -> bool:
    """Whether all maps have about one share of signal, shell by shell."""
    q = shells.reliability.signal_fraction[:, 1:]
    shared = np.isfinite(q).all(axis=0)
    return bool(shared.any()) and float(np.median(q[:, shared].std(axis=0))) < _EQUAL_SIGNAL


def _equally_noisy(shells: ShellComparison) -> bool:
    """Whether the ratio of noise to signal of all maps is one, within what it is known to, where it is worth mentioning."""
    q = shells.reliability.signal_fraction[:, 1:]
    q = q[:, np.isfinite(q).all(axis=0)]
    q = q[:, np.median(q, axis=0) < _LITTLE_NOISE]
    if not q.size:
        return False
    ratio = (1 - q) / np.clip(q, 1e-3, 1)
    return float(np.median(np.log(np.maximum(ratio, 1e-3)).std(axis=0))) < _EQUAL_NOISE
