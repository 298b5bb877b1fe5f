"""How alike the structures behind the maps of some pairs are: nothing grows with the square of the number of maps.

The formulas, and their reasons, are told in `similarity.estimate_similarity`; here each pair is a row, and sums over the
pairs of a map are sums over rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.masked_noise import shell_leak, ssnr_under_mask
from regroup_dask.science.reliability import Reliability, estimate_reliability, pair_variance, shared_variance

STRUCTURE_VARIANCE = 2e-4
ROWS_AT_A_TIME = 65_536


class SparseSimilarity(NamedTuple):
    """What `Similarity` says, for P pairs of N maps.

    Attributes
    ----------
    similarity, distance, distance_sigma, correlation : float64[P]
    shared_sigma : float64[N]
    signal_fraction : float64[N, S]
    information : float64[N]
    fsc : float64[P, S]
        Shell correlations, with what is lost where filters differ within a shell made up for.
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
    fsc: NDArray[np.float64]
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
    mask_spectrum: NDArray[np.float64] | None = None,
    power: NDArray[np.float64] | None = None,
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
    coefficients, solvent_power, solvent_fraction, half_map_fsc, ssnr, mask_volume_fraction, mask_spectrum
        As for `similarity.estimate_similarity`.
    power : float[N, S], optional
        Power of each map, where it is known otherwise than from the pairs.

    Returns
    -------
    SparseSimilarity
    """
    first, second = pairs.T
    power = own_power(pairs, power_fixed, power_moving, n_maps) if power is None else power
    fsc = _shell_correlation(cross_power, power_fixed, power_moving)
    fraction = np.broadcast_to(np.asarray(mask_volume_fraction, np.float64), n_maps)
    # One mask for all. That of a quiet map is taken for too small, as nothing tells its silent solvent from no solvent.
    typical = int(np.argsort(fraction, kind="stable")[3 * n_maps // 4])
    mean_mask = max(float(fraction[typical]), 1e-6)
    effective = np.maximum(np.asarray(coefficients, np.float64) * mean_mask, 1e-9)
    if ssnr is not None and mask_spectrum is None:
        ssnr = ssnr / mean_mask
    elif ssnr is not None and mask_spectrum is not None:
        ssnr = ssnr_under_mask(ssnr, power / (2 * coefficients), shell_leak(mask_spectrum[typical]))
    reliability = estimate_reliability(
        fsc,
        power,
        pairs=pairs,
        coefficients=effective,
        solvent_power=solvent_power,
        solvent_fraction=solvent_fraction,
        half_map_fsc=half_map_fsc,
        ssnr=ssnr,
    )
    slope = transfer_slopes(power, reliability.signal_fraction)
    for rows in _blocks(len(pairs)):
        fsc[rows] = np.clip(fsc[rows] / transfer_loss(slope[first[rows]] - slope[second[rows]]), -1, 1)
    q = reliability.signal_fraction
    distance, sigma, of_first, of_second = _distances(pairs, fsc, reliability, effective)
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
        fsc=fsc,
        reliability=reliability,
        coefficients=effective,
    )


def transfer_slopes(power: NDArray[np.float64], signal_fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope of the logarithm of each map's signal amplitude from shell to shell, float64[N, S]; NaN where unknown."""
    with np.errstate(invalid="ignore", divide="ignore"):
        log_signal = 0.5 * np.log(np.where(signal_fraction > 0, signal_fraction * power, np.nan))
    slope = np.full_like(log_signal, np.nan)
    slope[:, 1:-1] = (log_signal[:, 2:] - log_signal[:, :-2]) / 2
    one_sided = np.diff(log_signal, axis=1, prepend=np.nan)
    return np.where(np.isfinite(slope), slope, one_sided)


def transfer_loss(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation that is left of two maps of one structure whose `transfer_slopes` differ by so much."""
    return np.asarray(np.exp(-np.minimum(np.nan_to_num(difference, nan=0.0) ** 2, 4.0) / 24))


def information_of(signal_fraction: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients' worth of signal in each map, float64[N]."""
    return np.asarray((np.nan_to_num(signal_fraction[:, 1:]) ** 2 * coefficients[1:]).sum(axis=1))


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
    reliability: Reliability,
    coefficients: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of ``1 - c / (r_i r_j)`` over shells, its sigma, and the part in that of each of the two maps.

    What is random differs from shell to shell and averages out; an error of the scale of a map's noise, or of its pose,
    is one for all shells of the map, and does not.
    """
    distance, sigma, of_first, of_second = (np.empty(len(pairs)) for _ in range(4))
    q = reliability.signal_fraction
    variance = shared_variance(reliability, coefficients)
    scale = 0.5 * (1 - q) / q * reliability.scale_error[:, None]
    random = variance - scale**2
    for rows in _blocks(len(pairs)):
        i, j = pairs[rows].T
        own = pair_variance(q[i], q[j], coefficients)
        shell_variance = own + variance[i] + variance[j]
        usable = np.isfinite(fsc[rows]) & np.isfinite(shell_variance)
        usable[:, 0] = False
        weight = np.where(usable, 1 / (shell_variance + STRUCTURE_VARIANCE), 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            weight /= weight.sum(axis=1, keepdims=True)
            distance[rows] = (weight * np.where(usable, 1 - fsc[rows] / np.sqrt(q[i] * q[j]), 0)).sum(axis=1)
            total = (weight**2 * np.where(usable, own, 0)).sum(axis=1)
            for of_map, k in ((of_first, i), (of_second, j)):
                part = (weight**2 * np.where(usable, random[k], 0)).sum(axis=1)
                part += (weight * np.where(usable, scale[k], 0)).sum(axis=1) ** 2
                of_map[rows] = np.sqrt(part)
                total += part
            sigma[rows] = np.sqrt(total)
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
