"""What a mask does to noise: it takes a part of it, and leaks from strong shells into weak ones.

Noise that fills the box has independent Fourier coefficients; under a mask each is a mean over its neighbours, weighted
with the power spectrum of the mask. Where a filter lets the spectrum fall steeply, what arrives from the shells below is
far more than what was there. A signal lies within the mask and is what it was. So a ratio of signal to noise that was
measured on whole maps (the table of a model file) is not that of masked ones.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from regroup_dask.science.noise import shell_index

_ROUNDS = 10


def shell_leak(mask_spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power per coefficient of each shell under a mask, for noise of unit power in one shell of the whole box.

    Parameters
    ----------
    mask_spectrum : float64[S]
        Mean over each shell of ``|F|^2`` of the mask, over the squared number of voxels (`noise.MapStatistics`).

    Returns
    -------
    float64[S, S]
        Shell under the mask, shell before.
    """
    n_shells = len(mask_spectrum)
    box = 2 * (n_shells - 1)
    index = shell_index(box)
    within = index < n_shells
    flat = np.minimum(index, n_shells).ravel()
    count = np.bincount(flat, minlength=n_shells + 1)[:n_shells]
    # Noise multiplied by a mask: its covariance is multiplied by the mask's correlation with itself.
    correlation = fft.irfftn(np.where(within, np.append(mask_spectrum, 0.0)[np.minimum(index, n_shells)], 0.0), (box,) * 3)
    leak = np.empty((n_shells, n_shells))
    for shell in range(n_shells):
        covariance = fft.irfftn((index == shell).astype(np.float64), (box,) * 3)
        power = fft.rfftn(covariance * correlation).real * box**3
        leak[:, shell] = np.bincount(flat, power.ravel(), n_shells + 1)[:n_shells] / count
    return np.maximum(leak, 0.0)


def ssnr_under_mask(
    ssnr: NDArray[np.float64], power: NDArray[np.float64], leak: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Signal-to-noise ratio of masked maps from that of the whole maps, float64[N, S]; NaN stays.

    The power of a masked map is ``ssnr n + leak n`` with the noise n of the whole map, which is found from it by
    multiplying with what is seen over what is expected (Richardson, 1972; Lucy, 1974), so that it stays positive.

    Parameters
    ----------
    ssnr : float64[N, S]
        Of the whole maps.
    power : float64[N, S]
        Of the masked maps, per coefficient.
    leak : float64[S, S]
        Of the mask (`shell_leak`).

    References
    ----------
    Richardson, W. H. (1972). J. Opt. Soc. Am. 62, 55-59. Lucy, L. B. (1974). Astron. J. 79, 745-754.
    """
    ratio = np.maximum(np.nan_to_num(ssnr, nan=0.0), 0.0)
    noise = power / (ratio + leak.sum(axis=1))
    for _ in range(_ROUNDS):
        expected = ratio * noise + noise @ leak.T
        noise = noise * np.divide(power, expected, out=np.ones_like(power), where=expected > 0)
    masked = noise @ leak.T
    result = np.divide(ratio * noise, masked, out=np.zeros_like(power), where=masked > 0)
    return np.where(np.isfinite(ssnr), result, np.nan)
