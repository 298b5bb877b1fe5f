"""Grouping thousands of maps of which only the nearest were compared: partitions of the graph of known pairs.

Distances between structures are linked by weighted averages; what comes of it, and of a finer partition whose groups are
united by their likelihood, is improved by the block model of distances, and the likeliest partition taken. (Spectral
clustering of the same graph, which this did before, follows the nearest neighbours of each map, and these are noise among
maps of nearly one structure.) Where only correlations are known, the graph is cut by spectral
clustering: self-tuned Gaussian affinities (Zelnik-Manor and Perona, 2004, NIPS 17, 1601-1608) on the pairs that were
compared, the leading eigenvectors of the normalised affinity by Lanczos iteration, and groups read off them by a pivoted QR
factorization (Damle, Minden and Ying, 2019, Inf. Inference 8, 181-203) or k-means, whichever cuts less affinity.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import qr, svd
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from regroup_dask.science.block_model import Edges, make_edges
from regroup_dask.science.clustering import canonical_labels
from regroup_dask.science.grouping import Grouping, is_noise, junk_reasons, with_those_left_out
from regroup_dask.science.model_selection import choose_number, stability
from regroup_dask.science.sparse_blocks import fit_graph_blocks, graph_edges, unite_graph_blocks
from regroup_dask.science.sparse_linkage import link_graph

SCALE_NEIGHBOUR = 3
# Groups that share hardly a pair have nearly equal eigenvalues, which Lanczos tells apart badly: small problems are dense.
DENSE_UP_TO = 1500
MOST_CANDIDATES = 60
# Numbers of superclasses that the curves tell of, at least.
LEAST_CANDIDATES = 24
# Distances of more maps than this are drawn anew less often, but so often at least: each draw of 2000 takes a second or two.
DRAWN_OFTEN_UP_TO = 150
LEAST_DRAWS = 10
# So many times as many groups are linked first, and then united by their likelihood.
FINER = 2


def group_sparse(
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64],
    n_superclasses: int | str,
    *,
    shared_sigma: NDArray[np.float64] | None = None,
    information: NDArray[np.float64] | None = None,
    confidence: NDArray[np.float64] | None = None,
    contrast: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None,
    structural: bool = True,
    n_resamplings: int = 50,
    seed: int = 0,
) -> Grouping:
    """Group maps by the distances that are known.

    Maps without signal, and those that resemble no other, are flagged and take part as `grouping.group_classes` says.

    Parameters
    ----------
    distance, distance_sigma : numpy.ndarray
        float (N, N), symmetric, NaN where not compared.
    n_superclasses : int or "auto"
        With ``"auto"`` as many as differ significantly (`model_selection.choose_number`).
    shared_sigma, information, confidence
        As for `grouping.group_classes`.
    contrast : float[N, N], float[N, N] and float[N], optional
        `shell_contrast.ShellContrast`, as tables: maps are put into groups by these instead of by distances. How many
        groups there are is told by distances, which say how much structures differ.
    structural : bool
        Distances are between structures, zero on average within one; else the graph is cut by spectral clustering alone.
    n_resamplings : int
        How often distances are drawn anew within their uncertainty; of more than `DRAWN_OFTEN_UP_TO` maps less often.
    seed : int

    Returns
    -------
    Grouping
    """
    n_maps = len(distance)
    least = 1 if n_superclasses == "auto" else int(n_superclasses)
    reason = ("",) * n_maps
    if structural:
        reason = junk_reasons(distance, distance_sigma, information, confidence, n_maps)
    junk = np.array([bool(text) for text in reason], bool)
    most = min(n_maps - 1, MOST_CANDIDATES if n_superclasses == "auto" else max(least + 2, LEAST_CANDIDATES))
    noise = is_noise(information, n_maps) if structural else np.zeros(n_maps, bool)
    left_out = noise
    if n_superclasses != "auto" and (junk & ~noise).any() and (~junk).sum() > least:
        others = _edges(distance, distance_sigma, shared_sigma, np.flatnonzero(~junk))
        if choose_number(link_graph(others, most + 1), [], min(most, (~junk).sum() - 1))[0] >= least:
            left_out = junk
    used = np.flatnonzero(~left_out) if (~left_out).sum() > least else np.arange(n_maps)
    most = max(1, min(most, len(used) - 1))
    edges = _edges(distance, distance_sigma, shared_sigma, used)
    merges = link_graph(edges, most + 1)
    count = max(int(n_resamplings * min(1.0, DRAWN_OFTEN_UP_TO / n_maps)), min(n_resamplings, LEAST_DRAWS))
    # Drawn twice rather than kept: tables of thousands of maps are large.
    resampled = [link_graph(_drawn_anew(edges, number, seed), most + 1) for number in range(count)]
    chosen, candidates, stable, gap = choose_number(merges, resampled, most)
    n_groups = chosen if n_superclasses == "auto" else least
    square = np.ix_(used, used)
    affinity = sparse_affinity(distance[square], distance_sigma[square])
    degree = np.asarray(affinity.sum(axis=1)).ravel()
    values, vectors = _spectrum(affinity, degree, min(most + 1, len(used)))
    again = [other.labels[n_groups - 1] for other in resampled]
    if structural:
        told = edges if contrast is None else _edges(*contrast, used)
        found = _likeliest(told, n_groups)
        again = [_likeliest(_drawn_anew(told, number, seed), n_groups, (0.5,)) for number in range(count)]
    else:
        found = canonical_labels(_best_cut(affinity, degree, vectors[:, :n_groups]))
    labels, class_stability, superclass_stability = with_those_left_out(
        found, stability(found, again), used, -distance[np.setdiff1d(np.arange(n_maps), used)]
    )
    gaps = values[:-1] - values[1:]
    return Grouping(
        labels=labels,
        n_superclasses=n_groups,
        class_stability=class_stability,
        superclass_stability=superclass_stability,
        candidate_superclasses=candidates.astype(np.int64),
        stability_curve=stable,
        eigengap_curve=np.append(gaps, np.full(len(candidates), np.nan))[: len(candidates)],
        separation_curve=gap,
        junk=junk,
        reason=reason,
    )


def _edges(
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64],
    shared_sigma: NDArray[np.float64] | None,
    used: NDArray[np.int64],
) -> Edges:
    square = np.ix_(used, used)
    shared = None if shared_sigma is None else np.asarray(shared_sigma, np.float64)[used]
    return make_edges(np.asarray(distance[square], np.float64), np.asarray(distance_sigma[square], np.float64), shared)


def _drawn_anew(edges: Edges, number: int, seed: int) -> Edges:
    """Known distances with noise of their own variance, and with what shifts all of a map, as `model_selection.resample`."""
    rng = np.random.default_rng([seed, number])
    first, second = np.nonzero(np.triu(np.isfinite(edges.variance), 1))
    shared = rng.normal(size=len(edges.distance)) * np.sqrt(edges.shared_variance)
    sd = np.sqrt(edges.variance[first, second])
    distance = edges.distance.copy()
    moved = distance[first, second] + rng.normal(size=len(sd)) * sd + shared[first] + shared[second]
    distance[first, second] = distance[second, first] = moved
    return edges._replace(distance=distance)


def _likeliest(edges: Edges, n_groups: int, cautions: tuple[float, ...] = (0.0, 0.5, 1.0)) -> NDArray[np.int64]:
    """Of partitions by linkage with less and with more caution, and of finer ones united, the one of least cost."""
    graph = graph_edges(edges)
    fitted = []
    for caution in cautions:
        linked = link_graph(edges, FINER * n_groups, caution=caution).labels
        fitted.append(fit_graph_blocks(graph, linked[n_groups - 1], n_groups))
        fitted.append(unite_graph_blocks(graph, linked[-1], n_groups))
    return canonical_labels(min(fitted, key=lambda one: one[1])[0])


def sparse_affinity(distance: NDArray[np.float64], distance_sigma: NDArray[np.float64]) -> sp.csr_matrix:
    """Self-tuned Gaussian affinity of the pairs that were compared.

    A distance counts as far as it exceeds twice its own sigma; the scale of a map is the distance to its third
    neighbour, because superclasses of few maps are common,
    but never less than the sigma.
    """
    n_maps = len(distance)
    known = np.isfinite(distance)
    np.fill_diagonal(known, False)
    rows, columns = np.nonzero(known)
    sigma = np.nan_to_num(distance_sigma[rows, columns], nan=0.0)
    beyond = np.maximum(distance[rows, columns] - 2.0 * sigma, 0.0)
    scale = np.empty(n_maps)
    floor = float(np.median(sigma)) + 1e-3
    for index in range(n_maps):
        row = np.sort(np.maximum(distance[index, known[index]], 0.0))
        scale[index] = max(row[min(SCALE_NEIGHBOUR, len(row)) - 1] if len(row) else floor, floor)
    weight = np.exp(-(beyond**2) / (scale[rows] * scale[columns]))
    affinity = sp.csr_matrix((np.maximum(weight, 1e-8), (rows, columns)), shape=(n_maps, n_maps))
    affinity = (affinity + affinity.T) * 0.5
    # Groups that share no pair still need a place in one spectrum.
    count, component = connected_components(affinity, directed=False)
    if count > 1:
        first = np.array([int(np.flatnonzero(component == part)[0]) for part in range(count)])
        bridge = sp.csr_matrix((np.full(count - 1, 1e-8), (np.full(count - 1, first[0]), first[1:])), shape=affinity.shape)
        affinity = affinity + bridge + bridge.T
    return affinity.tocsr()


def cluster_qr(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Read groups off orthonormal eigenvectors (N, K) by column-pivoted QR; deterministic."""
    count = vectors.shape[1]
    _, _, pivots = qr(vectors.T, pivoting=True, mode="economic")
    left, _, right = svd(vectors[pivots[:count]].T, full_matrices=False)
    return np.asarray(np.abs(vectors @ (left @ right)).argmax(axis=1), np.int64)


def _best_cut(affinity: sp.csr_matrix, degree: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of the groups read off by QR and by k-means on the rows (Ng, Jordan and Weiss, 2002), those with the least cut."""
    from sklearn.cluster import KMeans  # most groupings are dense, and it takes most of a second to import

    count = vectors.shape[1]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    candidates = [cluster_qr(vectors), KMeans(count, n_init=20, random_state=0).fit(rows).labels_]
    return min(candidates, key=lambda labels: normalised_cut(affinity, degree, labels, count))


def normalised_cut(affinity: sp.csr_matrix, degree: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> float:
    """Sum over groups of the affinity that leaves the group over all its affinity; a group without maps counts 1."""
    member = sp.csr_matrix((np.ones(len(labels)), (np.arange(len(labels)), labels)), shape=(len(labels), count))
    inside = np.asarray((member.T @ affinity @ member).diagonal())
    whole = np.asarray(member.T @ degree)
    return float(count - np.divide(inside, whole, out=np.zeros(count), where=whole > 0).sum())


def _spectrum(
    affinity: sp.csr_matrix, degree: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leading eigenvalues and eigenvectors of the normalised affinity."""
    root = sp.diags(1.0 / np.sqrt(np.maximum(degree, 1e-12)))
    normalised = (root @ affinity @ root).tocsr()
    n_maps = normalised.shape[0]
    if n_maps <= DENSE_UP_TO:
        values, vectors = np.linalg.eigh(normalised.toarray())
    else:
        # A fixed start makes Lanczos give the same vectors every time.
        start = np.random.default_rng(0).normal(size=n_maps)
        values, vectors = eigsh(normalised, k=count, which="LA", v0=start, ncv=min(n_maps - 1, 4 * count + 40), tol=0)
    order = np.argsort(-values)[:count]
    return values[order], vectors[:, order]
