"""The similarity of `science.similarity` for a list of pairs: nothing grows with the square of the number of maps.

Formulas, and their reasons, are those of `similarity.estimate_similarity`; here each pair is a row, and sums over the
pairs of a map are sums over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from regroup_dask.science.consensus import shared_variance
from regroup_dask.science.reliability import Reliability, estimate_reliability
from regroup_dask.science.similarity import ROUNDS, STRUCTURE_VARIANCE, information_of, transfer_loss, transfer_slopes

# At most so many steps for the shares of signal; each map has tens of neighbours, so fewer are needed.
CONJUGATE_STEPS = 100
NEIGHBOURS = 40
MAPS_AT_A_TIME = 500
ROWS_AT_A_TIME = 65_536


class SparseSimilarity(NamedTuple):
    """What `Similarity` says, for P pairs of N maps.

    Attributes
    ----------
    similarity, distance, distance_sigma, correlation : float64[P]
    shared_sigma : float64[N]
    signal_fraction : float64[N, S]
    information : float64[N]
    reliability : Reliability
    coefficients : float64[S]
        Independent complex coefficients per shell under the mask.
    """

    similarity: NDArray[np.float64]
    distance: NDArray[np.float64]
    distance_sigma: NDArray[np.float64]
    correlation: NDArray[np.float64]
    shared_sigma: NDArray[np.float64]
    signal_fraction: NDArray[np.float64]
    information: NDArray[np.float64]
    reliability: Reliability
    coefficients: NDArray[np.float64]

    @property
    def reliability_of_shells(self) -> tuple[Reliability, NDArray[np.float64]]:
        """As of `Similarity`."""
        return self.reliability, self.coefficients


def estimate_sparse_similarity(
    pairs: NDArray[np.int64],
    cross_power: NDArray[np.floating],
    power_fixed: NDArray[np.floating],
    power_moving: NDArray[np.floating],
    *,
    n_maps: int,
    coefficients: NDArray[np.float64],
    solvent_power: NDArray[np.float64] | None = None,
    solvent_fraction: NDArray[np.float64] | None = None,
    half_map_fsc: NDArray[np.float64] | None = None,
    ssnr: NDArray[np.float64] | None = None,
    mask_volume_fraction: float | NDArray[np.float64] = 1.0,
) -> SparseSimilarity:
    """Estimate the correlation of noise-free structures, and its uncertainty, for some pairs of maps.

    Parameters
    ----------
    pairs : int64[P, 2]
        Maps i < j of each pair, each pair once.
    cross_power, power_fixed, power_moving : float[P, S]
        Sums over the coefficients of each shell, as for `similarity.estimate_similarity`.
    n_maps
        N.
    coefficients, solvent_power, solvent_fraction, half_map_fsc, ssnr, mask_volume_fraction
        As for `similarity.estimate_similarity`.

    Returns
    -------
    SparseSimilarity
    """
    first, second = pairs.T
    power = own_power(pairs, power_fixed, power_moving, n_maps)
    fsc = _shell_correlation(cross_power, power_fixed, power_moving)
    mean_mask = max(float(np.mean(mask_volume_fraction)), 1e-6)
    effective = np.maximum(np.asarray(coefficients, np.float64) * mean_mask, 1e-9)
    reliability = estimate_reliability(
        fsc,
        power,
        pairs=pairs,
        coefficients=effective,
        solvent_power=solvent_power,
        solvent_fraction=solvent_fraction,
        half_map_fsc=half_map_fsc,
        ssnr=None if ssnr is None else ssnr / mean_mask,
    )
    slope = transfer_slopes(power, reliability.signal_fraction)
    for rows in _blocks(len(pairs)):
        fsc[rows] = np.clip(fsc[rows] / transfer_loss(slope[first[rows]] - slope[second[rows]]), -1, 1)
    q = reliability.signal_fraction
    variance = shared_variance(reliability, effective)
    distance, sigma, of_first, of_second = _distances(pairs, fsc, q, variance, effective)
    for _ in range(ROUNDS):
        weights = _neighbour_weights(pairs, distance, sigma, n_maps)
        correction, variance = _share_signal(pairs, fsc, reliability, effective, weights)
        q = np.clip(reliability.signal_fraction * np.clip(1 + correction, 0.3, 1.7) ** 2, 0.02, 1.0)
        distance, sigma, of_first, of_second = _distances(pairs, fsc, q, variance, effective)
    blind = ~np.isfinite(distance)
    distance[blind], sigma[blind] = 1.0, 1.0
    return SparseSimilarity(
        similarity=np.clip(1 - distance, 0.0, 1.0),
        distance=distance,
        distance_sigma=sigma,
        correlation=_pearson(cross_power, power_fixed, power_moving),
        shared_sigma=_median_per_map(pairs, of_first, of_second, n_maps),
        signal_fraction=q,
        information=information_of(q, effective),
        reliability=reliability,
        coefficients=effective,
    )


def own_power(
    pairs: NDArray[np.int64], power_fixed: NDArray[np.floating], power_moving: NDArray[np.floating], n_maps: int
) -> NDArray[np.float64]:
    """Power of each map, float64[N, S]: the largest seen, as interpolation only loses power."""
    power = np.zeros((n_maps, power_fixed.shape[1]))
    np.maximum.at(power, pairs[:, 0], np.nan_to_num(power_fixed))
    np.maximum.at(power, pairs[:, 1], np.nan_to_num(power_moving))
    return power


def _blocks(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_A_TIME) for start in range(0, n_rows, ROWS_AT_A_TIME)]


def _shell_correlation(
    cross_power: NDArray[np.floating], power_fixed: NDArray[np.floating], power_moving: NDArray[np.floating]
) -> NDArray[np.float64]:
    product = power_fixed * power_moving
    return np.clip(np.divide(cross_power, np.sqrt(product), out=np.zeros_like(product), where=product > 0), -1, 1)


def _pearson(
    cross_power: NDArray[np.floating], power_fixed: NDArray[np.floating], power_moving: NDArray[np.floating]
) -> NDArray[np.float64]:
    cross, first, second = (x[:, 1:].sum(axis=1, dtype=np.float64) for x in (cross_power, power_fixed, power_moving))
    product = first * second
    return np.clip(np.divide(cross, np.sqrt(product), out=np.zeros_like(product), where=product > 0), -1, 1)


def _distances(
    pairs: NDArray[np.int64],
    fsc: NDArray[np.float64],
    q: NDArray[np.float64],
    variance: NDArray[np.float64],
    coefficients: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of ``1 - c / (r_i r_j)`` over shells, its sigma, and the part in that of each of the two maps."""
    distance, sigma, of_first, of_second = (np.empty(len(pairs)) for _ in range(4))
    inverse_snr = (1 - q) / q
    for rows in _blocks(len(pairs)):
        i, j = pairs[rows].T
        own = inverse_snr[i] * inverse_snr[j] / (2 * coefficients)
        shell_variance = own + variance[i] + variance[j]
        usable = np.isfinite(fsc[rows]) & np.isfinite(shell_variance)
        usable[:, 0] = False
        weight = np.where(usable, 1 / (shell_variance + STRUCTURE_VARIANCE), 0)
        apart = np.where(usable, 1 - fsc[rows] / np.sqrt(q[i] * q[j]), 0)
        squared = weight**2
        total = weight.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            distance[rows] = (weight * apart).sum(axis=1) / total
            sigma[rows] = np.sqrt((squared * np.where(usable, shell_variance, 0)).sum(axis=1)) / total
            of_first[rows] = np.sqrt((squared * np.where(usable, variance[i], 0)).sum(axis=1)) / total
            of_second[rows] = np.sqrt((squared * np.where(usable, variance[j], 0)).sum(axis=1)) / total
    return distance, sigma, of_first, of_second


def _neighbour_weights(
    pairs: NDArray[np.int64], distance: NDArray[np.float64], sigma: NDArray[np.float64], n_maps: int
) -> NDArray[np.float64]:
    """Chance that two maps show one structure; see `consensus.neighbour_weights`."""
    known = np.isfinite(distance) & (sigma > 0)
    bound = np.full(n_maps, np.inf)
    upper = np.where(known, distance + sigma, np.inf)
    np.minimum.at(bound, pairs[:, 0], upper)
    np.minimum.at(bound, pairs[:, 1], upper)
    deviations = np.maximum(np.where(known, sigma, np.inf), 1e-9)
    with np.errstate(invalid="ignore"):
        total = sum(
            np.minimum((np.maximum(distance - bound[pairs[:, side]], 0) / deviations) ** 2, 1e9) for side in (0, 1)
        )
    return np.where(known, np.exp(-0.5 * np.nan_to_num(np.asarray(total), nan=np.inf)), 0.0)


def _share_signal(
    pairs: NDArray[np.int64],
    fsc: NDArray[np.float64],
    reliability: Reliability,
    coefficients: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correct every map's ``r`` per shell by what its likely equals say; see `consensus.share_signal`."""
    q = reliability.signal_fraction
    n_maps = len(q)
    prior = shared_variance(reliability, coefficients)
    near = np.flatnonzero(weights > 1e-6)
    i, j = pairs[near].T
    inverse_snr = (1 - q) / q
    usable = np.isfinite(q[i]) & np.isfinite(q[j]) & np.isfinite(fsc[near])
    usable[:, 0] = False
    noise = inverse_snr[i] * inverse_snr[j] / (2 * coefficients) + 1e-4
    precision = np.where(usable, weights[near, None] / noise, 0.0)
    excess = np.where(usable, fsc[near] / np.sqrt(q[i] * q[j]) - 1, 0.0)
    of_first, of_second = (
        sp.csr_matrix((np.ones(len(near)), (side, np.arange(len(near)))), shape=(n_maps, len(near))) for side in (i, j)
    )
    here = np.isfinite(q)
    here[:, 0] = False
    own = np.where(here, 1 / np.where(here, prior, 1.0), 1.0)
    diagonal = own + (of_first + of_second) @ precision
    pull = (of_first + of_second) @ (precision * excess)

    def applied(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return diagonal * x + of_first @ (precision * x[j]) + of_second @ (precision * x[i])

    correction = _solve_columns(applied, pull, diagonal)
    variance = _diagonal_of_inverse(pairs[near], precision, diagonal)
    return np.where(here, correction, 0.0), np.where(here, variance, prior)


def _diagonal_of_inverse(
    pairs: NDArray[np.int64], precision: NDArray[np.float64], diagonal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Diagonal of the inverse of the normal equations, float64[N, S], each map among its surest neighbours only.

    Exact for a map whose equals are no more than those, and too small by little beyond.
    """
    n_maps, n_shells = diagonal.shape
    n_pairs = len(pairs)
    if not n_pairs:
        return 1 / diagonal
    head, tail = np.concatenate([pairs, pairs[:, ::-1]]).T
    row = np.tile(np.arange(n_pairs), 2)
    total = precision.sum(axis=1)[row]
    order = np.lexsort((tail, -total, head))
    count = np.bincount(head, minlength=n_maps)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    by_key = np.lexsort((tail, head))
    keys = (head * n_maps + tail)[by_key]
    found = np.empty_like(diagonal)
    for first in range(0, n_maps, MAPS_AT_A_TIME):
        maps = np.arange(first, min(first + MAPS_AT_A_TIME, n_maps))
        width = int(min(count[maps].max(), NEIGHBOURS))
        place = np.arange(width)
        there = np.column_stack([np.ones(len(maps), bool), place < count[maps, None]])
        at = order[np.minimum(start[maps, None] + place, 2 * n_pairs - 1)]
        members = np.column_stack([maps, tail[at]])
        wanted = members[:, :, None] * n_maps + members[:, None, :]
        where = np.minimum(np.searchsorted(keys, wanted), 2 * n_pairs - 1)
        joined = (keys[where] == wanted) & there[:, :, None] & there[:, None, :]
        rows = np.where(joined, row[by_key[where]], 0)
        unit = np.zeros((len(maps), width + 1, 1))
        unit[:, 0] = 1.0
        for s in range(n_shells):
            matrix = np.where(joined, precision[rows, s], 0.0)
            matrix[:, np.arange(width + 1), np.arange(width + 1)] = np.where(there, diagonal[members, s], 1.0)
            found[maps, s] = np.linalg.solve(matrix, unit)[:, 0, 0]
    return found


def _solve_columns(
    applied: Callable[[NDArray[np.float64]], NDArray[np.float64]], right: NDArray[np.float64], diagonal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve a positive definite system for every column at once by conjugate gradients, scaled by the diagonal."""
    found = np.zeros_like(right)
    residual = right.copy()
    scaled = residual / diagonal
    direction, power = scaled.copy(), (residual * scaled).sum(axis=0)
    enough = 1e-16 * power
    for _ in range(CONJUGATE_STEPS):
        if (power <= enough).all():
            break
        image = applied(direction)
        along = (direction * image).sum(axis=0)
        step = np.divide(power, along, out=np.zeros_like(power), where=along > 0)
        found += step * direction
        residual -= step * image
        scaled = residual / diagonal
        before, power = power, (residual * scaled).sum(axis=0)
        direction = scaled + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * direction
    return found


def _median_per_map(
    pairs: NDArray[np.int64], of_first: NDArray[np.float64], of_second: NDArray[np.float64], n_maps: int
) -> NDArray[np.float64]:
    """Median over the pairs of each map, 0 where there is none."""
    maps = np.concatenate([pairs[:, 0], pairs[:, 1]])
    values = np.concatenate([of_first, of_second])
    known = np.isfinite(values)
    maps, values = maps[known], values[known]
    order = np.lexsort((values, maps))
    maps, values = maps[order], values[order]
    count = np.bincount(maps, minlength=n_maps)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    some = np.flatnonzero(count)
    result = np.zeros(n_maps)
    result[some] = 0.5 * (values[start[some] + (count[some] - 1) // 2] + values[start[some] + count[some] // 2])
    return result
