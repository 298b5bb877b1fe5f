"""Share of signal per map and shell: from half maps, the model's SSNR, the solvent, and all maps together."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LOWEST_SIGNAL_FRACTION = 0.02
_SCALE_ERROR = {"half_maps": 0.03, "ssnr": 0.15, "solvent": 0.05, "maps": 0.5}
_DECORRELATION = 0.05
_LEAKAGE = 3e-4
_FILTERED_AWAY = 3e-3


class Reliability(NamedTuple):
    """How much of each map's power is signal.

    Attributes
    ----------
    signal_fraction : float64[N, S]
        Signal power over all power, in (0, 1].
    noise_variance : float64[N, S]
        Squared relative random error of the noise power, independent between shells.
    scale_error : float64[N]
        Relative error of the noise power common to all shells of a map.
    decorrelation : float64[N, S]
        Expected size of the loss of correlation that no noise estimate shows: poses, interpolation, and what
        a mask leaks into shells that a low-pass filter emptied.
    source : tuple of str
        Where each map's estimate came from.
    """

    signal_fraction: NDArray[np.float64]
    noise_variance: NDArray[np.float64]
    scale_error: NDArray[np.float64]
    decorrelation: NDArray[np.float64]
    source: tuple[str, ...]


def estimate_reliability(
    fsc: NDArray[np.float64],
    power: NDArray[np.float64],
    *,
    coefficients: NDArray[np.float64],
    pairs: NDArray[np.int64],
    solvent_power: NDArray[np.float64] | None = None,
    solvent_fraction: NDArray[np.float64] | None = None,
    half_map_fsc: NDArray[np.float64] | None = None,
    ssnr: NDArray[np.float64] | None = None,
) -> Reliability:
    """Estimate the share of signal in every map and shell.

    Parameters
    ----------
    fsc : float[P, S]
        Shell correlations of pairs of maps.
    power : float[N, S]
        Power of each (masked) map per shell.
    coefficients : float[S]
        Independent coefficients per shell under the mask.
    pairs : int64[P, 2]
        The maps of each row of ``fsc``.
    solvent_power, half_map_fsc, ssnr : float[N, S], optional
        See `similarity.estimate_similarity`.
    solvent_fraction : float[N], optional

    Returns
    -------
    Reliability
    """
    n, n_shells = power.shape
    q = np.full((n, n_shells), np.nan)
    measured_on = np.ones(n)
    source = ["maps"] * n
    if solvent_power is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            from_solvent = 1 - solvent_power / power
        fraction = np.full(n, 0.3) if solvent_fraction is None else np.asarray(solvent_fraction, np.float64)
        _take(q, source, from_solvent, "solvent")
        measured_on = np.array([max(fraction[i], 1e-3) if source[i] == "solvent" else 1.0 for i in range(n)])
    if ssnr is not None:
        _take(q, source, ssnr / (1 + ssnr), "ssnr")
    if half_map_fsc is not None:
        _take(q, source, 2 * half_map_fsc / (1 + np.maximum(half_map_fsc, 0)), "half_maps")
    measured_on[[i for i in range(n) if source[i] != "solvent"]] = 1.0
    unknown = ~np.isfinite(q).any(axis=1)
    if unknown.any():
        q[unknown] = _rank_one(fsc, pairs, n)[unknown]
    q = np.clip(np.nan_to_num(q, nan=0.0), 0, 1.0)
    noise_variance = 1 / (coefficients[None, :] * measured_on[:, None])
    q_sigma = (1 - q) * np.sqrt(noise_variance + 1 / coefficients[None, :])
    q = np.where(q > np.maximum(3 * q_sigma, 0.05), q, np.nan)
    failing = np.isnan(q)
    failing[:, 0] = False
    twice = failing[:, :-1] & failing[:, 1:]
    q[:, 1:] = np.where(np.cumsum(twice, axis=1) > 0, np.nan, q[:, 1:])
    passed = _passed(q, power)
    q = np.where(passed > _FILTERED_AWAY, q, np.nan)
    decorrelation = _DECORRELATION * (np.arange(n_shells) / max(n_shells - 1, 1)) ** 2 + np.minimum(
        _LEAKAGE / np.maximum(np.nan_to_num(passed, nan=1.0), 1e-6), 1.0
    )
    scale_error = np.array([_SCALE_ERROR[name] for name in source])
    # A thin rim of solvent is a poor sample of the noise within the particle.
    scale_error = np.minimum(scale_error + 0.01 * (1 / np.maximum(measured_on, 0.02) - 1), 0.6)
    return Reliability(q, noise_variance, scale_error, decorrelation, tuple(source))


def _take(q: NDArray[np.float64], source: list[str], estimate: NDArray[np.float64], name: str) -> None:
    for i in np.flatnonzero(np.isfinite(estimate[:, 1:]).any(axis=1)):
        q[i] = estimate[i]
        source[i] = name


def _rank_one(
    fsc: NDArray[np.float64], pairs: NDArray[np.int64], n_maps: int, rounds: int = 20
) -> NDArray[np.float64]:
    """Smallest shares of signal that explain each map's best correlations, float64[N, S]."""
    c = np.nan_to_num(np.clip(fsc, 0, 1), nan=0.0)

    def best(of_first: NDArray[np.float64], of_second: NDArray[np.float64]) -> NDArray[np.float64]:
        highest = np.zeros((n_maps, c.shape[1]))
        np.maximum.at(highest, pairs[:, 0], of_first)
        np.maximum.at(highest, pairs[:, 1], of_second)
        return highest

    r = np.sqrt(np.maximum(best(c, c), 1e-4))
    for _ in range(rounds):
        r = np.sqrt(r * np.clip(best(c / r[pairs[:, 1]], c / r[pairs[:, 0]]), 1e-2, 1))
    return np.asarray(r**2)


def _passed(q: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the signal power that each map's own filter lets through, against the least filtered map."""
    signal = np.nan_to_num(q * power, nan=0.0)
    low = signal[:, 1:5].sum(axis=1, keepdims=True)
    relative = np.divide(signal, low, out=np.zeros_like(signal), where=low > 0)
    strongest = relative.max(axis=0, initial=1e-300)
    return np.asarray(relative / np.maximum(strongest, 1e-300))


def shared_variance(reliability: Reliability, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance per map and shell of the relative error of ``r``, float64[N, S].

    It has the map's own noise in its power (``a^2 / 4m`` for an inverse signal-to-noise ratio a), the noise
    of the noise estimate, its scale error, and what decorrelates a map from all others alike (a small error
    of its pose, interpolation, leakage).
    """
    q = reliability.signal_fraction
    a = (1 - q) / q
    random = a**2 * (1 / coefficients[None] + reliability.noise_variance) / 4
    scale = (a * reliability.scale_error[:, None]) ** 2 / 4
    return np.asarray(random + scale + reliability.decorrelation**2)


def pair_variance(
    first: NDArray[np.float64], second: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Variance of ``c / (r_i r_j)`` that two maps of such shares of signal have with no third: ``a b / 2m``."""
    return np.asarray((1 - first) / first * (1 - second) / second / (2 * coefficients))


def select_maps(reliability: Reliability, used: NDArray[np.integer]) -> Reliability:
    """The same for some of the maps."""
    return Reliability(
        reliability.signal_fraction[used],
        reliability.noise_variance[used],
        reliability.scale_error[used],
        reliability.decorrelation[used],
        tuple(reliability.source[i] for i in used),
    )
