"""The similarity of `science.similarity` for a list of pairs: nothing grows with the square of the number of maps.

Formulas, and their reasons, are those of `similarity.estimate_similarity`; here each pair is a row, and sums over the
pairs of a map are sums over rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.consensus import shared_variance
from regroup_dask.science.reliability import Reliability, estimate_reliability
from regroup_dask.science.similarity import STRUCTURE_VARIANCE, information_of, transfer_loss, transfer_slopes

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
    distance, sigma, of_first, of_second = _distances(pairs, fsc, q, shared_variance(reliability, effective), effective)
    q = np.clip(q, 0.02, 1.0)
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
