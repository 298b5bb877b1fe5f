"""The classes of one superclass in its frame: moved maps, their average, and where each differs from the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from regroup_dask.science.average import move_map
from regroup_dask.science.fourier import half_spectrum_shells

FALSE_ALARM = 0.05
FEWEST_SOLVENT_VOXELS = 300
LOWEST_FSC = 0.5


class AlignedMembers(NamedTuple):
    """The classes of one superclass in its frame.

    Attributes
    ----------
    superclass
        Its number.
    class_ids
        int64 (M,), most particles first.
    maps
        float32 (M, n, n, n), each scaled to the same gain.
    average
        float32 (n, n, n), their mean.
    deviation
        float32 (M, n, n, n): the map minus the average of the other members as this map would show it, in standard
        deviations of its noise; NaN where the noise is not known, and for a class on its own.
    limit
        float64 (M,): deviations beyond this are significant.
    radius_voxel
        Radius of the particle.
    voxel_size_angstrom
        Of the maps.
    """

    superclass: int
    class_ids: NDArray[np.int64]
    maps: NDArray[np.float32]
    average: NDArray[np.float32]
    deviation: NDArray[np.float32]
    limit: NDArray[np.float64]
    radius_voxel: float
    voxel_size_angstrom: float

    @property
    def significant_share(self) -> NDArray[np.float64]:
        """Share of the particle's volume where each member differs significantly, (M,); NaN where not known."""
        inside = _radii(self.average.shape[0]) <= self.radius_voxel
        shares = []
        for deviation, limit in zip(self.deviation, self.limit, strict=True):
            values = deviation[inside]
            shares.append(np.nan if np.isnan(values).all() else float((np.abs(values) > limit).mean()))
        return np.array(shares)


def voxel_size_of(class_maps: xr.Dataset) -> float:
    """Voxel size of the working maps, in angstrom."""
    for attributes in (class_maps["density"].attrs, class_maps.attrs):
        for name in ("voxel_size_angstrom", "working_voxel_size_angstrom"):
            if name in attributes:
                return float(attributes[name])
    return 1.0


def move_classes(class_maps: xr.Dataset, groups: xr.Dataset) -> xr.DataArray:
    """Move the working map of every grouped class into the frame of its superclass.

    Parameters
    ----------
    class_maps
        ``density`` (class_id, z, y, x), and its voxel size as an attribute.
    groups
        As of `regroup_dask.group`.

    Returns
    -------
    xarray.DataArray
        (class_id, z, y, x), with the attribute voxel_size_angstrom.
    """
    voxel_size = voxel_size_of(class_maps)
    present = [int(class_id) for class_id in groups["class_id"].values if class_id in class_maps["class_id"].values]
    size = class_maps.sizes["x"]
    moved = np.zeros((len(present), size, size, size), np.float32)
    for index, class_id in enumerate(present):
        volume = np.ascontiguousarray(class_maps["density"].sel(class_id=class_id).values, np.float32)
        pose = groups.sel(class_id=class_id)
        quaternion, shift = pose["rotation_quaternion"].values, pose["shift_angstrom"].values
        mirrored = bool(pose["mirrored"])
        if np.array_equal(quaternion, [0, 0, 0, 1]) and not shift.any() and not mirrored:
            moved[index] = volume
            continue
        moved[index] = move_map(
            volume,
            rotation=Rotation.from_quat(quaternion).as_matrix(),
            shift_voxel=shift / voxel_size,
            mirrored=mirrored,
        )
    return xr.DataArray(
        moved,
        dims=("class_id", "z", "y", "x"),
        coords={"class_id": present},
        attrs={"voxel_size_angstrom": voxel_size},
    )


def align_members(
    moved: xr.DataArray, groups: xr.Dataset, superclass: int, *, statistics: xr.Dataset | None = None
) -> AlignedMembers:
    """Compare the moved maps of one superclass.

    Parameters
    ----------
    moved
        From `move_classes`.
    groups
        As of `regroup_dask.group`.
    superclass
        Which one.
    statistics
        ``resolution_angstrom`` and ``particle_radius_angstrom`` on class_id and ``solvent_power`` (class_id, shell),
        each where known.

    Returns
    -------
    AlignedMembers

    Notes
    -----
    Of every map the average of the others is subtracted, scaled in each shell to what the map has of it (least
    squares), so that neither gain nor resolution counts as a difference. What is left is cut at the coarser of the
    two resolutions, or where the FSC of the two falls below a half. Its noise is the largest of its standard
    deviation outside the particle, its median absolute deviation inside (scaled as for a Gaussian: noise is often
    stronger where density is, and what half of the particle shows is no local difference), and what the solvent
    power predicts. A deviation is significant beyond the value that noise exceeds anywhere in the particle with a
    probability of 5 %, counting resolution elements as independent.
    """
    members = groups["class_id"].values[groups["superclass"].values == superclass]
    members = np.array([member for member in members if member in moved["class_id"].values], np.int64)
    if "n_particles" in groups.coords:
        sizes = groups["n_particles"].sel(class_id=members).values
        members = members[np.lexsort((members, -sizes))]
    maps = moved.sel(class_id=members).values.astype(np.float32)
    box = maps.shape[-1]
    voxel_size = float(moved.attrs["voxel_size_angstrom"])
    known = _known(statistics, members)
    radius = known["particle_radius_angstrom"] / voxel_size
    radius_voxel = float(np.nanmedian(radius)) if np.isfinite(radius).any() else 0.4 * box
    maps = maps / _gains(maps)[:, None, None, None]
    deviation = np.full_like(maps, np.nan)
    limit = np.full(len(members), np.nan)
    if len(members) > 1:
        spectra = [scipy.fft.rfftn(volume) for volume in maps]
        total = np.sum(spectra, axis=0)
        for index, spectrum in enumerate(spectra):
            others = (total - spectrum) / (len(members) - 1)
            finest = _coarser_resolution(known["resolution_angstrom"], index, box * voxel_size / (box // 2))
            deviation[index], limit[index] = _deviation(
                spectrum, others, box, box * voxel_size / finest, radius_voxel, known["noise_power"][index]
            )
    return AlignedMembers(superclass, members, maps, maps.mean(axis=0), deviation, limit, radius_voxel, voxel_size)


def _known(statistics: xr.Dataset | None, members: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    count = len(members)
    found = {
        "resolution_angstrom": np.full(count, np.nan),
        "particle_radius_angstrom": np.full(count, np.nan),
    }
    if statistics is None:
        return {**found, "noise_power": np.full((count, 1), np.nan)}
    chosen = statistics.sel(class_id=members)
    found = {name: chosen[name].values.astype(float) if name in chosen else values for name, values in found.items()}
    power = chosen["solvent_power"].values.astype(float) if "solvent_power" in chosen else np.full((count, 1), np.nan)
    return {**found, "noise_power": power}


def _gains(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale of each map against their mean, by least squares, about its own level."""
    flat = maps.reshape(len(maps), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    strength = np.maximum(np.linalg.norm(flat, axis=1), 1e-20)
    mean = (flat / strength[:, None]).mean(axis=0)
    gains = (flat @ mean).astype(np.float64) / max(float(mean @ mean), 1e-20)
    typical = float(np.median(gains))
    gains = np.where(gains > 0.05 * abs(typical), gains, strength)
    return gains / gains[0] if gains[0] > 0 else np.ones(len(maps))


def _coarser_resolution(resolution: NDArray[np.float64], index: int, finest: float) -> float:
    others = np.delete(resolution, index)
    candidates = [finest, resolution[index], np.nanmin(others) if np.isfinite(others).any() else np.nan]
    return float(np.nanmax(candidates))


def _deviation(
    spectrum: NDArray[np.complexfloating],
    others: NDArray[np.complexfloating],
    box: int,
    cut_shell: float,
    radius_voxel: float,
    noise_power: NDArray[np.float64],
) -> tuple[NDArray[np.float32], float]:
    shell, multiplicity = half_spectrum_shells(box)
    weight = np.broadcast_to(multiplicity, shell.shape).ravel()
    count = box // 2 + 2

    def sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(shell.ravel(), weight * values.ravel(), count)

    cross = sums((spectrum * others.conj()).real)
    power = sums(np.abs(others) ** 2)
    transfer = np.clip(np.divide(cross, power, out=np.zeros(count), where=power > 0), 0, None)
    shells = np.arange(count)
    own = sums(np.abs(spectrum) ** 2)
    fsc = np.divide(cross, np.sqrt(own * power), out=np.zeros(count), where=own * power > 0)
    disagree = np.flatnonzero(fsc[1 : box // 2 + 1] < LOWEST_FSC)
    cut_shell = max(min(cut_shell, float(disagree[0] + 1) if len(disagree) else np.inf), 3.0)
    low_pass = 0.5 * (1 + np.cos(np.pi * np.clip((shells - cut_shell + 1.5) / 3, 0, 1)))
    low_pass[shells > box // 2] = 0
    low_pass[0] = 0
    difference = scipy.fft.irfftn((spectrum - transfer[shell] * others) * low_pass[shell], s=(box,) * 3)
    radii = _radii(box)
    outside = (radii > radius_voxel * 1.05 + 1) & (radii < box / 2 - 1)
    sigma = float(difference[outside].std()) if outside.sum() >= FEWEST_SOLVENT_VOXELS else 0.0
    inside = difference[radii <= radius_voxel]
    sigma = max(sigma, 1.4826 * float(np.median(np.abs(inside - np.median(inside)))))
    if len(noise_power) >= box // 2 + 1 and np.isfinite(noise_power[1:]).any():
        usable = np.nan_to_num(noise_power[: box // 2 + 1]) * low_pass[: box // 2 + 1] ** 2
        sigma = max(sigma, float(np.sqrt(usable[1:].sum() / float(box) ** 6)))
    if sigma <= 1e-6 * float(np.abs(difference).max() + 1e-30):
        return np.full(difference.shape, np.nan, np.float32), np.nan
    elements = max(4 / 3 * np.pi * radius_voxel**3 / (box / (2 * max(cut_shell, 1.0))) ** 3, 2.0)
    return (difference / sigma).astype(np.float32), float(norm.isf(FALSE_ALARM / 2 / elements))


def member_fsc(members: AlignedMembers) -> NDArray[np.float64]:
    """FSC between the moved maps of a superclass, inside a soft sphere about the particle.

    Returns
    -------
    numpy.ndarray
        float64 (M, M, n // 2 + 1).
    """
    box = members.average.shape[0]
    shell, multiplicity = half_spectrum_shells(box)
    weight = np.broadcast_to(multiplicity, shell.shape).ravel()
    edge = 3.0
    inner = min(members.radius_voxel, box / 2 - edge - 1)
    soft = 0.5 * (1 + np.cos(np.pi * np.clip((_radii(box) - inner) / edge, 0, 1)))
    spectra = np.stack([scipy.fft.rfftn(volume * soft).astype(np.complex64) for volume in members.maps])
    count, shells = len(spectra), box // 2 + 2
    fsc = np.ones((count, count, box // 2 + 1))
    power = [np.bincount(shell.ravel(), weight * (np.abs(part) ** 2).ravel(), shells) for part in spectra]
    for first in range(count):
        for second in range(first + 1, count):
            cross = np.bincount(
                shell.ravel(), weight * (spectra[first] * spectra[second].conj()).real.ravel(), shells
            )
            value = cross / np.sqrt(np.maximum(power[first] * power[second], 1e-300))
            fsc[first, second] = fsc[second, first] = value[: box // 2 + 1]
    return fsc


def _radii(box: int) -> NDArray[np.float64]:
    axis = np.arange(box) - box // 2
    return np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
