"""The block model of distances (`science.block_model`) on a graph: thousands of maps of which some pairs are known.

Formulas are those of `block_model`; sums run over known pairs only. Two groups between which no pair is known are as far
apart as any two are seen to be: their maps were not compared because nothing spoke for it. What a pair and what a map has of its
own are drawn from Student's t (Lange, Little and Taylor, 1989, J. Am. Stat. Assoc. 84, 881-896), whose tails are long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from regroup_dask.science.block_model import DISTANCE_SPREAD, Edges
from regroup_dask.science.block_terms import NO_TAIL, block_distances, cost_of, set_offsets, surprise, trust, widths

OFFSET_SWEEPS = 8
OFFSET_STEPS = 3
# One over the degrees of freedom of Student's t: eight. Some pairs are further apart than noise explains, because a pose is
# wrong, or part of a map was cut off by its box; of a normal likelihood a few such pairs decide alone.
TAIL = 0.125


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
    edges: GraphEdges, labels: NDArray[np.int64], n_groups: int, *, sweeps: int = 30, tail: float = TAIL
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
    tail : float
        One over the degrees of freedom of the likelihood, 0 for a normal one.

    Returns
    -------
    int64[N], float
        The partition, and minus twice its log likelihood.
    """
    labels = labels.astype(np.int64)
    cost = _fit(*edges, labels, n_groups, sweeps, DISTANCE_SPREAD, tail, OFFSET_SWEEPS)
    return labels, float(cost)


def cheapest_union(edges: GraphEdges, labels: NDArray[np.int64], n_groups: int, *, tail: float = TAIL) -> tuple[int, int]:
    """The two groups whose union costs least likelihood, the lower number first."""
    first, second = _cheapest_union(*edges, labels, n_groups, DISTANCE_SPREAD, tail, OFFSET_SWEEPS)
    return int(first), int(second)


def unite_graph_blocks(
    edges: GraphEdges, labels: NDArray[np.int64], n_groups: int, *, sweeps: int = 2, tail: float = TAIL
) -> tuple[NDArray[np.int64], float]:
    """Unite groups of a finer partition until ``n_groups`` are left, each time the two whose union costs least likelihood.

    Linkage by mean distance leaves noisy maps alone, however little it knows of them, and unites others instead; what a
    union costs counts every distance by what it tells. Maps move after every union (`fit_graph_blocks`).
    """
    labels = labels.astype(np.int64)
    for count in range(int(labels.max()) + 1, n_groups, -1):
        labels, _ = fit_graph_blocks(edges, labels, count, sweeps=sweeps, tail=tail)
        first, second = cheapest_union(edges, labels, count, tail=tail)
        labels[labels == second] = first
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return fit_graph_blocks(edges, labels, n_groups, tail=tail)


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
    width: np.ndarray,
    tail: float,
    i: int,
) -> tuple[int, bool]:
    """Where a map belongs, over all its offsets, all others held; and whether that is likelier than where it is."""
    best, own, where = np.inf, np.inf, labels[i]
    # A normal offset is found at once.
    steps = 1 if tail == NO_TAIL else OFFSET_STEPS
    # Of a group that it has no pair with nothing is known, and whatever is not known would cost nothing; if there is but one
    # such group, the others may tell that it belongs there.
    met = np.zeros(block.shape[0], np.bool_)
    met[labels[i]] = True
    for at in range(start[i], start[i + 1]):
        met[labels[other[at]]] = True
    for k in range(block.shape[0]):
        if not met[k] and met.sum() < len(met) - 1:
            continue
        cost = np.inf
        # Where the offset comes to rest in this group, from where it is and from nothing: one kind of rest is a map all of whose
        # pairs are odd.
        for start_of in range(1 if tail == NO_TAIL else 2):
            shift, total, value = offset[i] * (1 - start_of), 1.0, 0.0
            for step in range(steps + 1):
                prior = shift**2 / shared_variance[i]
                total, pull = trust(prior, tail) / shared_variance[i], 0.0
                value = surprise(prior, tail)
                for at in range(start[i], start[i + 1]):
                    expected = block[k, labels[other[at]]]
                    room = variance[at] + width[k, labels[other[at]]]
                    residual = distance[at] - offset[other[at]] - expected
                    square = (residual - shift) ** 2 / room
                    weight = trust(square, tail) / room
                    total += weight
                    pull += weight * residual
                    if step == steps:
                        value += surprise(square, tail) + np.log(room / variance[at])
                if step < steps:
                    shift = pull / total
            cost = min(cost, value + np.log(total))
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
    tail: float,
    offset_sweeps: int,
) -> float:
    """Improve labels in place; returns their cost."""
    edges = (start, other, distance, variance)
    offset = np.zeros(len(labels))
    count = np.bincount(labels, minlength=n_groups)
    best, kept = np.inf, labels.copy()
    for sweep in range(sweeps + 1):
        block = block_distances(*edges, labels, offset, n_groups, spread, tail)
        width = widths(*edges, labels, offset, block, spread, tail)
        for _ in range(2):
            set_offsets(*edges, shared_variance, labels, offset, block, width, tail, offset_sweeps)
            block = block_distances(*edges, labels, offset, n_groups, spread, tail)
            width = widths(*edges, labels, offset, block, spread, tail)
        cost = cost_of(*edges, shared_variance, labels, offset, block, width, tail)
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
            where, better = _likeliest_group(*edges, shared_variance, labels, offset, block, width, tail, i)
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
    tail: float,
    offset_sweeps: int,
) -> tuple[int, int]:
    """The two groups whose pairs lose least likelihood if they are at distance zero; those with no pair lose all."""
    edges = (start, other, distance, variance)
    offset = np.zeros(len(labels))
    block = block_distances(*edges, labels, offset, n_groups, spread, tail)
    width = widths(*edges, labels, offset, block, spread, tail)
    for _ in range(2):
        set_offsets(*edges, shared_variance, labels, offset, block, width, tail, offset_sweeps)
        block = block_distances(*edges, labels, offset, n_groups, spread, tail)
        width = widths(*edges, labels, offset, block, spread, tail)
    loss, known = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups), np.bool_)
    for i in range(len(labels)):
        for at in range(start[i], start[i + 1]):
            a, b = labels[i], labels[other[at]]
            if a < b:
                room = variance[at] + width[a, b]
                plain = distance[at] - offset[i] - offset[other[at]]
                apart = surprise((plain - block[a, b]) ** 2 / room, tail) + np.log(room / variance[at])
                united = variance[at] + max(width[a, a], width[b, b])
                loss[a, b] += surprise(plain**2 / united, tail) + np.log(united / variance[at]) - apart
                known[a, b] = True
    best, first, second = np.inf, 0, 1
    for a in range(n_groups):
        for b in range(a + 1, n_groups):
            if known[a, b] and loss[a, b] < best:
                best, first, second = loss[a, b], a, b
    return first, second
