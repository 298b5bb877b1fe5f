"""The classes of one superclass in its frame: moved maps, their average, and where each differs from the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from regroup_dask.report.member_differences import radii, signal_power, significant_difference
from regroup_dask.report.side_by_side import side_by_side
from regroup_dask.science.average import move_map
from regroup_dask.science.fourier import shell_sums

READ_TOGETHER = 32


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
        inside = radii(self.average.shape[0]) <= self.radius_voxel
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
    chosen = groups.sel(class_id=present)
    quaternions, shifts = chosen["rotation_quaternion"].values, chosen["shift_angstrom"].values
    mirrored = chosen["mirrored"].values.astype(bool)

    def move(index: int) -> None:
        if np.array_equal(quaternions[index], [0, 0, 0, 1]) and not shifts[index].any() and not mirrored[index]:
            return
        moved[index] = move_map(
            moved[index],
            rotation=Rotation.from_quat(quaternions[index]).as_matrix(),
            shift_voxel=shifts[index] / voxel_size,
            mirrored=bool(mirrored[index]),
        )

    for start in range(0, len(present), READ_TOGETHER):
        together = present[start : start + READ_TOGETHER]
        moved[start : start + len(together)] = class_maps["density"].sel(class_id=together).values
        side_by_side(move, range(start, start + len(together)))
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
    gains = _gains(maps)
    maps = (maps / gains[:, None, None, None]).astype(np.float32)
    deviation = np.full_like(maps, np.nan)
    limit = np.full(len(members), np.nan)
    if len(members) > 1:
        spectra = [scipy.fft.rfftn(volume) for volume in maps]
        total = np.sum(spectra, axis=0)
        own_power = np.array([shell_sums(np.abs(spectrum) ** 2, box) for spectrum in spectra])

        def compare(index: int) -> None:
            others = (total - spectra[index]) / (len(members) - 1)
            signal = signal_power(others, np.delete(own_power, index, axis=0))
            finest = _coarser_resolution(known["resolution_angstrom"], index, box * voxel_size / (box // 2))
            deviation[index], limit[index] = significant_difference(
                spectra[index],
                others,
                signal,
                cut_shell=box * voxel_size / finest,
                radius_voxel=radius_voxel,
                noise_power=known["noise_power"][index] / gains[index] ** 2,
            )

        side_by_side(compare, range(len(members)))
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


def member_fsc(members: AlignedMembers) -> NDArray[np.float64]:
    """FSC between the moved maps of a superclass, inside a soft sphere about the particle.

    Returns
    -------
    numpy.ndarray
        float64 (M, M, n // 2 + 1).
    """
    box = members.average.shape[0]
    edge = 3.0
    inner = min(members.radius_voxel, box / 2 - edge - 1)
    soft = 0.5 * (1 + np.cos(np.pi * np.clip((radii(box) - inner) / edge, 0, 1)))
    spectra = [scipy.fft.rfftn(volume * soft).astype(np.complex64) for volume in members.maps]
    power = [shell_sums(np.abs(spectrum) ** 2, box) for spectrum in spectra]
    fsc = np.ones((len(spectra), len(spectra), box // 2 + 1))
    for first in range(len(spectra)):
        for second in range(first + 1, len(spectra)):
            cross = shell_sums((spectra[first] * spectra[second].conj()).real, box)
            value = cross / np.sqrt(np.maximum(power[first] * power[second], 1e-300))
            fsc[first, second] = fsc[second, first] = value
    return fsc
