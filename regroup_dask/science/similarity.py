"""How alike the structures behind class maps are, whatever their noise, resolution and gain; with sigmas."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.reliability import Reliability
from regroup_dask.science.shell_model import ShellComparison
from regroup_dask.science.sparse_similarity import estimate_sparse_similarity


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
    mask_spectrum: NDArray[np.float64] | None = None,
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
    mask_spectrum : float[N, S], optional
        Power spectra of these masks (`noise.MapStatistics`): what noise leaks from shell to shell under them, which a
        table of ``ssnr`` does not know of.

    Returns
    -------
    Similarity

    References
    ----------
    Rosenthal, P. B. and Henderson, R. (2003). J. Mol. Biol. 333, 721-745.
    """
    n = len(cross_power)
    # One triangle is enough.
    above = np.triu(np.ones((n, n), bool), 1)
    compared = np.asarray(np.isfinite(cross_power).any(axis=2))
    pairs = np.argwhere(above & (compared | compared.T))
    i, j = pairs.T
    turned = np.logical_not(compared[i, j])[:, None]
    found = estimate_sparse_similarity(
        pairs,
        np.where(turned, cross_power[j, i], cross_power[i, j]),
        np.where(turned, power_moving[j, i], power_fixed[i, j]),
        np.where(turned, power_fixed[j, i], power_moving[i, j]),
        n_maps=n,
        coefficients=coefficients,
        solvent_power=solvent_power,
        solvent_fraction=solvent_fraction,
        half_map_fsc=half_map_fsc,
        ssnr=ssnr,
        mask_volume_fraction=mask_volume_fraction,
        mask_spectrum=mask_spectrum,
        power=_own_power(power_fixed, power_moving),
    )
    return Similarity(
        similarity=_table(pairs, found.similarity, n, 1.0),
        distance=_table(pairs, found.distance, n, 0.0),
        distance_sigma=_table(pairs, found.distance_sigma, n, 0.0),
        shared_sigma=found.shared_sigma,
        correlation=_table(pairs, found.correlation, n, 1.0),
        signal_fraction=found.signal_fraction,
        noise_source=found.reliability.source,
        information=found.information,
        shells=ShellComparison(_table(pairs, found.fsc, n, np.nan), found.reliability, found.coefficients),
    )


def _table(pairs: NDArray[np.int64], values: NDArray[np.float64], n_maps: int, diagonal: float) -> NDArray[np.float64]:
    """Symmetric table of what is known of pairs, NaN elsewhere."""
    table = np.full((n_maps, n_maps, *values.shape[1:]), np.nan)
    table[pairs[:, 0], pairs[:, 1]] = table[pairs[:, 1], pairs[:, 0]] = values
    table[np.arange(n_maps), np.arange(n_maps)] = diagonal
    return table


def _own_power(power_fixed: NDArray[np.float64], power_moving: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of each map, float64[N, S]: the largest seen, as interpolation only loses power."""
    seen = np.maximum(
        np.nan_to_num(power_fixed, nan=0.0), np.nan_to_num(power_moving.transpose(1, 0, 2), nan=0.0)
    )
    return np.asarray(seen.max(axis=1, initial=0.0))
