"""Average linkage of a graph of maps: `block_model.agglomeration` for thousands of maps of which some pairs are known.

The nearest partner of every group is kept and looked for anew only when it changed (Muellner, 2011, arXiv:1109.2378, the
generic algorithm), so that the time grows with the square of the number of maps and not with its cube.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from regroup_dask.science.block_model import Edges, Merges


def link_graph(edges: Edges, most: int, *, caution: float = 0.0) -> Merges:
    """Unite the two groups of least mean distance (plus ``caution`` sigmas), until one is left.

    Parameters
    ----------
    edges : Edges
        An infinite variance means that a pair is not known. Groups between which no pair is known are united last.
    most : int
        Partitions into 1 .. ``most`` groups are kept.
    caution : float

    Returns
    -------
    Merges
        ``labels`` int64[most, N]; ``height`` and ``height_sigma`` float64[most + 1].
    """
    n_maps = len(edges.distance)
    most = min(most, n_maps)
    weight = 1 / (edges.variance + edges.shared_variance[:, None] + edges.shared_variance[None])
    np.fill_diagonal(weight, 0.0)
    summed = weight * edges.distance
    kept, gone = np.zeros(max(n_maps - 1, 0), np.int64), np.zeros(max(n_maps - 1, 0), np.int64)
    heights, sigmas = np.full(n_maps + 1, np.nan), np.full(n_maps + 1, np.nan)
    own = np.maximum(edges.shared_variance, 1e-12)
    _unite_nearest(weight, summed, own, caution, kept, gone, heights, sigmas)
    return Merges(_partitions(kept, gone, n_maps, most), heights[: most + 1], sigmas[: most + 1])


def _partitions(kept: NDArray[np.int64], gone: NDArray[np.int64], n_maps: int, most: int) -> NDArray[np.int64]:
    labels = np.arange(n_maps)
    path = np.zeros((most, n_maps), np.int64)
    if most == n_maps:
        path[n_maps - 1] = labels
    for step in range(n_maps - 1):
        labels[labels == gone[step]] = kept[step]
        left = n_maps - 1 - step
        if left <= most:
            path[left - 1] = np.unique(labels, return_inverse=True)[1]
    return path


@njit(cache=True, nogil=True)
def _nearest(
    weight: np.ndarray, summed: np.ndarray, alive: np.ndarray, caution: float, row: int
) -> tuple[int, float]:
    best, found = np.inf, -1
    for column in range(weight.shape[0]):
        if alive[column] and column != row and weight[row, column] > 0.0:
            score = summed[row, column] / weight[row, column] + caution / np.sqrt(weight[row, column])
            if score < best:
                best, found = score, column
    return found, best


@njit(cache=True, nogil=True)
def _unite_nearest(
    weight: np.ndarray,
    summed: np.ndarray,
    own: np.ndarray,
    caution: float,
    kept: np.ndarray,
    gone: np.ndarray,
    heights: np.ndarray,
    sigmas: np.ndarray,
) -> None:
    """Write which group takes in which, and at what distance; uses up its tables."""
    n_maps = weight.shape[0]
    alive = np.ones(n_maps, np.bool_)
    partner, score = np.empty(n_maps, np.int64), np.empty(n_maps)
    for row in range(n_maps):
        partner[row], score[row] = _nearest(weight, summed, alive, caution, row)
    for step in range(n_maps - 1):
        a = -1
        for row in range(n_maps):
            if alive[row] and (a < 0 or score[row] < score[a]):
                a = row
        b = partner[a]
        if b < 0:
            for row in range(n_maps):
                if alive[row] and row != a:
                    b = row
                    break
        if b < a:
            a, b = b, a
        left = n_maps - step
        if weight[a, b] > 0.0:
            heights[left] = summed[a, b] / weight[a, b]
            sigmas[left] = np.sqrt(1.0 / weight[a, b] + own[a] + own[b])
        own[a] = 1.0 / (1.0 / own[a] + 1.0 / own[b])
        kept[step], gone[step] = a, b
        alive[b] = False
        for column in range(n_maps):
            if alive[column] and column != a:
                weight[a, column] += weight[b, column]
                summed[a, column] += summed[b, column]
                weight[column, a], summed[column, a] = weight[a, column], summed[a, column]
        for row in range(n_maps):
            if not alive[row]:
                continue
            if row == a or partner[row] == a or partner[row] == b:
                partner[row], score[row] = _nearest(weight, summed, alive, caution, row)
            elif weight[row, a] > 0.0:
                now = summed[row, a] / weight[row, a] + caution / np.sqrt(weight[row, a])
                if now < score[row]:
                    partner[row], score[row] = a, now
