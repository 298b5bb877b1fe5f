"""Signal and noise of one map: particle radius, noise spectrum from the solvent, half-map FSC, resolution."""

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from regroup_dask.science.own_mask import find_mask_radius, find_own_mask, find_support, is_blank_inside, radii

logger = logging.getLogger(__name__)

_MINIMUM_SOLVENT_FRACTION = 0.01
_MINIMUM_SOLVENT_VOXELS = 300
_THRESHOLD_SIGMAS = 4.5
_THRESHOLD_OF_PEAK = 0.02
_SMALL_SOLVENT_FRACTION = 0.3
_FADED = 0.3


class MapStatistics(NamedTuple):
    """What one map says about itself.

    Shells are ``round(|k|)`` = 0 .. box // 2 of the unpadded box. Powers are sums of ``|F|^2`` over all
    Fourier coefficients of a shell (both halves of Fourier space) of the unnormalised FFT of the map under
    the mask, if one was given: directly comparable with the powers of a compared pair.

    Attributes
    ----------
    solvent_power : float64[n_shells]
        Noise power per shell of the map under the mask, extrapolated from the solvent; NaN where there is too
        little solvent (a tightly masked map).
    map_power : float64[n_shells]
        Power per shell of the map under the mask.
    half_map_fsc : float64[n_shells]
        Fourier shell correlation of the half maps (NaN without them), under the same mask if one was given.
    signal_fraction : float64[n_shells]
        Share of the map's power that is signal, 0..1: from half maps where given, else from the solvent, NaN
        else. Its square root is the C_ref of Rosenthal and Henderson (2003). Usable as per-shell weights in
        an alignment.
    solvent_fraction : float
        Share of the voxels of the box that the noise was measured in; 0 = none.
    mask_volume_fraction : float
        Mean over the box of the squared mask, ours times the map's own: the share of the box that has noise.
    mask_spectrum : float64[n_shells]
        Mean over each shell of ``|F|^2`` of that mask, over the squared number of voxels.
    particle_radius_angstrom : float
        Largest distance from the centre of the box to a voxel of the particle.
    mask_radius_angstrom : float
        Radius beyond which the map is zero (a map masked by its program); infinite for a map that is not
        masked.
    resolution_angstrom : float
        Resolution: FSC = 0.143 of half maps where given. Else crude: the first shell where less than a
        quarter of the power is signal by the solvent (FSC of 0.143 is a signal share of 0.25), or, without
        solvent, where the power falls below a thousandth of its strongest shell. Never finer than Nyquist.
    mean, standard_deviation : float
        Of all voxels.
    """

    solvent_power: NDArray[np.float64]
    map_power: NDArray[np.float64]
    half_map_fsc: NDArray[np.float64]
    signal_fraction: NDArray[np.float64]
    solvent_fraction: float
    mask_volume_fraction: float
    mask_spectrum: NDArray[np.float64]
    particle_radius_angstrom: float
    mask_radius_angstrom: float
    resolution_angstrom: float
    mean: float
    standard_deviation: float


def shell_index(box: int) -> NDArray[np.int64]:
    """Shell ``round(|k|)`` of every coefficient of ``rfftn``, int64[box, box, box // 2 + 1]."""
    k = fft.fftfreq(box, 1 / box)
    half = fft.rfftfreq(box, 1 / box)
    return np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + half[None, None, :] ** 2)).astype(
        np.int64
    )


def shell_coefficients(box: int) -> NDArray[np.float64]:
    """Independent complex Fourier coefficients per shell (half of all), float64[box // 2 + 1]."""
    return _shell_sums(np.ones((box, box, box // 2 + 1)), box) / 2


def _shell_sums(coefficients: NDArray[np.float64], box: int) -> NDArray[np.float64]:
    """Sum an rfftn-shaped array over shells 0 .. box // 2 of the full Fourier space."""
    weight = np.full(box // 2 + 1, 2.0)
    weight[0] = 1.0
    if box % 2 == 0:
        weight[-1] = 1.0
    n_shells = box // 2 + 1
    sums = np.bincount(shell_index(box).ravel(), (coefficients * weight).ravel(), n_shells)
    return np.asarray(sums[:n_shells], np.float64)


def map_statistics(
    volume: NDArray[np.floating],
    *,
    voxel_size_angstrom: float,
    half_maps: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    mask: NDArray[np.floating] | None = None,
) -> MapStatistics:
    """Measure particle radius, noise spectrum and resolution of one map.

    The particle is what stands above the noise in the smoothed map; the noise is the quietest radial annulus
    inside the map's own mask, if it has one. The spectrum of the noise is the Fourier transform of its
    autocovariance over pairs of solvent voxels (each lag divided by the number of pairs that have it), which
    has no leakage from the shape of the solvent region.

    Parameters
    ----------
    volume : float[n, n, n]
        The working map, not masked by us.
    voxel_size_angstrom : float
        Voxel size of ``volume``.
    half_maps : two float[n, n, n], optional
        Half maps of the same sampling, not masked.
    mask : float[n, n, n], optional
        Mask under which the maps will be compared. The noise is still measured outside it.

    Returns
    -------
    MapStatistics

    References
    ----------
    Rosenthal, P. B. and Henderson, R. (2003). J. Mol. Biol. 333, 721-745 (FSC, C_ref and signal-to-noise).
    """
    volume = np.asarray(volume, np.float32)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise ValueError(f"a map must be a cube, not of shape {volume.shape}")
    box = volume.shape[0]
    n_shells = box // 2 + 1
    weight = np.ones((), np.float32) if mask is None else np.asarray(mask, np.float32)
    map_power = _shell_sums(np.abs(fft.rfftn(volume * weight)) ** 2, box)

    radius = radii(box)
    mask_radius = find_mask_radius(volume, radius)
    particle = _particle_region(volume, radius, mask_radius)
    particle_radius = _outer_radius(particle, radius)
    own_mask = find_own_mask(volume, radius, mask_radius)
    solvent = _solvent_region(volume, particle, radius, mask_radius)
    solvent_fraction = float(solvent.mean())
    too_little = solvent_fraction < _MINIMUM_SOLVENT_FRACTION or solvent.sum() < _MINIMUM_SOLVENT_VOXELS
    if too_little and np.isfinite(mask_radius) and is_blank_inside(volume, radius, mask_radius):
        own_mask = np.minimum(own_mask, find_support(volume))
    own_mask = (own_mask * weight).astype(np.float32)
    mask_fraction = float(np.mean(own_mask**2))
    if too_little:
        solvent_power, solvent_fraction = np.full(n_shells, np.nan), 0.0
    else:
        solvent_power = _stationary_power(volume, solvent, own_mask)

    fsc = np.full(n_shells, np.nan)
    if half_maps is not None:
        fsc = fourier_shell_correlation(half_maps[0], half_maps[1], mask=own_mask)
        signal_fraction = np.clip(2 * fsc / (1 + np.maximum(fsc, 0)), 0, 1)
    else:
        signal_fraction = np.clip(1 - solvent_power / np.maximum(map_power, 1e-300), 0, 1)
    resolution = _resolution_shell(signal_fraction, map_power)
    return MapStatistics(
        solvent_power=solvent_power,
        map_power=map_power,
        half_map_fsc=fsc,
        signal_fraction=signal_fraction,
        solvent_fraction=solvent_fraction,
        mask_volume_fraction=mask_fraction,
        mask_spectrum=_shell_sums(np.abs(fft.rfftn(own_mask)) ** 2, box) / (2 * shell_coefficients(box)) / box**6,
        particle_radius_angstrom=max(particle_radius, 1.0) * voxel_size_angstrom,
        mask_radius_angstrom=mask_radius * voxel_size_angstrom,
        resolution_angstrom=box * voxel_size_angstrom / resolution,
        mean=float(volume.mean(dtype=np.float64)),
        standard_deviation=float(volume.std(dtype=np.float64)),
    )


def fourier_shell_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], *, mask: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """FSC of two maps of one box, float64[box // 2 + 1] (Rosenthal and Henderson 2003)."""
    box = first.shape[0]
    weight = 1.0 if mask is None else mask
    a, b = fft.rfftn(first * weight), fft.rfftn(second * weight)
    cross = _shell_sums((a * b.conj()).real, box)
    power = _shell_sums(np.abs(a) ** 2, box) * _shell_sums(np.abs(b) ** 2, box)
    return np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)


def _particle_region(
    volume: NDArray[np.float32], radius: NDArray[np.float32], mask_radius: float
) -> NDArray[np.bool_]:
    """Voxels of the particle: connected regions of the smoothed map above its noise."""
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(volume, 1.0, mode="wrap")
    inner = min(mask_radius - 1.5, float(radius.max()))
    level, noise = float("nan"), np.inf
    # From outside in: the outermost annulus is solvent if any is, so the spread is measured about its level.
    for outer in np.arange(inner, 2.0, -2.0):
        annulus = smooth[(radius < outer) & (radius >= outer - 2)]
        if annulus.size < 200:
            continue
        level = float(np.median(annulus)) if np.isnan(level) else level
        noise = min(noise, 1.4826 * float(np.median(np.abs(annulus - level))))
    if not np.isfinite(noise):
        level, noise = 0.0, float(smooth.std())
    inside = radius < inner
    peak = float(np.percentile(smooth[inside], 99.9)) - level if inside.any() else 0.0
    peak = max(peak, float(smooth.max()) - level if peak <= 0 else peak)
    above = (np.abs(smooth - level) > max(_THRESHOLD_SIGMAS * noise, _THRESHOLD_OF_PEAK * peak)) & inside
    labelled, n_regions = ndimage.label(above)
    if not n_regions:
        return above
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    keep = sizes >= max(5, 0.03 * sizes.max())
    keep[sizes.argmax()] = True
    keep[0] = False
    return np.asarray(keep[labelled])


def _outer_radius(particle: NDArray[np.bool_], radius: NDArray[np.float32]) -> float:
    """Radius (voxels) of the particle without specks; 0.45 of the box where none was found."""
    labelled, n_regions = ndimage.label(particle)
    if not n_regions:
        return 0.45 * particle.shape[0]
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    body = (sizes >= 0.1 * sizes.max())[labelled] & particle
    return float(np.percentile(radius[body], 99.5))


def _solvent_region(
    volume: NDArray[np.float32],
    particle: NDArray[np.bool_],
    radius: NDArray[np.float32],
    mask_radius: float,
    margin: float = 2.5,
) -> NDArray[np.bool_]:
    """Voxels well away from the particle and inside the map's own mask."""
    distance = ndimage.distance_transform_edt(~particle) if particle.any() else np.full(volume.shape, np.inf)
    solvent = np.asarray((distance > margin) & (radius < mask_radius - 1.5))
    values = volume[solvent]
    # A mask that follows the particle leaves density next to it, which is positive, and nothing farther away; solvent
    # lies around zero, and its noise has one level everywhere.
    if np.isfinite(mask_radius) and values.size:
        away = distance[solvent]
        near, far = (float(np.square(values[part], dtype=np.float64).mean() if part.any() else 0.0) for part in _halves(away))
        if abs(float(values.mean())) > 0.5 * float(values.std()) or far < _FADED * near:
            return np.zeros_like(solvent)
    return solvent


def _halves(distance: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    near = distance <= np.median(distance)
    return near, ~near


def _stationary_power(
    volume: NDArray[np.float32], region: NDArray[np.bool_], mask: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Expected power per shell, under a mask, of the stationary noise seen in a region.

    Blackman-Tukey estimate: autocovariance by lag, each lag divided by its number of pairs within the region;
    lags that few pairs show are tapered. The mask multiplies the autocovariance by its own autocorrelation,
    which is what it leaks from strong shells into weak ones.
    """
    box = volume.shape[0]
    weight = region.astype(np.float32)
    centred = (volume - volume[region].mean()) * weight
    covariance = fft.irfftn(np.abs(fft.rfftn(centred)) ** 2, volume.shape)
    pairs = fft.irfftn(np.abs(fft.rfftn(weight)) ** 2, volume.shape)
    taper = np.clip(pairs / (0.3 * pairs.max()), 0, 1) ** 2
    if region.mean() < _SMALL_SOLVENT_FRACTION:
        lag = fft.ifftshift(radii(box))
        taper = taper * np.exp(-0.5 * (lag / (0.15 * box)) ** 2)
    masked = fft.irfftn(np.abs(fft.rfftn(mask)) ** 2, volume.shape)
    covariance = taper * covariance / np.maximum(pairs, 1) * masked
    power = np.maximum(_shell_sums(fft.rfftn(covariance).real, box), 0)
    if region.mean() < _SMALL_SOLVENT_FRACTION:
        # A lag window can go negative past a steep fall; the plain periodogram of the region cannot, and errs
        # upwards.
        plain = _shell_sums(np.abs(fft.rfftn(centred)) ** 2, box) * float((mask**2).mean() / weight.mean())
        power = np.maximum(power, 0.5 * plain)
    return power


def _resolution_shell(signal_fraction: NDArray[np.float64], map_power: NDArray[np.float64]) -> float:
    """First shell (fractional) where the signal share falls below 0.25, by linear interpolation."""
    n_shells = len(signal_fraction)
    if np.isfinite(signal_fraction[1:]).any():
        curve = np.nan_to_num(signal_fraction, nan=0.0)
        limit = 0.25
    else:
        density = map_power / np.maximum(np.arange(n_shells), 0.5) ** 2
        curve, limit = density / max(density[1:].max(), 1e-300), 1e-3
    below = np.flatnonzero(curve[1:] < limit) + 1
    if not len(below):
        return float(n_shells - 1)
    s = int(below[0])
    if s <= 1:
        return 1.0
    drop = curve[s - 1] - curve[s]
    return float(s - 1 + (curve[s - 1] - limit) / drop) if drop > 0 else float(s)
