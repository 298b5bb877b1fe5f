"""Terms of the block model on a graph, in loops over its known pairs: distances and widths of groups, offsets of maps, cost.

Arguments are those of `sparse_blocks.GraphEdges`, and

labels : int64[N]
    The group of each map.
offset : float64[N]
    What each map adds to all its distances.
block, width : float64[K, K]
    Distance of every two groups, and variance of what their pairs have beside their own.
tail : float
    One over the degrees of freedom of the likelihood; `NO_TAIL` for a normal one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MEAN_STEPS = 2
NO_TAIL = 0.0
# How much maps of one group differ is told by this part of its pairs, the more alike ones, and by the square that this part of
# normal numbers stays below; of fewer pairs nothing is told.
MORE_ALIKE, NORMAL_MORE_ALIKE, LEAST_PAIRS = 0.35, 0.2059, 15
# Distance of groups between which no pair is known, at least; else they are as far apart as any two are seen to be.
LEAST_UNSEEN = 0.1


@njit(cache=True, nogil=True)
def surprise(square: float, tail: float) -> float:
    """Minus twice the log density of Student's t, up to a constant; of a normal one where the tail is 0."""
    return square if tail == NO_TAIL else (1.0 / tail + 1.0) * np.log1p(square * tail)


@njit(cache=True, nogil=True)
def trust(square: float, tail: float) -> float:
    """Derivative of `surprise`: what a residual counts in least squares."""
    return 1.0 if tail == NO_TAIL else (1.0 + tail) / (1.0 + square * tail)


@njit(cache=True, nogil=True)
def block_distances(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    n_groups: int,
    spread: float,
    tail: float,
) -> np.ndarray:
    """Weighted mean distance between groups, not below zero; zero within.

    With no tail a pair counts by the spread that its own distance has, as in `block_model`. Of two groups at 0.3 a single pair
    that seems at zero then decides; with a tail no pair has less spread than their mean.
    """
    block, total = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
    for step in range(1 if tail == NO_TAIL else MEAN_STEPS):
        total[:], summed = 0.0, np.zeros((n_groups, n_groups))
        for i in range(len(labels)):
            for at in range(start[i], start[i + 1]):
                j = other[at]
                a, b = labels[i], labels[j]
                plain = distance[at] - offset[i] - offset[j]
                if tail == NO_TAIL:
                    weight = 1.0 / (variance[at] + (spread * max(plain, 0.0)) ** 2)
                else:
                    spread_of = 0.0 if step == 0 else spread * max(plain, block[a, b])
                    weight = 1.0 / (variance[at] + spread_of**2)
                total[a, b] += weight
                summed[a, b] += weight * plain
        for a in range(n_groups):
            for b in range(n_groups):
                block[a, b] = max(summed[a, b] / total[a, b], 0.0) if a != b and total[a, b] > 0.0 else 0.0
    furthest = max(LEAST_UNSEEN, block.max())
    for a in range(n_groups):
        for b in range(n_groups):
            if a != b and total[a, b] == 0.0:
                block[a, b] = furthest
    return block


@njit(cache=True, nogil=True)
def widths(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    labels: np.ndarray,
    offset: np.ndarray,
    block: np.ndarray,
    spread: float,
    tail: float,
) -> np.ndarray:
    """Variance of what pairs of two groups have beside their own: a share of the distance, or what a group's pairs show.

    Maps of one structure may all differ, and their group is one all the same. That is told by its more alike pairs: in two
    groups that pass for one they are those within either. With no tail groups are as their variances say.
    """
    n_groups = len(block)
    width = (spread * block) ** 2
    if tail == NO_TAIL:
        return width
    count = np.zeros(n_groups + 1, np.int64)
    for i in range(len(labels)):
        for at in range(start[i], start[i + 1]):
            if other[at] > i and labels[other[at]] == labels[i]:
                count[labels[i] + 1] += 1
    first = np.cumsum(count)
    filled = first.copy()
    square, own = np.empty(first[-1]), np.empty(first[-1])
    for i in range(len(labels)):
        for at in range(start[i], start[i + 1]):
            j = other[at]
            if j > i and labels[j] == labels[i]:
                place = filled[labels[i]]
                square[place] = (distance[at] - offset[i] - offset[j]) ** 2
                own[place] = variance[at]
                filled[labels[i]] += 1
    for a in range(n_groups):
        pairs = first[a + 1] - first[a]
        if pairs >= LEAST_PAIRS:
            ordered = np.sort(square[first[a] : first[a + 1]])
            seen = ordered[int(MORE_ALIKE * pairs)] / NORMAL_MORE_ALIKE
            width[a, a] = max(seen - np.sort(own[first[a] : first[a + 1]])[pairs // 2], 0.0)
    return width


@njit(cache=True, nogil=True)
def set_offsets(
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
    sweeps: int,
) -> None:
    """What each map adds to all its distances, shrunk by its expected size: reweighted least squares by Gauss and Seidel."""
    for _ in range(sweeps):
        for i in range(len(labels)):
            total, summed = trust(offset[i] ** 2 / shared_variance[i], tail) / shared_variance[i], 0.0
            for at in range(start[i], start[i + 1]):
                j = other[at]
                expected = block[labels[i], labels[j]]
                room = variance[at] + width[labels[i], labels[j]]
                plain = distance[at] - expected - offset[j]
                weight = trust((plain - offset[i]) ** 2 / room, tail) / room
                total += weight
                summed += weight * plain
            offset[i] = summed / total


@njit(cache=True, nogil=True)
def cost_of(
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
) -> float:
    """Minus twice the log likelihood, up to a constant."""
    cost = 0.0
    for i in range(len(labels)):
        cost += surprise(offset[i] ** 2 / shared_variance[i], tail)
        for at in range(start[i], start[i + 1]):
            if other[at] > i:
                expected = block[labels[i], labels[other[at]]]
                room = variance[at] + width[labels[i], labels[other[at]]]
                residual = distance[at] - expected - offset[i] - offset[other[at]]
                cost += surprise(residual**2 / room, tail) + np.log(room / variance[at])
    return cost
