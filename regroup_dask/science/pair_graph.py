"""Pairs of maps as a graph: both directions of each, its connected parts, and leading vectors of its matrices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

SUBSPACE_STEPS = 300


class PairGraph(NamedTuple):
    """Both directions of every pair: ``x_head = rotation (+-x_tail) + shift``; the second half are the inverses."""

    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    n_maps: int

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum rows over the pairs that a map is the head of."""
        rows = np.arange(len(self.head))
        gather = sp.csr_matrix((np.ones(len(rows)), (self.head, rows)), shape=(self.n_maps, len(rows)))
        flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
        return np.asarray((gather @ flat).reshape(self.n_maps, *values.shape[1:]))


def both_directions(
    pairs: NDArray[np.int64],
    rotation: NDArray[np.float64],
    shift: NDArray[np.float64],
    mirrored: NDArray[np.bool_],
    n_maps: int,
) -> PairGraph:
    """Each pair as it is and its inverse, from maps (i, j), int64[P, 2], and what superposes j onto i."""
    back = np.swapaxes(rotation, 1, 2)
    sign = np.where(mirrored, -1.0, 1.0)[:, None]
    return PairGraph(
        np.concatenate([pairs[:, 0], pairs[:, 1]]),
        np.concatenate([pairs[:, 1], pairs[:, 0]]),
        np.concatenate([rotation, back]),
        np.concatenate([shift, -sign * np.einsum("kab,kb->ka", back, shift)]),
        np.concatenate([mirrored, mirrored]),
        n_maps,
    )


def pair_matrix(graph: PairGraph, values: NDArray[np.float64]) -> sp.csr_matrix:
    """Values of the rows as a matrix of maps."""
    return sp.csr_matrix((values, (graph.head, graph.tail)), shape=(graph.n_maps, graph.n_maps))


def connected_parts(graph: PairGraph, weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the part that each map belongs to, joined by rows of positive weight, int64[N]."""
    kept = weight > 0
    edges = sp.csr_matrix(
        (np.ones(kept.sum()), (graph.head[kept], graph.tail[kept])), shape=(graph.n_maps, graph.n_maps)
    )
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def first_of_each_part(part: NDArray[np.int64], priority: NDArray[np.integer]) -> NDArray[np.int64]:
    """Map of highest priority in each part, the first of equals."""
    order = np.lexsort((np.arange(len(part)), -np.asarray(priority, np.float64), part))
    first = np.concatenate([[True], part[order][1:] != part[order][:-1]])
    return order[first]


def leading_vectors(
    matrix: sp.spmatrix, start: NDArray[np.float64], part: NDArray[np.int64], steps: int = SUBSPACE_STEPS
) -> NDArray[np.float64]:
    """Leading vectors of the blocks of a symmetric matrix whose parts are not connected, for all parts at once.

    Each step multiplies by ``(M + 1) / 2``, which has no negative eigenvalue, and makes the columns orthonormal within
    each part.
    """
    n_parts = int(part.max()) + 1
    vectors = start
    for _ in range(steps):
        vectors = 0.5 * (matrix @ vectors + vectors)
        products = np.zeros((n_parts, vectors.shape[1], vectors.shape[1]))
        np.add.at(products, part, vectors[:, :, None] * vectors[:, None, :])
        products += 1e-14 * np.trace(products, axis1=1, axis2=2)[:, None, None] * np.eye(vectors.shape[1]) + 1e-300 * np.eye(
            vectors.shape[1]
        )
        values, axes = np.linalg.eigh(products)
        whitening = axes @ (axes.swapaxes(1, 2) / np.sqrt(np.maximum(values, 1e-14 * values[:, -1:]))[:, :, None])
        vectors = np.einsum("ka,kab->kb", vectors, whitening[part])
    return vectors
