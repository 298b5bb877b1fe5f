"""Class maps as a classification leaves them: blurred, noisy, filtered, and each on its own scale.

A class of n particles has noise of power proportional to 1 / n, and the program filters what it reconstructs
by the signal-to-noise ratio it finds in each shell: a small class is a blurred map, and what noise remains in
it is coloured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BEAD_SIGMA_ANGSTROM = 3.0
FULL_BOX_SIGMAS = 4.0


class ClassQuality(NamedTuple):
    """How good a class map is.

    Attributes
    ----------
    share : float
        Of the particles.
    blur_square_angstrom : float
        B factor of the movement within the class.
    gain : float
    """

    share: float
    blur_square_angstrom: float
    gain: float


def density_of(residues: np.ndarray, *, box: int, voxel_size_angstrom: float) -> np.ndarray:
    """Sum of a Gaussian per residue, about the origin voxel box // 2.

    Parameters
    ----------
    residues : float64[n, 3]
        Angstrom, x, y, z.

    Returns
    -------
    float64[z, y, x]
    """
    sigma = BEAD_SIGMA_ANGSTROM / voxel_size_angstrom
    reach = int(np.ceil(FULL_BOX_SIGMAS * sigma))
    places = residues[:, ::-1] / voxel_size_angstrom + box // 2
    nearest = np.rint(places).astype(int)
    window = np.arange(-reach, reach + 1)
    volume = np.zeros(box**3)
    # separable: one Gaussian per axis and residue
    indices = nearest[:, :, None] + window
    profiles = np.exp(-((indices - places[:, :, None]) ** 2) / (2 * sigma**2))
    profiles[(indices < 0) | (indices >= box)] = 0.0
    indices = np.clip(indices, 0, box - 1)
    z, y, x = (indices[:, axis] for axis in range(3))
    flat = (z[:, :, None, None] * box + y[:, None, :, None]) * box + x[:, None, None, :]
    weights = profiles[:, 0, :, None, None] * profiles[:, 1, None, :, None] * profiles[:, 2, None, None, :]
    volume += np.bincount(flat.ravel(), weights.ravel(), minlength=box**3)
    return volume.reshape(box, box, box)


def class_map(
    density: np.ndarray,
    quality: ClassQuality,
    *,
    voxel_size_angstrom: float,
    noise_power: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Blur, add noise, and filter by the signal-to-noise ratio of each shell.

    Parameters
    ----------
    density : float64[z, y, x]
        Of the complex, at the pose of the class.
    noise_power : float
        Per Fourier coefficient, of a class of all particles.

    Returns
    -------
    volume : float32[z, y, x]
    resolution_angstrom : float
        Where the signal-to-noise ratio falls below 1.
    """
    box = density.shape[0]
    frequency = _frequencies(box) / voxel_size_angstrom  # 1 / angstrom
    shell = np.rint(frequency * box * voxel_size_angstrom).astype(int)
    blurred = np.fft.rfftn(density) * np.exp(-quality.blur_square_angstrom * frequency**2 / 4)
    # the noise of a reconstruction grows with frequency, as fewer central slices pass through a coefficient
    colour = noise_power / quality.share * (0.3 + frequency * voxel_size_angstrom)
    noise = np.fft.rfftn(rng.normal(size=density.shape)) / np.sqrt(box**3)
    signal_power = _shell_mean(np.abs(blurred) ** 2, shell)
    ratio = signal_power / _shell_mean(colour, shell)
    filtered = (blurred + np.sqrt(colour) * noise) * (ratio / (1 + ratio))[shell]
    volume = np.fft.irfftn(filtered, s=density.shape, axes=(0, 1, 2))
    below = np.flatnonzero(ratio[1 : box // 2 + 1] < 1.0)
    first = int(below[0]) + 1 if below.size else box // 2
    return (quality.gain * volume).astype(np.float32), box * voxel_size_angstrom / first


def _frequencies(box: int) -> np.ndarray:
    full, half = np.fft.fftfreq(box), np.fft.rfftfreq(box)
    return np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2)


def _shell_mean(values: np.ndarray, shell: np.ndarray) -> np.ndarray:
    count = np.bincount(shell.ravel())
    return np.bincount(shell.ravel(), values.ravel()) / np.maximum(count, 1)
