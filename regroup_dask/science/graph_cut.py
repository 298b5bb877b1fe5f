"""Cutting the graph of compared pairs into groups that share little affinity.

Self-tuned Gaussian affinities (Zelnik-Manor and Perona, 2004, NIPS 17, 1601-1608) on the pairs that were
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

SCALE_NEIGHBOUR = 3
# Groups that share hardly a pair have nearly equal eigenvalues, which Lanczos tells apart badly: small problems are dense.
DENSE_UP_TO = 1500


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


def best_cut(affinity: sp.csr_matrix, degree: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.int64]:
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


def leading_spectrum(
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
