"""The block model of distances (`science.block_model`) on a graph: thousands of maps of which some pairs are known.

Formulas are those of `block_model`; sums run over known pairs only. Two groups between which no pair is known are as far
apart as any two are seen to be: their maps were not compared because nothing spoke for it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from regroup_dask.science.block_model import DISTANCE_SPREAD, Edges

OFFSET_SWEEPS = 8
# Distance of groups between which no pair is known, at least; else they are as far apart as any two are seen to be.
LEAST_UNSEEN = 0.1


class GraphEdges(NamedTuple):
    """Known pairs of N maps, each in the row of either map.

    Attributes
    ----------
    start : int64[N + 1]
        Where the row of each map begins.
    other : int64[2 P]
        The other map of each pair.
    distance, variance : float64[2 P]
    shared_variance : float64[N]
    """

    start: NDArray[np.int64]
    other: NDArray[np.int64]
    distance: NDArray[np.float64]
    variance: NDArray[np.float64]
    shared_variance: NDArray[np.float64]


def graph_edges(edges: Edges) -> GraphEdges:
    """The known pairs of a table."""
    known = np.isfinite(edges.variance)
    rows, columns = np.nonzero(known)
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(known)))]).astype(np.int64)
    return GraphEdges(start, columns, edges.distance[known], edges.variance[known], edges.shared_variance)


def fit_graph_blocks(
    edges: GraphEdges, labels: NDArray[np.int64], n_groups: int, *, sweeps: int = 30
) -> tuple[NDArray[np.int64], float]:
    """Move one map at a time to its likeliest group, until nothing moves.

    Parameters
    ----------
    edges : GraphEdges
    labels : int[N]
        Where to start, 0 .. ``n_groups`` - 1; no group is emptied.
    n_groups : int
    sweeps : int
        At most so many rounds.

    Returns
    -------
    int64[N], float
        The partition, and minus twice its log likelihood.
    """
    labels = labels.astype(np.int64)
    cost = _fit(*edges, labels, n_groups, sweeps, DISTANCE_SPREAD, OFFSET_SWEEPS)
    return labels, float(cost)


def unite_graph_blocks(
    edges: GraphEdges, labels: NDArray[np.int64], n_groups: int, *, sweeps: int = 2
) -> tuple[NDArray[np.int64], float]:
    """Unite groups of a finer partition until ``n_groups`` are left, each time the two whose union costs least likelihood.

    Linkage by mean distance leaves noisy maps alone, however little it knows of them, and unites others instead; what a
    union costs counts every distance by what it tells. Maps move after every union (`fit_graph_blocks`).
    """
    labels = labels.astype(np.int64)
    for count in range(int(labels.max()) + 1, n_groups, -1):
        labels, _ = fit_graph_blocks(edges, labels, count, sweeps=sweeps)
        first, second = _cheapest_union(*edges, labels, count, DISTANCE_SPREAD, OFFSET_SWEEPS)
        labels[labels == second] = first
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return fit_graph_blocks(edges, labels, n_groups)


@njit(cache=True, nogil=True)
def _block_distances(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    n_groups: int,
    spread: float,
) -> np.ndarray:
    """Weighted mean distance between groups, not below zero; zero within."""
    total, summed = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
    for i in range(len(labels)):
        for at in range(start[i], start[i + 1]):
            j = other[at]
            plain = distance[at] - offset[i] - offset[j]
            weight = 1.0 / (variance[at] + (spread * max(plain, 0.0)) ** 2)
            total[labels[i], labels[j]] += weight
            summed[labels[i], labels[j]] += weight * plain
    block, furthest = np.zeros((n_groups, n_groups)), LEAST_UNSEEN
    for a in range(n_groups):
        for b in range(n_groups):
            if a != b and total[a, b] > 0.0:
                block[a, b] = max(summed[a, b] / total[a, b], 0.0)
                furthest = max(furthest, block[a, b])
    for a in range(n_groups):
        for b in range(n_groups):
            if a != b and total[a, b] == 0.0:
                block[a, b] = furthest
    return block


@njit(cache=True, nogil=True)
def _set_offsets(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    block: np.ndarray,
    spread: float,
    sweeps: int,
) -> None:
    """What each map adds to all its distances, shrunk by its expected size: least squares by Gauss and Seidel."""
    for _ in range(sweeps):
        for i in range(len(labels)):
            total, summed = 1.0 / shared_variance[i], 0.0
            for at in range(start[i], start[i + 1]):
                j = other[at]
                expected = block[labels[i], labels[j]]
                weight = 1.0 / (variance[at] + (spread * expected) ** 2)
                total += weight
                summed += weight * (distance[at] - expected - offset[j])
            offset[i] = summed / total


@njit(cache=True, nogil=True)
def _cost(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    block: np.ndarray,
    spread: float,
) -> float:
    """Minus twice the log likelihood, up to a constant."""
    cost = 0.0
    for i in range(len(labels)):
        cost += offset[i] ** 2 / shared_variance[i]
        for at in range(start[i], start[i + 1]):
            if other[at] > i:
                expected = block[labels[i], labels[other[at]]]
                room = variance[at] + (spread * expected) ** 2
                residual = distance[at] - expected - offset[i] - offset[other[at]]
                cost += residual**2 / room + np.log(room / variance[at])
    return cost


@njit(cache=True, nogil=True)
def _likeliest_group(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    block: np.ndarray,
    spread: float,
    i: int,
) -> tuple[int, bool]:
    """Where a map belongs, over all its offsets, all others held; and whether that is likelier than where it is."""
    best, own, where = np.inf, np.inf, labels[i]
    for k in range(block.shape[0]):
        cost, total, pull = 0.0, 1.0 / shared_variance[i], 0.0
        for at in range(start[i], start[i + 1]):
            expected = block[k, labels[other[at]]]
            room = variance[at] + (spread * expected) ** 2
            residual = distance[at] - offset[other[at]] - expected
            cost += residual**2 / room + np.log(room / variance[at])
            total += 1.0 / room
            pull += residual / room
        cost += np.log(total) - pull**2 / total
        if k == labels[i]:
            own = cost
        if cost < best:
            best, where = cost, k
    return where, best < own - 1e-6


@njit(cache=True, nogil=True)
def _fit(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    n_groups: int,
    sweeps: int,
    spread: float,
    offset_sweeps: int,
) -> float:
    """Improve labels in place; returns their cost."""
    edges = (start, other, distance, variance)
    offset = np.zeros(len(labels))
    count = np.bincount(labels, minlength=n_groups)
    best, kept = np.inf, labels.copy()
    for sweep in range(sweeps + 1):
        block = _block_distances(*edges, labels, offset, n_groups, spread)
        for _ in range(2):
            _set_offsets(*edges, shared_variance, labels, offset, block, spread, offset_sweeps)
            block = _block_distances(*edges, labels, offset, n_groups, spread)
        cost = _cost(*edges, shared_variance, labels, offset, block, spread)
        # Of distances that the model does not describe a round may make worse what it should mend.
        if cost >= best - 1e-9:
            break
        best = cost
        kept[:] = labels
        if sweep == sweeps:
            break
        moved = False
        for i in range(len(labels)):
            if count[labels[i]] == 1:
                continue
            where, better = _likeliest_group(*edges, shared_variance, labels, offset, block, spread, i)
            if better:
                count[labels[i]] -= 1
                count[where] += 1
                labels[i] = where
                moved = True
        if not moved:
            break
    labels[:] = kept
    return best


@njit(cache=True, nogil=True)
def _cheapest_union(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    n_groups: int,
    spread: float,
    offset_sweeps: int,
) -> tuple[int, int]:
    """The two groups whose pairs lose least likelihood if they are at distance zero; those with no pair lose all."""
    edges = (start, other, distance, variance)
    offset = np.zeros(len(labels))
    block = _block_distances(*edges, labels, offset, n_groups, spread)
    for _ in range(2):
        _set_offsets(*edges, shared_variance, labels, offset, block, spread, offset_sweeps)
        block = _block_distances(*edges, labels, offset, n_groups, spread)
    loss, known = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups), np.bool_)
    for i in range(len(labels)):
        for at in range(start[i], start[i + 1]):
            a, b = labels[i], labels[other[at]]
            if a < b:
                room = variance[at] + (spread * block[a, b]) ** 2
                plain = distance[at] - offset[i] - offset[other[at]]
                apart = (plain - block[a, b]) ** 2 / room + np.log(room / variance[at])
                loss[a, b] += plain**2 / variance[at] - apart
                known[a, b] = True
    best, first, second = np.inf, 0, 1
    for a in range(n_groups):
        for b in range(a + 1, n_groups):
            if known[a, b] and loss[a, b] < best:
                best, first, second = loss[a, b], a, b
    return first, second
