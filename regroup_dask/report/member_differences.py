"""Where one map of a superclass differs from the average of the others by more than noise.

The average of the others is scaled in each shell to what the map has of it (least squares), so that neither gain nor
resolution counts as a difference. What is left is cut at the coarser of the two resolutions, or where the FSC of the
two falls below a half. Where it is significant it does not take part in a second fit of the scale: a missing domain
would else make all the rest look strong.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtri

from regroup_dask.science.fourier import half_spectrum_shells, shell_sums

FALSE_ALARM = 0.05
FEWEST_SOLVENT_VOXELS = 300
LOWEST_FSC = 0.5
SMOOTHED_SHELLS = 1
FITS = 3

Spectrum = NDArray[np.complexfloating]


def significant_difference(
    spectrum: Spectrum,
    others: Spectrum,
    signal: NDArray[np.float64],
    *,
    cut_shell: float,
    radius_voxel: float,
    noise_power: NDArray[np.float64],
) -> tuple[NDArray[np.float32], float]:
    """Subtract from a map what it shares with the average of others, in units of noise.

    Parameters
    ----------
    spectrum, others
        Half spectra ``(n, n, n // 2 + 1)`` of the map and of the average of the others.
    signal
        Power of the signal in `others`, ``(n // 2 + 1,)``, see `signal_power`.
    cut_shell
        Finest shell of which anything is known.
    radius_voxel
        Radius of the particle.
    noise_power
        Power of the noise of the map, ``(n // 2 + 1,)``; NaN where not known.

    Returns
    -------
    deviation, limit
        float32 ``(n, n, n)`` in standard deviations of the noise, and the value that noise exceeds anywhere in the
        particle with a probability of 5 %, counting resolution elements as independent; pieces smaller than such an
        element never exceed it. NaN when nothing is known of the noise.

    Notes
    -----
    The noise is the largest of the standard deviation of the difference outside the particle, its median absolute
    deviation inside (scaled as for a Gaussian: noise is often stronger where density is, and what half of the
    particle shows is no local difference), and what `noise_power` predicts.
    """
    box = spectrum.shape[0]
    low_pass, cut_shell = _low_pass(spectrum, others, cut_shell)
    shell = half_spectrum_shells(box)[0]
    elements = max(4 / 3 * np.pi * radius_voxel**3 / (box / (2 * cut_shell)) ** 3, 2.0)
    limit = -float(ndtri(FALSE_ALARM / 2 / elements))
    shared, deviation = spectrum, np.full((box,) * 3, np.nan)
    for _ in range(FITS):
        left = spectrum - _transfer(shared, others, signal)[shell] * others
        difference = scipy.fft.irfftn(left * low_pass[shell], s=(box,) * 3)
        sigma = _noise(difference, low_pass[:-1], radius_voxel, noise_power)
        if sigma <= 1e-6 * float(np.abs(difference).max() + 1e-30):
            return np.full((box,) * 3, np.nan, np.float32), np.nan
        deviation = difference / sigma
        apart = np.abs(deviation) > limit
        if not apart.any():
            break
        apart = ndimage.binary_dilation(apart, iterations=2)
        shared = spectrum - scipy.fft.rfftn(np.where(apart, scipy.fft.irfftn(left, s=(box,) * 3), 0))
    return _without_specks(deviation, limit, (box / (2 * cut_shell)) ** 3).astype(np.float32), limit


def _without_specks(deviation: NDArray[np.floating], limit: float, least_voxels: float) -> NDArray[np.floating]:
    """Bring pieces beyond the limit that are smaller than a resolution element back to it: nothing real is so small."""
    pieces, count = ndimage.label(np.abs(deviation) > limit)
    if not count:
        return deviation
    small = np.bincount(pieces.ravel()) < least_voxels
    small[0] = False
    return np.where(small[pieces], np.clip(deviation, -limit, limit), deviation)


def signal_power(average: Spectrum, own_power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power per shell of what maps have in common.

    The noise of different maps does not correlate: products of different maps have the signal alone. A map on its
    own counts as it is.

    Parameters
    ----------
    average
        Half spectrum of the average of M maps.
    own_power
        Power per shell of each, ``(M, n // 2 + 1)``.
    """
    count = len(own_power)
    power = shell_sums(np.abs(average) ** 2, average.shape[0])
    if count < 2:
        return power
    return np.maximum((count**2 * power - own_power.sum(axis=0)) / (count * (count - 1)), 0.25 * power)


def radii(box: int) -> NDArray[np.float64]:
    """Distance of every voxel from the origin voxel, in voxels, ``(n, n, n)``."""
    axis = np.arange(box) - box // 2
    return np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)


def _low_pass(spectrum: Spectrum, others: Spectrum, cut_shell: float) -> tuple[NDArray[np.float64], float]:
    """Weights per shell, one more than there are for the corners beyond the last, and where they fall."""
    box = spectrum.shape[0]
    cross = shell_sums((spectrum * others.conj()).real, box)
    product = np.sqrt(shell_sums(np.abs(spectrum) ** 2, box) * shell_sums(np.abs(others) ** 2, box))
    fsc = np.divide(cross, product, out=np.zeros_like(cross), where=product > 0)
    disagree = np.flatnonzero(fsc[1:] < LOWEST_FSC)
    cut_shell = max(min(cut_shell, float(disagree[0] + 1) if len(disagree) else np.inf), 3.0)
    weights = 0.5 * (1 + np.cos(np.pi * np.clip((np.arange(len(cross)) - cut_shell + 1.5) / 3, 0, 1)))
    weights[0] = 0
    return np.append(weights, 0.0), cut_shell


def _transfer(shared: Spectrum, others: Spectrum, signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of `others` the map has in each shell, one more for the corners, which have none."""
    cross = shell_sums((shared * others.conj()).real, shared.shape[0])
    cross[0], signal = 0, np.append(0, signal[1:])
    # Shells near the origin have few coefficients: alone they would take a real difference for gain.
    window = np.ones(2 * SMOOTHED_SHELLS + 1)
    cross, signal = np.convolve(cross, window, "same"), np.convolve(signal, window, "same")
    ratio = np.divide(cross, signal, out=np.zeros_like(cross), where=signal > 0)
    return np.append(np.clip(ratio, 0, None), 0.0)


def _noise(
    difference: NDArray[np.floating],
    low_pass: NDArray[np.float64],
    radius_voxel: float,
    noise_power: NDArray[np.float64],
) -> float:
    box = difference.shape[0]
    distance = radii(box)
    outside = (distance > radius_voxel * 1.05 + 1) & (distance < box / 2 - 1)
    sigma = float(difference[outside].std()) if outside.sum() >= FEWEST_SOLVENT_VOXELS else 0.0
    inside = difference[distance <= radius_voxel]
    sigma = max(sigma, 1.4826 * float(np.median(np.abs(inside - np.median(inside)))))
    if len(noise_power) >= box // 2 + 1 and np.isfinite(noise_power[1:]).any():
        usable = np.nan_to_num(noise_power[: box // 2 + 1]) * low_pass**2
        sigma = max(sigma, float(np.sqrt(usable[1:].sum() / float(box) ** 6)))
    return sigma
