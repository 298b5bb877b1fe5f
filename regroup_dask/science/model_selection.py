"""How many superclasses there are, and how sure each is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from regroup_dask.science.block_model import Edges, Merges, agglomeration

_SAME_STRUCTURE = 0.003
_SIGNIFICANT = 2.3
_CLEARLY_LESS = 0.25


class Stability(NamedTuple):
    """What resampling within the estimated uncertainty says.

    Attributes
    ----------
    class_stability : float64[N]
        Share of resamplings in which a class has its superclass; NaN without resamplings.
    superclass_stability : float64[K]
        Mean Jaccard overlap of a superclass with its match (Hennig 2007).
    """

    class_stability: NDArray[np.float64]
    superclass_stability: NDArray[np.float64]


def resample(edges: Edges, n_resamplings: int, seed: int) -> list[Merges]:
    """Agglomerate again with distances disturbed within their uncertainty, own and shared by a class."""
    rng = np.random.default_rng(seed)
    n = len(edges.distance)
    result = []
    for _ in range(n_resamplings):
        noise = np.triu(rng.normal(size=(n, n)), 1)
        shared = rng.normal(size=n) * np.sqrt(edges.shared_variance)
        sd = np.sqrt(np.where(np.isfinite(edges.variance), edges.variance, 0))
        disturbed = edges.distance + (noise + noise.T) * sd + shared[:, None] + shared[None, :]
        result.append(agglomeration(edges._replace(distance=disturbed)))
    return result


def stability(labels: NDArray[np.int64], resampled: list[NDArray[np.int64]]) -> Stability:
    """Match every resampled partition to ``labels`` and count."""
    k = int(labels.max()) + 1
    if not resampled:
        return Stability(np.full(len(labels), np.nan), np.full(k, np.nan))
    same, overlap = np.zeros(len(labels)), np.zeros(k)
    for other in resampled:
        table = np.zeros((k, max(k, int(other.max()) + 1)))
        np.add.at(table, (labels, other), 1)
        union = table.sum(axis=1)[:, None] + table.sum(axis=0)[None] - table
        jaccard = table / np.maximum(union, 1)
        rows, columns = linear_sum_assignment(-table)
        match = np.full(k, -1)
        match[rows] = columns
        same += match[labels] == other
        overlap[rows] += jaccard[rows, columns]
    return Stability(same / len(resampled), overlap / len(resampled))


def agreement(labels: NDArray[np.integer], others: NDArray[np.integer]) -> NDArray[np.float64]:
    """Adjusted Rand index of each of some partitions with one (Hubert and Arabie, 1985, J. Classif. 2, 193-218).

    From counts of pairs, many partitions at once: a library's function checks its input for as long as all of them take.

    Parameters
    ----------
    labels : int[N]
        From 0.
    others : int[R, N]
        From 0.

    Returns
    -------
    float64[R]
    """
    others = np.asarray(others)
    n_others, n = others.shape
    n_first, n_second = int(labels.max()) + 1, int(others.max()) + 1
    place = (np.arange(n_others)[:, None] * n_first + labels) * n_second + others
    table = np.bincount(place.ravel(), minlength=n_others * n_first * n_second).reshape(n_others, n_first, n_second)

    def pairs(counts: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray((counts * (counts - 1.0)).sum(axis=-1) / 2)

    both = pairs(table.reshape(n_others, -1))
    first, second = pairs(table.sum(axis=2)), pairs(table.sum(axis=1))
    expected = first * second / max(n * (n - 1) / 2, 1)
    most = (first + second) / 2
    same = most == expected  # all in one, or all apart, in both
    return np.asarray(np.where(same, 1.0, (both - expected) / np.where(same, 1.0, most - expected)))


def separation(merges: Merges) -> NDArray[np.float64]:
    """Log ratio of the distance at which K superclasses unite to that at which K + 1 do, entry K, float64[N].

    The eigengap of von Luxburg (2007) in terms of distances that have a sigma: the first counts by its
    lower, the other by its upper confidence bound; what is less than `_SAME_STRUCTURE` counts as that.
    """
    n = len(merges.labels)
    lower = np.maximum(_lower_bound(merges), _SAME_STRUCTURE)
    upper = np.maximum(np.nan_to_num(merges.height + 0.5 * merges.height_sigma, nan=0.0), _SAME_STRUCTURE)
    upper = np.append(upper, _SAME_STRUCTURE)
    gap = np.full(n, -np.inf)
    gap[1] = np.log(1 / upper[2]) if n > 1 and lower[2] <= _SAME_STRUCTURE else -np.inf
    gap[2:] = np.log(lower[2:n] / upper[3 : n + 1])
    return gap


def _lower_bound(merges: Merges) -> NDArray[np.float64]:
    return np.asarray(np.nan_to_num(merges.height - _SIGNIFICANT * merges.height_sigma, nan=1.0))


def significant_number(merges: Merges, largest: int) -> int:
    """Most superclasses that all differ by more than chance and more than maps of one structure do."""
    lower = _lower_bound(merges)
    k = 1
    while k < largest and lower[k + 1] > _SAME_STRUCTURE:
        k += 1
    return k


def choose_number(
    merges: Merges, resampled: list[Merges], largest: int
) -> tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of superclasses, the candidates, their stability, and their separation.

    As many as differ significantly, if what is left within them is not more; where differences fade out
    without a gap (a continuum), the stable number with the widest gap instead.
    """
    gap = separation(merges)
    candidates = np.arange(1, largest + 1)
    stable = np.ones(len(candidates))
    for index, k in enumerate(candidates):
        if k > 1 and resampled:
            base = merges.labels[k - 1]
            stable[index] = agreement(base, np.array([other.labels[k - 1] for other in resampled])).mean()
    chosen = significant_number(merges, largest)
    if chosen > 1 and gap[chosen] < np.log(_CLEARLY_LESS):
        score = np.where(np.isfinite(gap[candidates]), gap[candidates], -np.inf) * np.clip(stable, 0.1, 1)
        chosen = int(candidates[:chosen][int(score[:chosen].argmax())])
    return chosen, candidates, stable, gap[candidates]
