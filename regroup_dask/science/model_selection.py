"""How many superclasses there are, and how sure each is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from regroup_dask.science.block_model import Edges, Merges, agglomeration

_SAME_STRUCTURE = 0.005


class Stability(NamedTuple):
    """What resampling within the estimated uncertainty says.

    Attributes
    ----------
    class_stability : float64[N]
        Share of resamplings in which a class has its superclass.
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
    count = max(len(resampled), 1)
    return Stability(same / count, overlap / count)


def separation(merges: Merges) -> NDArray[np.float64]:
    """Log ratio of the least distance between K superclasses to that within them, entry K, float64[N].

    The eigengap of von Luxburg (2007) in terms of distances that have a sigma: the first counts by its lower,
    the other by its upper confidence bound, and what is less than half a percent counts as the same
    structure.
    """
    n = len(merges.labels)
    lower = np.maximum(np.nan_to_num(merges.height - 2.5 * merges.height_sigma, nan=0.0), _SAME_STRUCTURE)
    upper = np.maximum(np.nan_to_num(merges.height + 0.5 * merges.height_sigma, nan=1.0), _SAME_STRUCTURE)
    # Average linkage may fall: what K superclasses are apart is the least of all unions from K down.
    lower = np.array([lower[2 : k + 1].min() if k > 1 else 1.0 for k in range(n + 1)])
    upper = np.append(upper, _SAME_STRUCTURE)
    gap = np.full(n, -np.inf)
    for k in range(2, n):
        gap[k] = np.log(lower[k] / max(upper[k + 1], _SAME_STRUCTURE))
    gap[1] = 0.0 if n > 1 and lower[2] <= 2 * _SAME_STRUCTURE else -np.inf
    return gap


def choose_number(
    merges: Merges, resampled: list[Merges], largest: int
) -> tuple[int, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Choose the largest stable separation; returns the number, candidates, their stability and separation."""
    from sklearn.metrics import adjusted_rand_score

    gap = separation(merges)
    candidates = np.arange(1, largest + 1)
    stable = np.ones(len(candidates))
    for index, k in enumerate(candidates):
        if k > 1 and resampled:
            base = merges.labels[k - 1]
            stable[index] = np.mean([adjusted_rand_score(base, other.labels[k - 1]) for other in resampled])
    score = np.where(np.isfinite(gap[candidates]), gap[candidates], -1e3) * np.clip(stable, 0.1, 1)
    chosen = int(candidates[int(score.argmax())]) if len(candidates) else 1
    return chosen, candidates, stable, gap[candidates]
