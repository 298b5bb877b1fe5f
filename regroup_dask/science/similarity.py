"""How alike the structures behind class maps are, whatever their noise, resolution and gain; with sigmas."""

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.consensus import neighbour_weights, pair_variance, share_signal, shared_variance
from regroup_dask.science.reliability import Reliability, estimate_reliability
from regroup_dask.science.shell_model import ShellComparison

logger = logging.getLogger(__name__)

STRUCTURE_VARIANCE = 2e-4
ROUNDS = 3


class Similarity(NamedTuple):
    """Pairwise comparison of N class maps; NaN for pairs that were not compared.

    Attributes
    ----------
    similarity : float64[N, N]
        Estimated correlation of the two noise-free structures, 0..1, over the shells that both maps have;
        diagonal 1.
    distance : float64[N, N]
        One minus that correlation, not clipped: zero on average for two maps of one structure, so also
        negative.
    distance_sigma : float64[N, N]
        Standard deviation of ``distance`` expected from the noise of the maps and of the noise estimates.
    shared_sigma : float64[N]
        The part of ``distance_sigma`` that shifts all distances of a map alike: what is unsure about its
        noise.
    correlation : float64[N, N]
        Pearson correlation of the two maps (without the mean), the original job's measure; diagonal 1.
    signal_fraction : float64[N, S]
        Estimated share of signal in the power of each map and shell (C_ref squared).
    noise_source : tuple of str
        Per map where its noise estimate came from: ``half_maps``, ``ssnr``, ``solvent`` or ``maps`` (all maps
        together).
    information : float64[N]
        Number of independent Fourier coefficients' worth of signal in a map: sum over shells of coefficients
        times signal share squared. A map of pure noise has about none.
    """

    similarity: NDArray[np.float64]
    distance: NDArray[np.float64]
    distance_sigma: NDArray[np.float64]
    shared_sigma: NDArray[np.float64]
    correlation: NDArray[np.float64]
    signal_fraction: NDArray[np.float64]
    noise_source: tuple[str, ...]
    information: NDArray[np.float64]
    shells: ShellComparison

    @property
    def reliability_of_shells(self) -> tuple[Reliability, NDArray[np.float64]]:
        """Share of signal as first estimated, and the independent coefficients of each shell."""
        return self.shells.reliability, self.shells.coefficients


def estimate_similarity(
    cross_power: NDArray[np.float64],
    power_fixed: NDArray[np.float64],
    power_moving: NDArray[np.float64],
    *,
    coefficients: NDArray[np.float64],
    solvent_power: NDArray[np.float64] | None = None,
    solvent_fraction: NDArray[np.float64] | None = None,
    half_map_fsc: NDArray[np.float64] | None = None,
    ssnr: NDArray[np.float64] | None = None,
    mask_volume_fraction: float | NDArray[np.float64] = 1.0,
) -> Similarity:
    """Estimate the correlation of noise-free structures, and its uncertainty, for all pairs of maps.

    Per shell the correlation of two maps is ``c = rho r_i r_j``: rho is the correlation of the structures and
    ``r^2`` the share of signal in a map's power (Rosenthal and Henderson's C_ref), which gain and transfer
    functions leave alone. ``1 - c / (r_i r_j)`` is the noise-weighted squared difference of the two maps,
    each shell scaled to unit signal, minus its expectation, halved: it is zero on average for one structure
    whatever the noise. Its variance with inverse signal-to-noise ratios a and b and m coefficients is ``(a +
    b)^2 / 4m`` from the maps, and ``(a^2 + b^2) / 4mf`` from a noise power that was measured on a fraction f
    of as many coefficients. Shells are averaged with the inverse of that variance, so that only shells that
    both maps have count.

    Parameters
    ----------
    cross_power, power_fixed, power_moving : float[N, N, S]
        Per pair (one triangle is enough) and shell, sums over Fourier coefficients of ``Re(F_i conj F_j)``,
        ``|F_i|^2`` and ``|F_j|^2`` of the masked maps at the pose of the pair; NaN where a pair was not
        compared. The diagonal is not read, except for power.
    coefficients : float[S]
        Independent complex Fourier coefficients per shell of the box (`noise.shell_coefficients`).
    solvent_power : float[N, S], optional
        Noise power per shell of each masked map (`noise.MapStatistics`), NaN where unknown.
    solvent_fraction : float[N], optional
        Share of the box that it was measured in; 0.3 if not given.
    half_map_fsc : float[N, S], optional
        Half-map FSC per map, NaN where unknown. Comes before ``ssnr``, and that before ``solvent_power``.
    ssnr : float[N, S], optional
        Signal-to-noise power ratio of the whole, unmasked map per shell (RELION: rlnSsnrMap over the tau2
        fudge factor).
    mask_volume_fraction : float or float[N]
        Mean over the box of the squared mask that the maps were multiplied with: noise under a mask has that
        many fewer independent coefficients.

    Returns
    -------
    Similarity

    References
    ----------
    Rosenthal, P. B. and Henderson, R. (2003). J. Mol. Biol. 333, 721-745.
    """
    n = cross_power.shape[0]
    power = _own_power(power_fixed, power_moving)
    fsc = _shell_correlation(cross_power, power_fixed, power_moving)
    mean_mask = max(float(np.mean(mask_volume_fraction)), 1e-6)
    effective = np.maximum(np.asarray(coefficients, np.float64) * mean_mask, 1e-9)
    reliability = estimate_reliability(
        fsc,
        power,
        coefficients=effective,
        solvent_power=solvent_power,
        solvent_fraction=solvent_fraction,
        half_map_fsc=half_map_fsc,
        # Signal is within the mask, noise was everywhere: a mask raises the ratio by the noise it takes.
        ssnr=None if ssnr is None else ssnr / mean_mask,
    )
    fsc = even_transfer(fsc, power, reliability.signal_fraction)
    q = reliability.signal_fraction
    variance = shared_variance(reliability, effective)
    distance, sigma, shared = shell_weighted_distance(fsc, q, variance, effective)
    for _ in range(ROUNDS):
        weights = neighbour_weights(distance, sigma)
        correction, variance, _ = share_signal(fsc, reliability, effective, weights)
        q = np.clip(reliability.signal_fraction * np.clip(1 + correction, 0.3, 1.7) ** 2, 0.02, 1.0)
        distance, sigma, shared = shell_weighted_distance(fsc, q, variance, effective)
    # A pair that was compared but shares no shell with signal tells nothing.
    blind = np.isfinite(fsc[:, :, 1:]).any(axis=2) & ~np.isfinite(distance)
    distance[blind], sigma[blind] = 1.0, 1.0
    np.fill_diagonal(distance, 0.0)
    np.fill_diagonal(sigma, 0.0)
    similarity = np.clip(1 - distance, 0.0, 1.0)
    return Similarity(
        similarity=similarity,
        distance=distance,
        distance_sigma=sigma,
        shared_sigma=shared,
        correlation=_pearson(cross_power, power_fixed, power_moving),
        signal_fraction=q,
        noise_source=reliability.source,
        information=information_of(q, effective) if n else np.zeros(0),
        shells=ShellComparison(fsc, reliability, effective),
    )


def shell_weighted_distance(
    fsc: NDArray[np.float64],
    signal_fraction: NDArray[np.float64],
    variance: NDArray[np.float64],
    coefficients: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of ``1 - c / (r_i r_j)`` over shells, its sigma, and each map's part in that."""
    n, n_shells = signal_fraction.shape
    total, weighted, squared, of_row = (np.zeros((n, n)) for _ in range(4))
    for s in range(1, n_shells):
        c = fsc[:, :, s]
        root = np.sqrt(signal_fraction[:, s, None] * signal_fraction[None, :, s])
        shell_variance = pair_variance(signal_fraction, coefficients, s) + (
            variance[:, s, None] + variance[None, :, s]
        )
        usable = np.isfinite(c) & np.isfinite(shell_variance)
        weight = np.where(usable, 1 / (shell_variance + STRUCTURE_VARIANCE), 0)
        total += weight
        weighted += weight * np.where(usable, 1 - c / root, 0)
        squared += weight**2 * np.where(usable, shell_variance, 0)
        of_row += weight**2 * np.where(usable, variance[:, s, None], 0)
    np.fill_diagonal(total, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.sqrt(of_row) / total
        shared = np.array(
            [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in share]
        )
        return weighted / total, np.sqrt(squared) / total, shared


def even_transfer(
    fsc: NDArray[np.float64], power: NDArray[np.float64], signal_fraction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Undo what is lost where a low-pass filter falls steeply within the width of a shell, float64[N, N, S].

    Two maps of one structure whose transfer functions fall as ``exp(t_i s)`` and ``exp(t_j s)`` correlate
    across a shell of unit width by ``exp(-(t_i - t_j)^2 / 24)``. The slopes come from their signal powers.
    """
    slope = transfer_slopes(power, signal_fraction)
    return np.clip(fsc / transfer_loss(slope[:, None] - slope[None]), -1, 1)


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


def _own_power(power_fixed: NDArray[np.float64], power_moving: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of each map, float64[N, S]: the largest seen, as interpolation only loses power."""
    seen = np.maximum(
        np.nan_to_num(power_fixed, nan=0.0), np.nan_to_num(power_moving.transpose(1, 0, 2), nan=0.0)
    )
    return seen.max(axis=1)


def _shell_correlation(
    cross_power: NDArray[np.float64], power_fixed: NDArray[np.float64], power_moving: NDArray[np.float64]
) -> NDArray[np.float64]:
    product = power_fixed * power_moving
    with np.errstate(invalid="ignore", divide="ignore"):
        fsc = np.where(
            product > 0, cross_power / np.sqrt(product), np.where(np.isfinite(product), 0.0, np.nan)
        )
    n = len(fsc)
    # One triangle is enough.
    fsc = np.where(np.isfinite(fsc), fsc, fsc.transpose(1, 0, 2))
    fsc[np.arange(n), np.arange(n)] = np.nan
    return np.clip(fsc, -1, 1)


def _pearson(
    cross_power: NDArray[np.float64], power_fixed: NDArray[np.float64], power_moving: NDArray[np.float64]
) -> NDArray[np.float64]:
    cross, first, second = (x[..., 1:].sum(axis=-1) for x in (cross_power, power_fixed, power_moving))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.clip(cross / np.sqrt(first * second), -1, 1)
    correlation = np.where(np.isfinite(correlation), correlation, correlation.T)
    np.fill_diagonal(correlation, 1.0)
    return correlation
