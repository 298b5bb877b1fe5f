"""What is left of errors of poses, taken off maps of one frame before they are compared place by place.

A small turn and shift change a map by a sum of six fields: the three derivatives of its density, and the three of a turn
about the axes (Hotelling's tangent of a group, as in Simard, LeCun and Denker, 1993, NIPS 5, 50-58). Their weights are
found by least squares for each map against the mean of all. Left in, two maps that err alike look like a structure of their own.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from regroup_dask.science.noise import shell_index

EXPECTED_ERROR_VOXELS = 0.3
# Structures differ by about this share of the signal: what stands above noise is not known better than that.
DIFFERENCE_OF_STRUCTURES = 0.05
_AXES = ((1, 2), (2, 0), (0, 1))


def without_pose_errors(
    volumes: NDArray[np.float32],
    *,
    signal_power: NDArray[np.float64],
    noise_power: NDArray[np.float64],
    usable: NDArray[np.bool_],
    region: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Maps of one frame without what small errors of their poses make of the mean of all.

    Parameters
    ----------
    volumes : float32[N, n, n, n]
    signal_power, noise_power : float64[N, S]
        Power per Fourier coefficient of the unnormalised FFT: of the signal in the whole box, and of noise that fills it.
    usable : bool[N, S]
        Shells in which a map has signal.
    region : float[n, n, n]
        Where maps are compared, 0..1.

    Returns
    -------
    float32[N, n, n, n]
    """
    box, n_shells = volumes.shape[-1], signal_power.shape[1]
    index = shell_index(box)
    shell = np.minimum(index, n_shells - 1)
    usable = usable & (signal_power > 0)
    amplitude = np.where(usable, np.sqrt(np.maximum(signal_power, 1e-60)), 0.0)
    inverse = np.where(usable & (amplitude > 1e-30), 1 / np.maximum(amplitude, 1e-30), 0.0)
    ratio = noise_power / np.maximum(signal_power, 1e-60)
    weight = np.where(inverse > 0, 1 / (np.maximum(ratio, 0) + DIFFERENCE_OF_STRUCTURES), 0.0)
    inside = (index < n_shells).astype(np.float64)
    twice = 2 * inside
    twice[..., 0] = inside[..., 0]
    if box % 2 == 0:
        twice[..., -1] = inside[..., -1]

    spectra = [fft.rfftn(volume) for volume in volumes]
    total = weight.sum(axis=0)
    mean = np.zeros(index.shape, np.complex128)
    for spectrum, load in zip(spectra, weight * inverse, strict=True):
        mean += load[shell] * spectrum
    # The mean of little signal is mostly noise: shrunk as Wiener does.
    mean *= inside * (1 / (1 + total))[shell]

    def by_shell(first: NDArray[np.complexfloating], second: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        product = twice * (first.real * second.real + first.imag * second.imag)
        return np.asarray(np.bincount(shell.ravel(), product.ravel(), n_shells), np.float64)

    prior = np.diag(1 / np.array([EXPECTED_ERROR_VOXELS] * 3 + [EXPECTED_ERROR_VOXELS / (0.25 * box)] * 3) ** 2)
    result = np.empty(volumes.shape, np.float32)
    for row, spectrum in enumerate(spectra):
        here = inside * (inverse[row] > 0)[shell]
        difference = spectrum * (inverse[row][shell] * inside) - mean * here
        # What a map lacks does not move with it: what it is known to be itself is moved, and the mean where it is noise.
        own = DIFFERENCE_OF_STRUCTURES * weight[row]
        tangents = tangent_fields(mean + own[shell] * difference, region) * here
        along = np.array([by_shell(tangent, difference) @ weight[row] for tangent in tangents])
        gram = np.zeros((6, 6))
        for first, second in itertools.combinations_with_replacement(range(6), 2):
            gram[first, second] = gram[second, first] = by_shell(tangents[first], tangents[second]) @ weight[row]
        moved = np.tensordot(np.linalg.solve(gram + prior, along), tangents, 1) * amplitude[row][shell]
        result[row] = fft.irfftn(spectrum - moved, volumes.shape[1:])
    return result


def tangent_fields(spectrum: NDArray[np.complexfloating], region: NDArray[np.floating]) -> NDArray[np.complex128]:
    """Spectra of the slopes of a map along z, y, x, and of what a turn about these adds to it, within a region.

    Parameters
    ----------
    spectrum : complex[n, n, n // 2 + 1]
        Unnormalised FFT of the map.
    region : float[n, n, n]

    Returns
    -------
    complex128[6, n, n, n // 2 + 1]
        Per voxel, and per radian.
    """
    box = region.shape[0]
    full, half = 2 * np.pi * fft.fftfreq(box), 2 * np.pi * fft.rfftfreq(box)
    frequency = (full[:, None, None], full[None, :, None], half[None, None, :])
    away = np.arange(box) - box // 2
    place = (away[:, None, None], away[None, :, None], away[None, None, :])
    slope = [fft.irfftn(1j * k * spectrum, region.shape) for k in frequency]
    turned = [place[a] * slope[b] - place[b] * slope[a] for a, b in _AXES]
    return np.array([fft.rfftn(field * region) for field in (*slope, *turned)])
