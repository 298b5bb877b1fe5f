"""How many groups a graph of maps shows: as many as describe its distances in the fewest words.

Linkage counts a map that differs significantly from all others as a structure, whatever makes it differ. Here a group must pay
for itself: partitions are compared by minus twice their log likelihood under the block model with long tails, and by what it
takes to tell them, the group of every map and a distance for each two groups (minimum description length, Rissanen, 1978,
Automatica 14, 465-471; for block models Peixoto, 2013, Phys. Rev. Lett. 110, 148701).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.sparse_blocks import GraphEdges, cheapest_union, fit_graph_blocks

SWEEPS = 2
# Natural logarithms of the number of their pairs that a distance of two groups costs. Three times what is usual: distances of
# pairs are not independent of each other, as each map has a noise of its own. Chosen on fourteen generated sets.
WORDS_PER_DISTANCE = 3.0


def shortest_description(
    edges: GraphEdges, linked: Sequence[NDArray[np.int64]], most: int
) -> tuple[int, NDArray[np.int64]]:
    """The number of groups of the partition that is described in the fewest words, and that partition.

    Parameters
    ----------
    edges : GraphEdges
    linked : sequence of int[M, N]
        Partitions by linkage; row K - 1 is that into K groups.
    most : int
        Most groups. From so many two are united at a time, and at every number the likelier goes on of that and of those by
        linkage.

    Returns
    -------
    int, int64[N]
    """
    labels, best, shortest, chosen = linked[0][most - 1].astype(np.int64), linked[0][0], np.inf, 1
    for count in range(most, 0, -1):
        if count < most:
            first, second = cheapest_union(edges, labels, count + 1)
            labels = np.unique(np.where(labels == second, first, labels), return_inverse=True)[1].astype(np.int64)
        starts = [labels, *(path[count - 1] for path in linked)]
        labels, cost = min((fit_graph_blocks(edges, start, count, sweeps=SWEEPS) for start in starts), key=lambda one: one[1])
        length = cost + description_length(edges, labels, count)
        if length < shortest:
            best, shortest, chosen = labels, length, count
    return chosen, best


def description_length(edges: GraphEdges, labels: NDArray[np.int64], n_groups: int) -> float:
    """Twice what it takes to tell the group of each map and the distances of groups that were compared, in natural units."""
    size = np.bincount(labels, minlength=n_groups)
    groups = -2 * float((size * np.log(np.maximum(size, 1) / len(labels))).sum())
    rows = np.repeat(labels, np.diff(edges.start))
    columns = labels[edges.other]
    between = np.bincount((rows * n_groups + columns)[rows < columns], minlength=n_groups**2)
    return groups + WORDS_PER_DISTANCE * float(np.log(between[between > 0] + 1).sum())
