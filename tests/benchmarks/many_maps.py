"""Generated maps by the thousand, each made exactly at its own pose: easy ones, and as alike as class maps are.

`unlike_maps` are chains of Gaussians that share most of their mass, but for one domain that is elsewhere in each structure.
`related_maps` are structures of `tests.benchmarks.grouping_problems`: each came from another by a connected part of 2 to
30 percent of the mass that is missing or has moved, and every map has its own noise, filter and gain.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.spatial.transform import Rotation

from regroup_dask.science.noise import shell_index
from tests.benchmarks import grouping_problems


class Maps(NamedTuple):
    """Maps (N, z, y, x), the structure of each, and the pose that each was made at: ``x_map = R x + t``, t in voxels."""

    maps: np.ndarray
    structure: np.ndarray
    rotation: np.ndarray
    shift_voxels: np.ndarray
    voxel_size_angstrom: float
    # What the likeliest structure of every map is, to one who knows all structures, poses, filters and noise; -1: not asked.
    oracle: np.ndarray

    def first(self, count: int) -> Maps:
        """Some of the maps."""
        return Maps(*(value[:count] if isinstance(value, np.ndarray) else value for value in self))  # type: ignore[arg-type]


def _empty(n_maps: int, box: int, path: Path | None) -> np.ndarray:
    """Room for maps, in a file where one is given: they are read from it then, as a run reads its maps."""
    shape = (n_maps, box, box, box)
    if path is None:
        return np.empty(shape, np.float32)
    room: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    return room


def _structure_of_each(rng: np.random.Generator, n_maps: int, n_structures: int) -> np.ndarray:
    structure = np.arange(n_maps) % n_structures
    rng.shuffle(structure)
    return structure


def unlike_maps(n_maps: int, n_structures: int, box: int, seed: int, path: Path | None = None) -> Maps:
    """Maps of structures that one domain tells apart, with noise over a factor of ten and blur over a factor of three."""
    rng = np.random.default_rng(seed)
    shared = np.cumsum(rng.normal(size=(60, 3)), axis=0)
    shared *= 0.3 * box / np.linalg.norm(shared - shared.mean(axis=0), axis=1).max()
    shared -= shared.mean(axis=0)
    variable = [rng.normal(size=(14, 3)) * 1.5 + rng.normal(size=3) * 0.16 * box for _ in range(n_structures)]
    structure = _structure_of_each(rng, n_maps, n_structures)
    axis = np.arange(box) - box // 2
    frequency = np.sqrt(
        sum(part**2 for part in np.meshgrid(np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij"))
    )
    maps = _empty(n_maps, box, path)
    rotations, shifts = np.empty((n_maps, 3, 3)), np.empty((n_maps, 3))
    for index in range(n_maps):
        points = np.concatenate([shared, variable[structure[index]]])
        turned = Rotation.random(random_state=rng)
        rotations[index] = turned.as_matrix()
        shifts[index] = rng.uniform(-1.5, 1.5, 3)
        points = turned.apply(points) + shifts[index]
        factors = [np.exp(-((axis[:, None] - points[:, part]) ** 2) / (2 * 1.3**2)) for part in range(3)]
        density = np.einsum("zp,yp,xp->zyx", factors[2], factors[1], factors[0], optimize=True)
        density += rng.normal(size=density.shape) * density.std() * 10 ** rng.uniform(-1, 0)
        blur = np.exp(-((frequency * rng.uniform(1.5, 2.6)) ** 2))
        maps[index] = irfftn(rfftn(density) * blur, density.shape) * rng.uniform(0.5, 2)
    return Maps(maps, structure, rotations, shifts, 8.0, np.full(n_maps, -1))


def spectrum_of(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fourier transform of a density of points at a pose, box 32.

    Points are shared out on a grid twice as fine: on the box's own, what is left of the grid would tell apart maps of one
    structure at different poses.
    """
    box = grouping_problems.BOX
    fine = rfftn(grouping_problems.share_out(2 * points[:, ::-1], weights, 2 * box).astype(np.float32))
    k = np.r_[0 : box // 2, -(box // 2) : 0]
    blur = np.exp(-2 * (np.pi * 0.7 * k / box) ** 2)
    last = slice(box // 2 + 1)
    return np.asarray(fine[np.ix_(k, k)][:, :, last] * blur[:, None, None] * blur[:, None] * blur[last])


def related_maps(
    n_maps: int,
    n_structures: int,
    seed: int,
    path: Path | None = None,
    *,
    difference_percent: tuple[float, float] = (2.0, 30.0),
    noise: tuple[float, float] = (0.3, 3.0),
    resolution_angstrom: tuple[float, float] = (10.0, 25.0),
    n_asked: int = 200,
) -> Maps:
    """Maps of structures that a part of the mass tells apart, box 32 at 4 A.

    Parameters
    ----------
    difference_percent
        Least and largest part of the mass by which a structure differs from the one it was made from.
    noise
        Least and largest standard deviation of the white noise before a map's filter, over that of the map.
    resolution_angstrom
        Of the filters, Butterworth of order eight.
    n_asked
        The oracle is asked of the first so many maps: it takes as many transforms as there are structures.
    """
    rng = np.random.default_rng([seed, n_structures])
    box, voxel = grouping_problems.BOX, 4.0
    least, largest = (percent / 100 for percent in difference_percent)
    made, _ = grouping_problems.related_structures(rng, n_structures, 0.3 * box, shares=(least, largest))
    structure = _structure_of_each(rng, n_maps, n_structures)
    shells = np.minimum(shell_index(box), box // 2)
    maps = _empty(n_maps, box, path)
    rotations, shifts = np.empty((n_maps, 3, 3)), np.empty((n_maps, 3))
    oracle = np.full(n_maps, -1)
    for index in range(n_maps):
        turned = Rotation.random(random_state=rng)
        rotations[index] = turned.as_matrix()
        shifts[index] = rng.uniform(-1.0, 1.0, 3)
        asked = range(n_structures) if index < n_asked else [structure[index]]
        spectra = {one: spectrum_of(turned.apply(made[one][0]) + shifts[index], made[one][1]) for one in asked}
        own = spectra[structure[index]]
        level = np.exp(rng.uniform(*np.log(noise))) * irfftn(own, (box,) * 3).std()
        cutoff = box * voxel / np.exp(rng.uniform(*np.log(resolution_angstrom)))
        transfer = 1 / np.sqrt(1 + (shells / cutoff) ** 8)
        seen = own + rfftn(rng.normal(size=(box,) * 3) * level)
        # White noise before a filter: the likeliest structure is the nearest one before the filter too.
        if index < n_asked:
            oracle[index] = min(spectra, key=lambda one: (np.abs(seen - spectra[one])[shells <= 2 * cutoff] ** 2).sum())
        maps[index] = irfftn(seen * transfer, (box,) * 3) * np.exp(rng.uniform(np.log(0.3), np.log(3.0)))
    return Maps(maps, structure, rotations, shifts, voxel, oracle)
