"""What maps in one frame have in common, place by place and band by band.

Structures of one sample differ in places: a subunit is missing, a domain has moved. Over the whole box such a
difference drowns in the noise of everything else; in a window of its own size it stands out, and the places where all
maps agree tell the noise of each. Maps are divided by their signal amplitude shell by shell, so that one structure
gives one signal, cut into bands of Fourier shells, and their products are summed under smooth windows that add up to
one.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from regroup_dask.science.masks import squared_radius
from regroup_dask.science.noise import shell_index

BAND_GROWTH = 1.5
SPACING_OF_RADIUS = 0.45
LEAST_SPACING_VOXELS = 3.0
LEAST_WINDOW = 0.15
SOLVENT_LEVEL = 0.02
LEAST_SIGNAL = 0.02


class LocalCovariance(NamedTuple):
    """Second moments of N maps in B bands and W windows.

    Attributes
    ----------
    product : float32[B, W, N, N]
        Sum over a window of the product of two maps, in units in which the signal of every map is about one per
        Fourier coefficient; 0 where a map does not have the band.
    have : bool[B, N]
        Which map has signal throughout a band.
    coefficients : float64[B, W]
        Independent real coefficients of a band in a window.
    noise : float64[B, N]
        Noise of each map per coefficient in those units, as estimated before.
    noise_error : float64[B, N]
        Its relative error.
    fineness : float64[B]
        Mean shell of a band over that of the finest.
    lever : float64[W]
        How much an error of a pose moves a window: one half for the shift, and the squared distance from the centre
        over the largest one for the rotation.
    """

    product: NDArray[np.float32]
    have: NDArray[np.bool_]
    coefficients: NDArray[np.float64]
    noise: NDArray[np.float64]
    noise_error: NDArray[np.float64]
    fineness: NDArray[np.float64]
    lever: NDArray[np.float64]


def shell_bands(usable: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Bands of Fourier shells, each wider than the one before, up to the finest shell that two maps have.

    Parameters
    ----------
    usable : bool[N, S]
        In which shells each map has signal.
    """
    shared = np.flatnonzero(usable[:, 1:].sum(axis=0) > 1) + 1
    if not len(shared):
        return []
    end, edges = int(shared[-1]) + 1, [1]
    while edges[-1] < end:
        edges.append(min(int(BAND_GROWTH * edges[-1]) + 2, end))
    if len(edges) > 2 and edges[-1] - edges[-2] < 2:
        del edges[-2]
    return [np.arange(start, stop) for start, stop in itertools.pairwise(edges)]


def local_windows(box: int, spacing_voxels: float, region: NDArray[np.floating]) -> NDArray[np.float32]:
    """Smooth windows on a cubic grid that add up to the region, float32[W, box, box, box].

    Each is a product of raised cosines, one at every ``spacing_voxels``; windows with next to nothing of the region
    are left out.
    """
    reach = int(np.ceil(0.5 * box / spacing_voxels))
    away = np.arange(box) - box // 2 - spacing_voxels * np.arange(-reach, reach + 1)[:, None]
    profile = np.where(np.abs(away) < spacing_voxels, 0.5 + 0.5 * np.cos(np.pi * away / spacing_voxels), 0.0)
    found = []
    for z in profile:
        for y in profile:
            if (z[:, None] * y * region.max(axis=2)).sum() == 0:
                continue
            for x in profile:
                window = z[:, None, None] * y[:, None] * x * region
                if window.sum() > LEAST_WINDOW * spacing_voxels**3:
                    found.append(window.astype(np.float32))
    return np.array(found, np.float32).reshape(-1, box, box, box)


def band_fields(
    volumes: NDArray[np.float32], amplitude: NDArray[np.float64], band: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Real-space fields of one band, of unit variance per voxel where a map has one unit per coefficient.

    Parameters
    ----------
    volumes : float32[M, n, n, n]
    amplitude : float64[M, S]
        Root mean square signal of each map per coefficient of the unnormalised FFT.
    band : int[...]
        Its shells.
    """
    box = volumes.shape[-1]
    index = shell_index(box)
    inside = np.isin(index, band)
    twice = np.full(inside.shape, 2.0)
    twice[..., 0] = 1.0
    if box % 2 == 0:
        twice[..., -1] = 1.0
    count = float((inside * twice).sum())
    fields = np.empty(volumes.shape, np.float32)
    for row, volume in enumerate(volumes):
        gain = np.where(inside, 1 / np.maximum(amplitude[row], 1e-30)[np.minimum(index, amplitude.shape[1] - 1)], 0.0)
        fields[row] = fft.irfftn(fft.rfftn(volume) * gain, volume.shape) * (box**3 / np.sqrt(count))
    return fields


def window_products(
    fields: NDArray[np.float32], windows: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Mean product of every two fields under every window, float32[W, M, M], and the volumes of the windows."""
    volume = windows.reshape(len(windows), -1).sum(axis=1, dtype=np.float64)
    product = np.empty((len(windows), len(fields), len(fields)), np.float32)
    for number, window in enumerate(windows):
        where = window > 1e-4
        rows = fields[:, where] * np.sqrt(window[where])
        product[number] = rows @ rows.T / volume[number]
    return product, volume


def local_covariance(
    volumes: NDArray[np.float32],
    *,
    signal_power: NDArray[np.float64],
    noise_power: NDArray[np.float64],
    noise_error: NDArray[np.float64],
    usable: NDArray[np.bool_],
    region: NDArray[np.floating],
    spacing_voxels: float,
) -> LocalCovariance | None:
    """Measure maps of one frame place by place.

    Parameters
    ----------
    volumes : float32[N, n, n, n]
        Maps in one frame.
    signal_power, noise_power : float64[N, S]
        Power per Fourier coefficient of the unnormalised FFT: of the signal in the whole box, and of noise that
        fills it.
    noise_error : float64[N]
        Relative error of the noise.
    usable : bool[N, S]
        Shells in which a map has signal.
    region : float[n, n, n]
        Where all maps have both signal and noise, 0..1.
    spacing_voxels : float
        Distance between windows.

    Returns
    -------
    LocalCovariance or None
        None where no two maps share a band.
    """
    n_maps, box = len(volumes), volumes.shape[-1]
    bands = shell_bands(usable)
    have = np.array([usable[:, band].all(axis=1) for band in bands], bool).reshape(len(bands), n_maps)
    kept = [number for number in range(len(bands)) if have[number].sum() > 1]
    windows = local_windows(box, spacing_voxels, region)
    if not kept or not len(windows):
        return None
    bands, have = [bands[number] for number in kept], have[kept]
    index = shell_index(box)
    twice = np.full(index.shape, 2.0)
    twice[..., 0] = 1.0
    if box % 2 == 0:
        twice[..., -1] = 1.0
    count = np.bincount(index.ravel(), twice.ravel())
    amplitude = np.sqrt(np.maximum(signal_power, 1e-60))
    product = np.zeros((len(bands), len(windows), n_maps, n_maps), np.float32)
    noise = np.ones((len(bands), n_maps))
    coefficients = np.empty((len(bands), len(windows)))
    for number, band in enumerate(bands):
        rows = np.flatnonzero(have[number])
        found, volume = window_products(band_fields(volumes[rows], amplitude[rows], band), windows)
        product[number][np.ix_(np.arange(len(windows)), rows, rows)] = found
        ratio = noise_power[rows][:, band] / signal_power[rows][:, band]
        noise[number, rows] = np.average(ratio, axis=1, weights=count[band])
        coefficients[number] = count[band].sum() * volume / box**3
    fineness = np.array([band.mean() for band in bands])
    error = np.broadcast_to(noise_error, noise.shape)
    squared = squared_radius(box).ravel()
    lever = windows.reshape(len(windows), -1) @ squared / windows.reshape(len(windows), -1).sum(axis=1)
    lever = 0.5 + lever / lever.max()
    noise = np.maximum(noise, 1e-3)
    whole = LocalCovariance(product, have, coefficients, noise, error, fineness / fineness[-1], lever)
    return unite_solvent(whole)


def select_local(local: LocalCovariance, used: NDArray[np.integer]) -> LocalCovariance:
    """The same for some of the maps."""
    return local._replace(
        product=local.product[:, :, used][..., used],
        have=local.have[:, used],
        noise=local.noise[:, used],
        noise_error=local.noise_error[:, used],
    )


def unite_solvent(local: LocalCovariance) -> LocalCovariance:
    """Put all windows in which no band has a signal worth mentioning into one, the last."""
    n_maps = local.product.shape[-1]
    apart = ~np.eye(n_maps, dtype=bool)
    shared = np.where(local.have[:, :, None] & local.have[:, None] & apart, 1.0, 0.0)
    signal = np.einsum("bwij,bij->bw", local.product, shared) / shared.sum(axis=(1, 2))[:, None]
    signal = np.maximum(signal, 0)
    level = (signal / np.maximum(signal.max(axis=1, keepdims=True), 1e-12)).max(axis=0)
    empty = level < SOLVENT_LEVEL
    if empty.sum() < 2:
        return local
    weight = local.coefficients[:, empty]
    united = np.einsum("bwij,bw->bij", local.product[:, empty], weight) / weight.sum(axis=1)[:, None, None]
    return local._replace(
        product=np.concatenate([local.product[:, ~empty], united[:, None]], axis=1).astype(np.float32),
        coefficients=np.concatenate([local.coefficients[:, ~empty], weight.sum(axis=1)[:, None]], axis=1),
        lever=np.append(local.lever[~empty], local.lever[empty].mean()),
    )
