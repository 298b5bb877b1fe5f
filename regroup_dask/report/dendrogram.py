"""The order of classes in a figure, and the tree that joins them: first within superclasses, then superclasses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage, optimal_leaf_ordering, to_tree
from scipy.spatial.distance import squareform


class Bracket(NamedTuple):
    """One join of the tree: two stems at `left` and `right` that rise to `height` (positions count leaves from 0).

    Attributes
    ----------
    left, right
        Where the stems stand.
    left_height, right_height
        Where the stems begin.
    height
        Dissimilarity at which the two sides join, average linkage.
    superclass
        The superclass that both sides belong to, or -1 when the join is between superclasses.
    """

    left: float
    right: float
    left_height: float
    right_height: float
    height: float
    superclass: int


class Tree(NamedTuple):
    """Positions of the classes from first to last leaf, and the joins."""

    order: NDArray[np.int64]
    brackets: tuple[Bracket, ...]


def class_tree(similarity: NDArray[np.floating], superclass: NDArray[np.integer]) -> Tree:
    """Join classes by average linkage within each superclass, then the superclasses by their mean dissimilarity.

    Parameters
    ----------
    similarity
        ``(N, N)``, 1 for equal; NaN counts as 0.
    superclass
        ``(N,)``; classes of -1 are put last, each on its own.

    Returns
    -------
    Tree
    """
    unlike = 1 - np.nan_to_num(np.asarray(similarity, np.float64))
    unlike = np.clip((unlike + unlike.T) / 2, 0, None)
    np.fill_diagonal(unlike, 0)
    labels = np.asarray(superclass)
    blocks = [np.flatnonzero(labels == label) for label in sorted(set(labels.tolist()) - {-1})]
    blocks += [np.array([index]) for index in np.flatnonzero(labels == -1)]
    if not blocks:
        return Tree(np.zeros(0, np.int64), ())
    between = np.array([[unlike[np.ix_(first, second)].mean() for second in blocks] for first in blocks])
    np.fill_diagonal(between, 0)
    outer_order, outer = _ordered_joins(between)
    # The order may be read from either end: begin nearer to superclass 0.
    outer_order = outer_order[::-1] if outer_order[0] > outer_order[-1] else outer_order
    order: list[int] = []
    brackets: list[Bracket] = []
    tops: dict[int, tuple[float, float]] = {}
    for block in outer_order:
        members = blocks[block]
        inner_order, joins = _ordered_joins(unlike[np.ix_(members, members)])
        start = len(order)
        order.extend(int(members[index]) for index in inner_order)
        ends = {int(leaf): (float(start + position), 0.0) for position, leaf in enumerate(inner_order)}
        tops[block] = _raise(joins, ends, int(labels[members[0]]), len(members), brackets)
    _raise(outer, tops, -1, len(blocks), brackets)
    return Tree(np.array(order, np.int64), tuple(brackets))


def _ordered_joins(unlike: NDArray[np.float64]) -> tuple[list[int], NDArray[np.float64]]:
    if len(unlike) == 1:
        return [0], np.zeros((0, 4))
    condensed = squareform(unlike, checks=False)
    joins = linkage(condensed, "average")
    if len(unlike) <= 200:
        joins = optimal_leaf_ordering(joins, condensed)
    return to_tree(joins).pre_order(), joins


def _raise(
    joins: NDArray[np.float64],
    ends: dict[int, tuple[float, float]],
    superclass: int,
    n_leaves: int,
    brackets: list[Bracket],
) -> tuple[float, float]:
    """Add a bracket for each join; `ends` has place and height of every leaf. Returns those of the root."""
    ends = dict(ends)
    last = next(iter(ends))
    for number, (first, second, height, _) in enumerate(joins):
        (left, left_height), (right, right_height) = sorted((ends[int(first)], ends[int(second)]))
        # Superclasses are not always the clusters of this tree: a stem never goes down.
        top = max(float(height), left_height, right_height)
        brackets.append(Bracket(left, right, left_height, right_height, top, superclass))
        last = n_leaves + number
        ends[last] = ((left + right) / 2, top)
    return ends[last]
