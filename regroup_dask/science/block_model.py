"""Block model of distances: classes of one structure are at distance zero, two structures at one distance.

A stochastic block model (Holland, Laskey and Leinhardt 1983) with normal edges of known variance. The
likelihood weighs every distance with its own sigma, so a noisy map is placed by all it is compared with and
disturbs no other.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DISTANCE_SPREAD = 0.2
_MODEL_ERROR = 0.001


class Edges(NamedTuple):
    """What the block model is fitted to.

    Attributes
    ----------
    distance : float64[N, N]
        Zero where unknown.
    variance : float64[N, N]
        Variance that a pair shares with no other; infinite where unknown, and on the diagonal.
    shared_variance : float64[N]
        Variance of what shifts all distances of one class alike: an error in its estimated noise.
    """

    distance: NDArray[np.float64]
    variance: NDArray[np.float64]
    shared_variance: NDArray[np.float64]


class BlockModel(NamedTuple):
    """A partition and what it says.

    Attributes
    ----------
    labels : int64[N]
    cost : float
        Minus twice the log likelihood, up to a constant.
    block_distance : float64[K, K]
        Distance between superclasses; zero on the diagonal.
    offset : float64[N]
        Estimated common shift of the distances of each class.
    placement_costs : float64[N, K]
        Minus twice the log likelihood of each class in each superclass, all others held.
    """

    labels: NDArray[np.int64]
    cost: float
    block_distance: NDArray[np.float64]
    offset: NDArray[np.float64]
    placement_costs: NDArray[np.float64]


def make_edges(
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64],
    shared_sigma: NDArray[np.float64] | None,
) -> Edges:
    """Split variances of distances into what a pair has alone and what each class brings to all its pairs."""
    shared = np.zeros(len(distance)) if shared_sigma is None else np.asarray(shared_sigma, np.float64) ** 2
    variance = distance_sigma**2 - shared[:, None] - shared[None, :]
    variance = np.maximum(variance, 0.02 * distance_sigma**2) + _MODEL_ERROR**2
    variance = np.where(np.isfinite(distance) & np.isfinite(variance), variance, np.inf)
    np.fill_diagonal(variance, np.inf)
    return Edges(np.nan_to_num(distance), variance, shared + 1e-12)


def fit_block_model(edges: Edges, labels: NDArray[np.int64], *, sweeps: int = 30) -> BlockModel:
    """Improve a partition by moving one class at a time to its likeliest superclass, until nothing moves.

    Parameters
    ----------
    edges : Edges
    labels : int[N]
        Where to start; the number of superclasses stays.
    sweeps : int
        At most so many rounds.
    """
    labels = labels.copy()
    n = len(labels)
    offset = np.zeros(n)
    block = _block_distances(edges, offset, labels)
    for _ in range(sweeps):
        moved = False
        for _ in range(2):
            offset = _offsets(edges, block, labels)
            block = _block_distances(edges, offset, labels)
        for i in range(n):
            if (labels == labels[i]).sum() == 1:
                continue
            costs = _placement_costs(edges, offset, labels, block, i)
            best = int(costs.argmin())
            if costs[best] < costs[labels[i]] - 1e-6:
                labels[i] = best
                moved = True
        if not moved:
            break
        block = _block_distances(edges, offset, labels)
    placements = np.stack([_placement_costs(edges, offset, labels, block, i) for i in range(n)])
    return BlockModel(labels, _total_cost(edges, offset, block, labels), block, offset, placements)


def _block_distances(
    edges: Edges, offset: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Weighted mean distance between superclasses, not below zero, float64[K, K]; zero within."""
    k = int(labels.max()) + 1
    member = (labels[:, None] == np.arange(k)[None]).astype(np.float64)
    plain = edges.distance - offset[:, None] - offset[None, :]
    weight = 1 / (edges.variance + (DISTANCE_SPREAD * np.maximum(plain, 0)) ** 2)
    total = member.T @ weight @ member
    summed = member.T @ (weight * plain) @ member
    block = np.maximum(np.divide(summed, total, out=np.zeros_like(summed), where=total > 0), 0)
    np.fill_diagonal(block, 0)
    return block


def _residuals(
    edges: Edges, block: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    expected = block[labels][:, labels]
    return edges.distance - expected, edges.variance + (DISTANCE_SPREAD * expected) ** 2


def _offsets(edges: Edges, block: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weighted least squares of what each class adds to all its distances, shrunk by its expected size."""
    residual, spread = _residuals(edges, block, labels)
    weight = 1 / spread
    normal = weight + np.diag(weight.sum(axis=1) + 1 / edges.shared_variance)
    return np.asarray(np.linalg.solve(normal, (weight * residual).sum(axis=1)))


def _placement_costs(
    edges: Edges, offset: NDArray[np.float64], labels: NDArray[np.int64], block: NDArray[np.float64], i: int
) -> NDArray[np.float64]:
    """Minus twice the log likelihood of row i for each superclass it may be put in, over all its offsets."""
    expected = block[:, labels]
    variance = edges.variance[i]
    known = np.isfinite(variance)
    expected, variance = expected[:, known], variance[known]
    spread = variance[None] + (DISTANCE_SPREAD * expected) ** 2
    residual = edges.distance[i, known][None] - offset[known][None] - expected
    weight = 1 / spread
    cost = (weight * residual**2 + np.log(spread / variance[None])).sum(axis=1)
    precision = weight.sum(axis=1) + 1 / edges.shared_variance[i]
    return np.asarray(cost - (weight * residual).sum(axis=1) ** 2 / precision + np.log(precision))


def _total_cost(
    edges: Edges, offset: NDArray[np.float64], block: NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    residual, spread = _residuals(edges, block, labels)
    residual = residual - offset[:, None] - offset[None, :]
    known = np.isfinite(edges.variance)
    cost = residual[known] ** 2 / spread[known] + np.log(spread[known] / edges.variance[known])
    return float(cost.sum() / 2 + (offset**2 / edges.shared_variance).sum())


class Merges(NamedTuple):
    """Agglomeration of N classes, from N superclasses to one.

    Attributes
    ----------
    labels : int64[N, N]
        Row K - 1 is the partition into K superclasses.
    height : float64[N + 1]
        Entry K: distance of the two superclasses whose union leaves K - 1; NaN for K below 2.
    height_sigma : float64[N + 1]
        Its standard deviation.
    """

    labels: NDArray[np.int64]
    height: NDArray[np.float64]
    height_sigma: NDArray[np.float64]


def agglomerate(edges: Edges, n_clusters: int, *, caution: float = 0.0) -> NDArray[np.int64]:
    """Partition into K by `agglomeration`."""
    return agglomeration(edges, caution=caution).labels[n_clusters - 1]


def agglomeration(edges: Edges, *, caution: float = 0.0) -> Merges:
    """Unite the two superclasses of least mean distance (plus ``caution`` sigmas), until one is left.

    Average linkage with each distance weighted by its inverse variance: as distances are unbiased, their mean
    is the squared difference of the two mean structures, whatever the noise of the members.
    """
    n = len(edges.distance)
    weight = 1 / (edges.variance + edges.shared_variance[:, None] + edges.shared_variance[None])
    summed = weight * edges.distance
    own = edges.shared_variance.copy()
    labels = np.arange(n)
    alive = np.ones(n, bool)
    path = np.zeros((n, n), np.int64)
    height, height_sigma = np.full(n + 1, np.nan), np.full(n + 1, np.nan)
    path[n - 1] = labels
    for k in range(n, 1, -1):
        with np.errstate(invalid="ignore", divide="ignore"):
            score = summed / weight + caution / np.sqrt(weight)
        score[~np.isfinite(score)] = 1e6
        score[~alive] = np.inf
        score[:, ~alive] = np.inf
        np.fill_diagonal(score, np.inf)
        a, b = (int(x) for x in np.unravel_index(int(score.argmin()), score.shape))
        a, b = min(a, b), max(a, b)
        if weight[a, b] > 0:
            height[k] = summed[a, b] / weight[a, b]
            height_sigma[k] = np.sqrt(1 / weight[a, b] + own[a] + own[b])
        own[a] = 1 / (1 / max(own[a], 1e-12) + 1 / max(own[b], 1e-12))
        for matrix in (weight, summed):
            matrix[a] += matrix[b]
            matrix[:, a] += matrix[:, b]
        alive[b] = False
        labels[labels == b] = a
        path[k - 2] = _renumbered(labels)
    return Merges(path, height, height_sigma)


def merge_path(edges: Edges, largest: int, smallest: int = 1) -> dict[int, BlockModel]:
    """Best block model found for each number of superclasses from ``largest`` down to ``smallest``.

    From above, the two superclasses whose union costs least likelihood are united, and classes moved; from
    the side, cautious average linkage starts afresh. The likelier one stays.
    """
    models: dict[int, BlockModel] = {}
    above: BlockModel | None = None
    for k in range(largest, smallest - 1, -1):
        starts = [agglomerate(edges, k, caution=caution) for caution in (0.0, 0.5, 1.0)]
        if above is not None:
            starts += _merged(edges, above, 3)
        fitted = [fit_block_model(edges, start) for start in starts]
        above = models[k] = min(fitted, key=lambda model: model.cost)
    return models


def _merged(edges: Edges, model: BlockModel, n_best: int) -> list[NDArray[np.int64]]:
    """The unions of two superclasses that cost least."""
    k = len(model.block_distance)
    costs = []
    for a in range(k):
        for b in range(a + 1, k):
            labels = _renumbered(np.where(model.labels == b, a, model.labels))
            block = _block_distances(edges, model.offset, labels)
            costs.append((_total_cost(edges, model.offset, block, labels), a, b))
    costs.sort()
    return [_renumbered(np.where(model.labels == b, a, model.labels)) for _, a, b in costs[:n_best]]


def _renumbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
