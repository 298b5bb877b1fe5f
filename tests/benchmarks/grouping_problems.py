"""Generated grouping problems: class maps of a few related structures, as unequal as class maps are.

A complex of subunits is made of points; its structures differ by parts (2 to 30 percent of the mass)
that are missing or have moved. A class map is a structure times an unknown gain and low-pass filter (6
to 25 A), with stationary noise of its own level (a factor of 10) and colour, perhaps masked with a
sphere, perhaps misaligned as an alignment leaves it. The noise of every map is such that its own
resolution is 25 A or better. A method sees only what a real run has: the maps, and in a quarter of the
problems half-map FSCs, in a sixth the model's SSNR (with an error of 15 percent). The truth is kept for
the oracle, which knows structures, filters and noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from regroup_dask.science.noise import fourier_shell_correlation, shell_index

BOX = 32


class Problem(NamedTuple):
    """One problem; what a method may see, then what only the oracle may."""

    maps: NDArray[np.float32]
    voxel_size_angstrom: float
    n_structures: int
    half_map_fsc: NDArray[np.float64] | None
    ssnr: NDArray[np.float64] | None
    description: dict[str, object]
    labels: NDArray[np.int64]
    structures: NDArray[np.float32]
    transfer: NDArray[np.float64]
    noise_power: NDArray[np.float64]
    comparison_mask: NDArray[np.float32]


def soft_sphere(box: int, radius: float, edge: float) -> NDArray[np.float32]:
    axis = np.arange(box) - box // 2
    r = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((r - radius) / edge, 0, 1))).astype(np.float32)


def _complex(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Points (angstrom-free, voxels) of subunits that are compact random walks, touching each other."""
    n_subunits = int(rng.integers(10, 25))
    centres = np.zeros((n_subunits, 3))
    stretch = np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.4, 1.0)])
    points = []
    for k in range(n_subunits):
        if k:
            towards = rng.normal(size=3) * stretch
            centres[k] = centres[rng.integers(k)] + towards / np.linalg.norm(towards)
        n = int(rng.integers(60, 240))
        walk = np.cumsum(rng.normal(size=(n, 3)), axis=0)
        walk -= walk.mean(axis=0)
        walk *= 0.45 / np.sqrt((walk**2).sum(axis=1).mean())
        points.append(centres[k] + walk)
    x = np.concatenate(points)
    x -= x.mean(axis=0)
    x = Rotation.random(random_state=rng).apply(x)
    return np.asarray(x * radius / np.percentile(np.linalg.norm(x, axis=1), 99))


def share_out(points: NDArray[np.float64], weights: NDArray[np.float64], box: int = BOX) -> NDArray[np.float64]:
    """Points (z, y, x), in voxels from the middle of the box, shared out to their eight nearest voxels."""
    grid = points + box // 2
    low = np.floor(grid).astype(int)
    part = grid - low
    flat = np.zeros(box**3)
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1) * weights
        index = np.clip(low + corner, 0, box - 1) @ np.array([box**2, box, 1])
        flat += np.bincount(index, share, box**3)
    return flat.reshape(box, box, box)


def point_density(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Density of points, blurred."""
    k = fft.fftfreq(BOX)
    blur = np.exp(-2 * (np.pi * 0.7 * k) ** 2)
    spectrum = fft.fftn(share_out(points, weights)) * blur[:, None, None] * blur[None, :, None] * blur
    return fft.ifftn(spectrum).real.astype(np.float32)


def related_structures(
    rng: np.random.Generator, n_structures: int, radius: float, *, shares: tuple[float, float] = (0.02, 0.30)
) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], list[str]]:
    """Points and weights of each structure, and how it came from one before it: by such shares of the mass."""
    x = _complex(rng, radius)
    made = [(x, np.ones(len(x)))]
    densities = [point_density(x, np.ones(len(x)))]
    how = ["base"]
    while len(made) < n_structures:
        points, weights = made[int(rng.integers(len(made)))]
        share = float(np.exp(rng.uniform(np.log(shares[0]), np.log(shares[1]))))
        # A connected region of about this share of the mass: the points nearest to a random one.
        centre = points[rng.integers(len(points))]
        region = np.argsort(np.linalg.norm(points - centre, axis=1))[: max(5, int(share * len(points)))]
        new, new_weights = points.copy(), weights.copy()
        if rng.random() < 0.5:
            if weights[region].mean() < 0.5:
                continue
            new_weights[region] = 0
            change = f"without {share:.3f}"
        else:
            hinge = points[region].mean(axis=0) + rng.normal(size=3)
            axis = rng.normal(size=3)
            turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.deg2rad(rng.uniform(10, 35)))
            new[region] = turn.apply(points[region] - hinge) + hinge + rng.normal(size=3) * 0.5
            change = f"moved {share:.3f}"
        # Two percent of the mass missing are a correlation of sqrt(0.98): less is no other structure.
        density = point_density(new, new_weights)
        if min(1 - np.corrcoef(density.ravel(), other.ravel())[0, 1] for other in densities) < 0.01:
            continue
        made.append((new, new_weights))
        densities.append(density)
        how.append(change)
    return made, how


def power_per_coefficient(volume: NDArray[np.float32]) -> NDArray[np.float64]:
    shells = np.minimum(shell_index(BOX), BOX // 2).ravel()
    power = np.bincount(shells, (np.abs(fft.rfftn(volume)) ** 2).ravel())
    return np.asarray(power / np.bincount(shells))


def make_problem(seed: int, index: int) -> Problem:
    """Problem number ``index`` of the series ``seed``."""
    rng = np.random.default_rng([seed, index])
    n_maps = int(np.rint(np.exp(rng.uniform(np.log(3), np.log(40)))))
    n_structures = int(rng.integers(2, min(8, n_maps - 1) + 1))
    sizes = rng.dirichlet(np.full(n_structures, 1.5))
    labels = np.concatenate(
        [np.arange(n_structures), rng.choice(n_structures, n_maps - n_structures, p=sizes)]
    )
    rng.shuffle(labels)
    voxel = float(rng.uniform(3.0, 4.0))
    radius = float(rng.uniform(5.0, 12.5))
    equal_noise = bool(rng.random() < 0.25)
    coloured = bool(rng.random() < 0.5)
    masked = bool(rng.random() < 0.5)
    misaligned = bool(rng.random() < 0.3)
    known = rng.choice(["nothing", "half_maps", "ssnr"], p=[0.6, 0.25, 0.15])

    made, how = related_structures(rng, n_structures, radius)
    structures = np.stack([point_density(x, w) for x, w in made])
    shells = np.minimum(shell_index(BOX), BOX // 2)
    s = np.arange(BOX // 2 + 1)
    colours = np.ones((n_maps, len(s)))
    if coloured:
        for i in range(n_maps):
            colours[i] = 1 / (1 + (s / rng.uniform(3, 8)) ** rng.uniform(1, 2)) + rng.uniform(0.05, 0.3)
            colours[i] /= np.sqrt((colours[i][shells] ** 2).mean())
    # The noisiest map a problem may have reaches 25 A: there a quarter of its power is signal (FSC of 0.143).
    at_25 = BOX * voxel / 25
    near = np.abs(s - at_25) < 1
    signal_power = np.mean([power_per_coefficient(v)[near].mean() for v in structures])
    worst = np.sqrt(signal_power * 3 / BOX**3 / (colours[:, near] ** 2).mean(axis=1))
    quietness = float(10 ** rng.uniform(0, 0.5))
    spread = np.full(n_maps, 10 ** rng.uniform(0, 1)) if equal_noise else 10 ** rng.uniform(0, 1, n_maps)
    level = worst / quietness / spread
    own_mask = soft_sphere(BOX, rng.uniform(min(radius + 1.5, 13.5), 14.0), 2.0) if masked else None
    comparison_mask = soft_sphere(BOX, 14.0, 2.0)

    resolution = np.exp(rng.uniform(np.log(6.0), np.log(25.0), n_maps))
    if equal_noise:
        resolution[:] = resolution[0]
    gain = np.exp(rng.uniform(np.log(0.3), np.log(3.0), n_maps))
    maps = np.empty((n_maps, BOX, BOX, BOX), np.float32)
    transfer = np.empty((n_maps, len(s)))
    noise_power = np.empty((n_maps, len(s)))
    fsc = np.full((n_maps, len(s)), np.nan)
    for i in range(n_maps):
        x, w = made[labels[i]]
        if misaligned:
            # As an alignment leaves it: some 0.3 degrees and 0.06 voxel; three times that for the noisiest.
            error = 0.2 * np.sqrt(level[i] / level.min()) * rng.normal(size=(2, 3))
            turn = Rotation.from_rotvec(np.deg2rad(error[0]))
            density = point_density(turn.apply(x) + 0.2 * error[1], w)
        else:
            density = structures[labels[i]]
        cutoff = BOX * voxel / resolution[i]
        transfer[i] = gain[i] / np.sqrt(1 + (s / cutoff) ** 8)
        colour = colours[i]
        noise_power[i] = (level[i] * colour) ** 2 * transfer[i] ** 2
        halves = []
        for _ in range(2):
            white = fft.rfftn(rng.normal(size=(BOX,) * 3)) * np.sqrt(2.0) * (level[i] * colour)[shells]
            half = fft.irfftn((fft.rfftn(density) + white) * transfer[i][shells], (BOX,) * 3)
            halves.append(half.astype(np.float32))
        maps[i] = (halves[0] + halves[1]) / 2
        if own_mask is not None:
            maps[i] *= own_mask
        fsc[i] = fourier_shell_correlation(
            *halves, mask=comparison_mask if own_mask is None else comparison_mask * own_mask
        )

    ssnr = None
    if known == "ssnr":
        ssnr = np.empty((n_maps, len(s)))
        for i in range(n_maps):
            signal = power_per_coefficient(structures[labels[i]]) * transfer[i] ** 2
            ssnr[i] = signal / (noise_power[i] * BOX**3) * np.exp(rng.normal(0, 0.15))
    return Problem(
        maps=maps,
        voxel_size_angstrom=voxel,
        n_structures=n_structures,
        half_map_fsc=fsc if known == "half_maps" else None,
        ssnr=ssnr,
        description={
            "maps": n_maps,
            "structures": n_structures,
            "sizes": np.bincount(labels).tolist(),
            "equal_noise": equal_noise,
            "coloured": coloured,
            "masked": masked,
            "misaligned": misaligned,
            "known": str(known),
            "radius_voxels": round(radius, 1),
            "quietness": round(quietness, 2),
            "differences": how,
        },
        labels=labels.astype(np.int64),
        structures=structures,
        transfer=transfer,
        noise_power=noise_power,
        comparison_mask=comparison_mask if own_mask is None else comparison_mask * own_mask,
    )


def oracle_labels(problem: Problem) -> NDArray[np.int64]:
    """Most likely structure of every map, given the true structures, filters, gains and noise spectra."""
    shells = np.minimum(shell_index(BOX), BOX // 2)
    mask = problem.comparison_mask
    weight = np.full(shells.shape, 2.0)
    weight[..., 0] = weight[..., -1] = 1.0
    weight *= (shells >= 1) & (shell_index(BOX) <= BOX // 2)
    result = np.empty(len(problem.maps), np.int64)
    spectra = fft.rfftn(problem.structures, axes=(1, 2, 3))
    for i, volume in enumerate(problem.maps):
        seen = fft.rfftn(volume * (mask > 0) * soft_sphere(BOX, 14.0, 2.0))
        cost = []
        for spectrum in spectra:
            expected = fft.irfftn(spectrum * problem.transfer[i][shells], volume.shape) * mask
            difference = np.abs(seen - fft.rfftn(expected)) ** 2
            cost.append((weight * difference / problem.noise_power[i][shells]).sum())
        result[i] = int(np.argmin(cost))
    return result
