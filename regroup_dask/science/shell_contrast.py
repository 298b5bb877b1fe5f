"""How surely two maps differ: shells weighed by how far apart structures are seen to be in each.

`SparseSimilarity.distance` says how much two structures differ, whatever in; most of its weight lies in the strong shells,
where related structures hardly differ. Whether they differ is told best by the matched filter (North, 1963, Proc. IEEE 51,
1016-1027): each shell counts by the difference that is expected in it, over the variance of what is measured there. What
is expected is the mean difference of those pairs that differ more than half of all do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.reliability import pair_variance, shared_variance
from regroup_dask.science.sparse_similarity import ROWS_AT_A_TIME, SparseSimilarity

LEAST_EXPECTED = 1e-3


class ShellContrast(NamedTuple):
    """Contrast of P pairs of N maps: zero on average for one structure, as a distance is.

    Attributes
    ----------
    contrast, sigma : float64[P]
        1 and 1 where a pair shares no shell.
    shared_sigma : float64[N]
        The part of sigma that shifts all contrasts of a map alike.
    """

    contrast: NDArray[np.float64]
    sigma: NDArray[np.float64]
    shared_sigma: NDArray[np.float64]


def shell_contrast(pairs: NDArray[np.int64], found: SparseSimilarity) -> ShellContrast:
    """Contrast of all pairs.

    Parameters
    ----------
    pairs : int64[P, 2]
    found : SparseSimilarity
        Of these pairs.

    Returns
    -------
    ShellContrast
    """
    q = found.reliability.signal_fraction
    own = shared_variance(found.reliability, found.coefficients)
    expected = _expected(pairs, found, q, own)
    # In units of a distance: what the pairs that the expectation comes from have on average.
    size = float(expected[1:].mean())
    contrast, sigma = np.ones(len(pairs)), np.ones(len(pairs))
    part = np.full((len(pairs), 2), np.nan)
    for rows in _blocks(len(pairs)):
        apart, variance, usable = _apart(pairs[rows], found.fsc[rows], q, own, found.coefficients)
        weight = np.where(usable, expected / variance, 0.0)
        total = (weight * expected).sum(axis=1)
        told = total > 0
        scale = np.divide(size, total, out=np.zeros_like(total), where=told)
        contrast[rows] = np.where(told, (weight * apart).sum(axis=1) * scale, 1.0)
        sigma[rows] = np.where(told, np.sqrt((weight**2 * variance).sum(axis=1)) * scale, 1.0)
        for side in (0, 1):
            of_map = np.where(usable, own[pairs[rows, side]], 0.0)
            part[rows, side] = np.where(told, np.sqrt((weight**2 * of_map).sum(axis=1)) * scale, np.nan)
    return ShellContrast(contrast, sigma, _medians(pairs, part, len(q)))


def _expected(
    pairs: NDArray[np.int64], found: SparseSimilarity, q: NDArray[np.float64], own: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean difference per shell of the pairs that differ more than half of all do, float64[S]."""
    total, summed = np.zeros(q.shape[1]), np.zeros(q.shape[1])
    far = found.distance > np.median(found.distance)
    for rows in _blocks(len(pairs)):
        apart, variance, usable = _apart(pairs[rows], found.fsc[rows], q, own, found.coefficients)
        weight = np.where(usable & far[rows, None], 1 / variance, 0.0)
        total += weight.sum(axis=0)
        summed += (weight * apart).sum(axis=0)
    mean = np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)
    return np.maximum(mean, LEAST_EXPECTED)


def _apart(
    pairs: NDArray[np.int64],
    fsc: NDArray[np.float64],
    q: NDArray[np.float64],
    own: NDArray[np.float64],
    coefficients: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Difference of the structures of some pairs per shell, its variance, and where it is known."""
    i, j = pairs.T
    variance = pair_variance(q[i], q[j], coefficients) + own[i] + own[j]
    usable = np.isfinite(fsc) & np.isfinite(variance)
    usable[:, 0] = False
    apart = np.where(usable, 1 - fsc / np.sqrt(q[i] * q[j]), 0.0)
    return apart, np.where(usable, variance, 1.0), usable


def _medians(pairs: NDArray[np.int64], part: NDArray[np.float64], n_maps: int) -> NDArray[np.float64]:
    """Median over the pairs of each map, 0 where there is none."""
    maps, values = pairs.ravel(), part.ravel()
    maps, values = maps[np.isfinite(values)], values[np.isfinite(values)]
    order = np.lexsort((values, maps))
    count = np.bincount(maps, minlength=n_maps)
    groups = np.split(values[order], np.cumsum(count)[:-1])
    return np.array([np.median(group) if len(group) else 0.0 for group in groups])


def _blocks(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_A_TIME) for start in range(0, n_rows, ROWS_AT_A_TIME)]
