"""Maps that a likelihood put where hardly anything is known of them, back to the group that they are nearest to."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from regroup_dask.science.sparse_blocks import GraphEdges

SWEEPS = 3
# In standard deviations of the difference of two mean distances.
SIGNIFICANTLY_NEARER = 4.0


def join_nearest(edges: GraphEdges, labels: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """Put maps with the group that they are nearest to, where it is significantly nearer than their own; none is emptied.

    A map that is far from all of its group, for a reason of its own, is likelier where it has hardly a pair. It goes only
    where it has as many pairs as with its own group, so that maps do not follow a single one that went astray.

    Parameters
    ----------
    edges : GraphEdges
    labels : int[N]
        0 .. ``n_groups`` - 1.
    n_groups : int

    Returns
    -------
    int64[N]
    """
    labels = labels.astype(np.int64)
    _join_nearest(*edges, labels, n_groups, SIGNIFICANTLY_NEARER)
    return labels


@njit(cache=True, nogil=True)
def _join_nearest(
    start: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    variance: np.ndarray,
    shared_variance: np.ndarray,
    labels: np.ndarray,
    n_groups: int,
    significant: float,
) -> None:
    count = np.bincount(labels, minlength=n_groups)
    for _ in range(SWEEPS):
        moved = False
        before = labels.copy()
        for i in range(len(labels)):
            own = labels[i]
            if count[own] == 1 or start[i + 1] == start[i]:
                continue
            total, summed, met = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups, np.int64)
            for at in range(start[i], start[i + 1]):
                k = before[other[at]]
                weight = 1.0 / (variance[at] + shared_variance[other[at]])
                total[k] += weight
                summed[k] += weight * distance[at]
                met[k] += 1
            best = own
            for k in range(n_groups):
                if met[k] == 0 or met[k] < met[own]:
                    continue
                if total[best] == 0.0 or summed[k] / total[k] < summed[best] / total[best]:
                    best = k
            if best == own:
                continue
            if total[own] == 0.0 and (met > 0).sum() == n_groups - 1:
                continue
            if total[own] > 0.0:
                ahead = summed[own] / total[own] - summed[best] / total[best]
                if ahead < significant * np.sqrt(1.0 / total[own] + 1.0 / total[best]):
                    continue
            count[own] -= 1
            count[best] += 1
            labels[i] = best
            moved = True
        if not moved:
            break
