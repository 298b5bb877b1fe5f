"""Fourier transforms of maps about their origin voxel: cropping, resampling, shells, directly sampled spectra.

The origin of a box of n voxels is voxel n // 2 on each axis. A spectrum here is that of the map as seen from
its origin (no checkerboard phases), half of it along x as real maps have it: shape ``(n, n, n // 2 + 1)``,
order z, y, x.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import scipy.fft

from regroup_dask.errors import InputError


def centred_spectrum(volume: np.ndarray) -> np.ndarray:
    """Return the half spectrum complex (n, n, n // 2 + 1) of a cubic map float (n, n, n), origin at voxel n // 2."""
    return scipy.fft.rfftn(scipy.fft.ifftshift(volume))


def centred_volume(spectrum: np.ndarray, box: int) -> np.ndarray:
    """Return the map (box, box, box) of a half spectrum as `centred_spectrum` makes it."""
    return scipy.fft.fftshift(scipy.fft.irfftn(spectrum, s=(box, box, box)))


def frequencies(box: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the integer frequencies of a full axis and of the half axis of a box."""
    full = np.rint(scipy.fft.fftfreq(box) * box).astype(np.int64)
    return full, np.arange(box // 2 + 1)


@lru_cache(maxsize=8)
def half_spectrum_shells(box: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shell numbers and multiplicities of the half spectrum of a box.

    Returns
    -------
    shell : numpy.ndarray
        int32 (box, box, box // 2 + 1), round(|k|); coefficients beyond shell box // 2 have number box // 2 +
        1.
    multiplicity : numpy.ndarray
        float64 (box // 2 + 1,), how many coefficients of the full spectrum one at this x stands for: 1 or 2.
    """
    full, half = frequencies(box)
    squared = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    shell = np.minimum(np.rint(np.sqrt(squared)), box // 2 + 1).astype(np.int32)
    multiplicity = np.full(box // 2 + 1, 2.0)
    multiplicity[0] = 1.0
    if box % 2 == 0:
        multiplicity[-1] = 1.0
    shell.setflags(write=False)
    multiplicity.setflags(write=False)
    return shell, multiplicity


def shell_sums(values: np.ndarray, box: int) -> np.ndarray:
    """Sum real values on the half spectrum over the shells 0 .. box // 2 of the full one; float64 (box // 2 + 1,)."""
    shell, multiplicity = half_spectrum_shells(box)
    weighted = (values * multiplicity).ravel()
    return np.bincount(shell.ravel(), weights=weighted, minlength=box // 2 + 2)[: box // 2 + 1]


def shell_power(volume: np.ndarray) -> np.ndarray:
    """Return the sum of ``|F|^2`` over each Fourier shell 0 .. n // 2 of a map (n, n, n); float64."""
    spectrum = centred_spectrum(np.asarray(volume, dtype=np.float64))
    return shell_sums(spectrum.real**2 + spectrum.imag**2, volume.shape[0])


def shell_counts(box: int) -> np.ndarray:
    """Return how many coefficients of the full spectrum each shell 0 .. box // 2 has; float64."""
    shell, _ = half_spectrum_shells(box)
    return shell_sums(np.ones(shell.shape), box)


def _check_cube(volume: np.ndarray) -> int:
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(
            f"a map must be a cube, but this one has the shape {volume.shape}; pad or crop it first"
        )
    return int(volume.shape[0])


def _resize_full_axis(spectrum: np.ndarray, axis: int, old: int, new: int) -> np.ndarray:
    """Crop or zero-pad one full (two-sided) frequency axis, sharing out or joining the Nyquist plane."""
    spectrum = np.moveaxis(spectrum, axis, 0)
    kept = min(old, new)
    low = kept // 2  # frequencies -low .. low fit, Nyquist of an even `kept` needs care
    out = np.zeros((new, *spectrum.shape[1:]), dtype=spectrum.dtype)
    top = low if kept % 2 else low - 1
    out[: top + 1] = spectrum[: top + 1]
    if top:
        out[-top:] = spectrum[-top:]
    if kept % 2 == 0 and kept > 1:
        if new == old:
            out[low] = spectrum[low]
        elif new < old:  # both signs look the same on the small box: they meet in its one Nyquist plane
            out[low] = spectrum[low] + spectrum[old - low]
        else:  # the large box has two: each gets half
            out[low] = 0.5 * spectrum[low]
            out[new - low] = 0.5 * spectrum[low]
    return np.moveaxis(out, 0, axis)


def _resize_half_axis(spectrum: np.ndarray, old: int, new: int) -> np.ndarray:
    """Crop or zero-pad the one-sided x axis; a Nyquist plane is shared out or joined as on the others."""
    kept = min(old, new)
    out = np.zeros((*spectrum.shape[:2], new // 2 + 1), dtype=spectrum.dtype)
    out[..., : kept // 2 + 1] = spectrum[..., : kept // 2 + 1]
    if new > old and old % 2 == 0:
        out[..., old // 2] *= 0.5
    if new < old and new % 2 == 0:
        out[..., new // 2] *= 2.0  # the inverse transform takes the mean of both signs, where their sum belongs
    return out


def fourier_crop(volume: np.ndarray, box: int) -> np.ndarray:
    """Resample a map to another box over the same physical extent by cropping or zero-padding its spectrum.

    Parameters
    ----------
    volume : numpy.ndarray
        real (n, n, n), origin at voxel n // 2.
    box : int
        new box in voxels, smaller or larger, odd or even; the voxel becomes n / box times as large.

    Returns
    -------
    numpy.ndarray
        float32 (box, box, box), origin at voxel box // 2, density values (and so the mean) kept.

    Raises
    ------
    InputError
        when the map is no cube or the box is smaller than 2.
    """
    old = _check_cube(volume)
    if box < 2:
        raise InputError(f"cannot resample a map to a box of {box} voxels; give at least 2")
    if box == old:
        return np.array(volume, dtype=np.float32)
    spectrum = centred_spectrum(np.asarray(volume, dtype=np.float32))
    spectrum = _resize_half_axis(spectrum, old, box)
    spectrum = _resize_full_axis(spectrum, 1, old, box)
    spectrum = _resize_full_axis(spectrum, 0, old, box)
    return (centred_volume(spectrum, box) * np.float32((box / old) ** 3)).astype(np.float32)


def fourier_resample(
    volume: np.ndarray, *, voxel_size_angstrom: float, box: int, target_voxel_size_angstrom: float
) -> np.ndarray:
    """Resample a map to any voxel size and box, origins matched, band-limited by the coarser of the two grids.

    The trigonometric polynomial that the map's spectrum is gets evaluated at the new voxels, one axis after
    another, with the frequencies beyond the new Nyquist frequency left out. Voxels outside the old box are 0.

    Parameters
    ----------
    volume : numpy.ndarray
        real (n, n, n).
    voxel_size_angstrom, target_voxel_size_angstrom : float
        old and new voxel size.
    box : int
        new box in voxels.

    Returns
    -------
    numpy.ndarray
        float32 (box, box, box).
    """
    old = _check_cube(volume)
    for name, size in (
        ("voxel size", voxel_size_angstrom),
        ("target voxel size", target_voxel_size_angstrom),
    ):
        if not np.isfinite(size) or size <= 0:
            raise InputError(f"the {name} of {size} A cannot be used; give a positive number of angstrom")
    position = (np.arange(box) - box // 2) * (target_voxel_size_angstrom / voxel_size_angstrom)
    full, _ = frequencies(old)
    limit = 0.5 * old * min(1.0, voxel_size_angstrom / target_voxel_size_angstrom)
    keep = np.abs(full) <= limit
    phase = np.exp(2j * np.pi * np.outer(position, full[keep]) / old) / old
    # the Nyquist frequency of an even box stands for both signs: its real part
    sample = np.arange(old) - old // 2
    analysis = np.exp(-2j * np.pi * np.outer(full[keep], sample) / old)
    matrix = (phase @ analysis).real
    if old % 2 == 0 and limit >= old / 2:
        nyquist = np.flatnonzero(full[keep] == -(old // 2))
        if nyquist.size:
            wave = np.cos(np.pi * position)[:, None] * np.cos(np.pi * sample)[None, :] / old
            once = (phase[:, nyquist] @ analysis[nyquist]).real
            matrix = matrix - once + wave
    matrix[(position < sample[0] - 0.5) | (position > sample[-1] + 0.5)] = 0.0
    single = matrix.astype(np.float32)
    result = np.asarray(volume, dtype=np.float32)
    for _ in range(3):  # the first axis goes, its new one comes last: after three turns z, y, x again
        result = np.tensordot(result, single, axes=(0, 1))
    return np.ascontiguousarray(result)


def sampled_spectrum(
    volume: np.ndarray, *, spacing: float, reach: int, compensate: bool = True
) -> np.ndarray:
    """Sample the spectrum of a zero-padded map on a fine cubic grid around frequency 0, by separable direct sums.

    Parameters
    ----------
    volume : numpy.ndarray
        real (n, n, n), zero outside, origin at voxel n // 2.
    spacing : float
        grid step in cycles per voxel, e.g. 1 / (2 n) for the map padded twofold.
    reach : int
        the grid runs from -reach to reach on z and y and from 0 to reach on x.
    compensate : bool
        divide the map by the real-space window that trilinear interpolation of this grid amounts to,
        ``sinc(x spacing)^2`` per axis, so that interpolated values are right on average.

    Returns
    -------
    numpy.ndarray
        complex64 (2 reach + 1, 2 reach + 1, reach + 1), order z, y, x.
    """
    box = volume.shape[0]
    position = np.arange(box) - box // 2
    window = 1.0 / np.sinc(position * spacing) ** 2 if compensate else np.ones(box)
    half = (np.exp(-2j * np.pi * spacing * np.outer(np.arange(reach + 1), position)) * window).astype(
        np.complex64
    )
    full = (np.exp(-2j * np.pi * spacing * np.outer(np.arange(-reach, reach + 1), position)) * window).astype(
        np.complex64
    )
    rows = np.asarray(volume, dtype=np.float32).reshape(box * box, box)
    both_parts = (rows @ half.real.T) + 1j * (rows @ half.imag.T)
    along_x = both_parts.astype(np.complex64).reshape(box, box, reach + 1)
    along_y = np.matmul(full, along_x)  # (z, ky, kx)
    cube = full @ along_y.reshape(box, -1)
    return cube.reshape(2 * reach + 1, 2 * reach + 1, reach + 1)


def fourier_crop_slabs(slabs: Iterable[np.ndarray], old: int, box: int) -> np.ndarray:
    """Do what `fourier_crop` does for a map that comes in slabs, with memory for a slab and the small box's columns.

    Parameters
    ----------
    slabs : iterable of numpy.ndarray
        consecutive planes, real (dz, n, n), that together are the map.
    old : int
        n.
    box : int
        new box in voxels.

    Returns
    -------
    numpy.ndarray
        float32 (box, box, box).
    """
    columns = np.empty((old, box, box // 2 + 1), np.complex64)
    first = 0
    for slab in slabs:
        lines = scipy.fft.rfft(scipy.fft.ifftshift(np.asarray(slab, np.float32), axes=(1, 2)), axis=2)
        lines = scipy.fft.fft(_resize_half_axis(lines, old, box), axis=1)
        columns[first : first + len(slab)] = _resize_full_axis(lines, 1, old, box)
        first += len(slab)
    spectrum = scipy.fft.fft(scipy.fft.ifftshift(columns, axes=0), axis=0)
    spectrum = _resize_full_axis(spectrum, 0, old, box)
    return (centred_volume(spectrum, box) * np.float32((box / old) ** 3)).astype(np.float32)
