"""A whole run, proven by reconstruction: regrouped particles of turned classes give the map of unturned ones.

Two structures, sums of Gaussians, are classified into six classes that lie in their boxes as they like: turned, shifted
and one of the other hand. Particles are Fourier slices of their class's structure, which are exact, with noise. The
run sees class maps and particle files only. What it writes is reconstructed by direct Fourier inversion and held
against the truth; nothing of the package is used to simulate or to reconstruct.
"""

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.steps.exporting import export

BOX, PIXEL, WIDTH = 32, 4.0, 5.0  # voxels, angstrom, angstrom
SIZES = (500, 300, 240, 200, 160, 100)
STRUCTURE = (0, 0, 1, 0, 1, 1)
MIRRORED = 3
NOISE = 0.5
"""of a Fourier coefficient; the coefficient at the origin is the number of Gaussians, 12"""

FREQUENCY = np.fft.fftshift(np.fft.fftfreq(BOX, PIXEL))
PLANE = np.stack([*np.meshgrid(FREQUENCY, FREQUENCY, indexing="xy"), np.zeros((BOX, BOX))], axis=-1)
PLANE = PLANE[np.hypot(PLANE[..., 0], PLANE[..., 1]) < FREQUENCY.max()]


class Particles(NamedTuple):
    images: np.ndarray  # complex [n, plane]
    rotation: np.ndarray  # [n, 3, 3], particle to volume
    shift: np.ndarray  # [n, 2] angstrom; the image moves by +shift to centre it


# Shell correlations of regrouped and of unturned particles agree within this; keeping the poses costs many times as much.
AGREEMENT = 0.03

def transform(points, wave_vectors):
    """Fourier transform of a sum of Gaussians at wave vectors [..., 3] in 1/angstrom."""
    envelope = np.exp(-2 * np.pi**2 * WIDTH**2 * (wave_vectors**2).sum(axis=-1))
    return envelope * np.exp(-2j * np.pi * wave_vectors @ points.T).sum(axis=-1)


def density(points):
    """The same on the voxels of a box, [z, y, x]."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    x, y, z = (np.exp(-((axis - centre[:, None]) ** 2) / (2 * WIDTH**2)) for centre in points.T)
    return np.einsum("pk,pj,pi->kji", z, y, x).astype(np.float32)


def take_images(points, n, rng):
    rotation, shift = Rotation.random(n, rng=rng).as_matrix(), rng.uniform(-6, 6, (n, 2))
    images = np.empty((n, len(PLANE)), complex)
    for row in range(n):
        images[row] = transform(points, PLANE @ rotation[row].T) * np.exp(2j * np.pi * PLANE[:, :2] @ shift[row])
    images += NOISE * (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape))
    return Particles(images, rotation, shift)


def reconstruct(particles):
    """Put the centred images as slices into a grid, with trilinear weights: a transform [x, y, z]."""
    grid = BOX + 2
    total, weight = np.zeros(grid**3, complex), np.zeros(grid**3)
    for part in np.array_split(np.arange(len(particles.images)), 20):
        centred = particles.images[part] * np.exp(-2j * np.pi * particles.shift[part] @ PLANE[:, :2].T)
        place = (np.einsum("nij,pj->npi", particles.rotation[part], PLANE) * BOX * PIXEL + BOX // 2).reshape(-1, 3)
        low = np.floor(place).astype(int)
        values = centred.ravel()
        for corner in np.ndindex(2, 2, 2):
            share = np.prod(np.abs(1 - np.array(corner) - (place - low)), axis=1)
            index = np.ravel_multi_index((low + corner).T, (grid,) * 3)
            total += np.bincount(index, share * values.real, len(total))
            total += 1j * np.bincount(index, share * values.imag, len(total))
            weight += np.bincount(index, share, len(weight))
    volume = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.1)
    return volume.reshape((grid,) * 3)[:BOX, :BOX, :BOX]


def shell_correlation(volume, points):
    """Fourier shell correlation with the truth from shell 1 to five eighths of Nyquist."""
    truth = transform(points, np.stack(np.meshgrid(*[FREQUENCY] * 3, indexing="ij"), axis=-1))
    axis = np.arange(BOX) - BOX // 2
    shell = np.rint(np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij")))).astype(int)
    values = []
    for s in range(1, 5 * BOX // 16 + 1):
        a, b = volume[shell == s], truth[shell == s]
        values.append((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()))
    return np.array(values)


@pytest.fixture(scope="module")
def job():
    """Structures, class maps, particles of all classes, and the class of each."""
    rng = np.random.default_rng(5)
    structures = [rng.normal(0, 13, (12, 3)) for _ in range(2)]
    maps, parts = [], []
    for class_id, (size, structure) in enumerate(zip(SIZES, STRUCTURE, strict=True)):
        points = structures[structure]
        if class_id not in (0, 2):  # the largest class of each structure is the truth's frame
            points = points @ Rotation.random(rng=rng).as_matrix().T + rng.uniform(-6, 6, 3)
        if class_id == MIRRORED:
            points = -points
        maps.append(density(points) + 0.02 * rng.normal(size=(BOX,) * 3).astype(np.float32))
        parts.append(take_images(points, size, rng))
    particles = Particles(*map(np.concatenate, zip(*parts, strict=True)))
    return structures, np.stack(maps), particles, np.repeat(np.arange(len(SIZES)), SIZES)


def write_cryosparc(path, particles, class_of):
    n, n_classes = len(class_of), len(SIZES)
    fields = [("uid", "<u8"), ("blob/path", "S10"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4")]
    for slot, axis in (("alignments3D", ()), ("alignments3D_multi", (n_classes,))):
        fields += [(f"{slot}/pose", "<f4", (*axis, 3)), (f"{slot}/shift", "<f4", (*axis, 2)), (f"{slot}/psize_A", "<f4")]
        fields += [(f"{slot}/class", "<u4", axis), (f"{slot}/class_posterior", "<f4", axis)]
    records = np.zeros(n, np.dtype(fields))
    records["uid"] = records["blob/idx"] = np.arange(n)
    records["blob/path"], records["blob/shape"], records["blob/psize_A"] = b"images.mrc", BOX, PIXEL
    records["alignments3D/psize_A"] = records["alignments3D_multi/psize_A"] = PIXEL
    records["alignments3D_multi/class"] = np.arange(n_classes)
    records["alignments3D_multi/class_posterior"] = class_of[:, None] == np.arange(n_classes)
    records["alignments3D_multi/pose"] = Rotation.from_matrix(particles.rotation).as_rotvec()[:, None]
    records["alignments3D_multi/shift"] = (particles.shift / PIXEL)[:, None]
    with open(path, "wb") as stream:
        np.save(stream, records)


def read_cryosparc(path):
    records = np.load(path)
    rotation = Rotation.from_rotvec(records["alignments3D/pose"].astype(float)).as_matrix()
    return records["blob/idx"].astype(int), rotation, records["alignments3D/shift"] * records["alignments3D/psize_A"][:, None]


def write_relion(path, particles, class_of):
    angles = Rotation.from_matrix(particles.rotation).as_euler("ZYZ", degrees=True)
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroup #1", "_rlnImagePixelSize #2", f"1 {PIXEL}", "", ""]
    lines += ["data_particles", "", "loop_", "_rlnImageName", "_rlnOpticsGroup", "_rlnClassNumber"]
    lines += ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi", "_rlnOriginXAngst", "_rlnOriginYAngst"]
    for row, numbers in enumerate(np.column_stack([angles, particles.shift])):
        text = " ".join(f"{number:.6f}" for number in numbers)
        lines.append(f"{row + 1:06d}@images.mrcs 1 {class_of[row] + 1} {text}")
    path.write_text("\n".join(lines) + "\n")


def read_relion(path):
    table = starfile.read(path, always_dict=True)["particles"]
    rows = table["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    shift = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()
    return rows, Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), shift


SIDES = {"cryosparc": ("cs", write_cryosparc, read_cryosparc), "relion": ("star", write_relion, read_relion)}


def members(class_of, superclass):
    return np.flatnonzero(np.isin(class_of, np.flatnonzero(np.equal(STRUCTURE, superclass))))


def read_cryodrgn(folder, superclass):
    """Rows of a superclass, and their poses from a pickle of all: rotations volume to image, fractions of the box."""
    rows = pickle.loads((folder / f"ind_superclass_{superclass}.pkl").read_bytes())
    view, translation = pickle.loads((folder / "poses.pkl").read_bytes())
    return rows, view[rows].astype(float).transpose(0, 2, 1), translation[rows] * BOX * PIXEL


def correlations(job, tmp_path, side, *, update_poses, converted=False):
    """Run; correlation of the reconstruction of each superclass with its structure, [2, shells].

    With ``converted`` also from what exports to the other programs say, [3, 2, shells].
    """
    structures, maps, particles, class_of = job
    suffix, write, read = SIDES[side]
    write(tmp_path / f"particles.{suffix}", particles, class_of)
    result = rd.regroup(
        rd.open_volumes(maps, voxel_size_angstrom=PIXEL),
        tmp_path / f"particles.{suffix}",
        n_superclasses=2,
        align=True,
        update_poses=update_poses,
        output=tmp_path / "OUT",
    )
    classes = result.classes.to_pandas()
    assert classes["superclass"].to_list() == list(STRUCTURE)
    assert classes["mirrored"].to_list() == [k == MIRRORED for k in range(len(SIZES))]
    readings = [[read(tmp_path / "OUT" / side / f"particles_superclass_{k}.{suffix}") for k in range(2)]]
    if converted:
        other = "relion" if side == "cryosparc" else "cryosparc"
        suffix, _, read = SIDES[other]
        folders = [export(tmp_path / "OUT", target, tmp_path / target).folder for target in (other, "cryodrgn")]
        readings.append([read(folders[0] / f"particles_superclass_{k}.{suffix}") for k in range(2)])
        readings.append([read_cryodrgn(folders[1], k) for k in range(2)])
    found = []
    for reading in readings:
        for k, (rows, rotation, shift) in enumerate(reading):
            assert rows.tolist() == members(class_of, k).tolist()
            volume = reconstruct(Particles(particles.images[rows], rotation, shift))
            found.append(shell_correlation(volume, structures[k]))
    return np.array(found).reshape(len(readings), 2, -1) if converted else np.array(found)


@pytest.fixture(scope="module")
def unturned(job):
    """Correlations of reconstructions from as many particles that never were turned."""
    structures, _, _, class_of = job
    rng = np.random.default_rng(8)
    images = [take_images(structure, len(members(class_of, k)), rng) for k, structure in enumerate(structures)]
    return np.array([shell_correlation(reconstruct(images[k]), structures[k]) for k in range(2)])


@pytest.mark.parametrize("side", SIDES)
def test_regrouped_particles_reconstruct_as_those_that_never_were_turned(job, unturned, tmp_path, side):
    assert unturned.mean() > 0.9
    own, *others = correlations(job, tmp_path, side, update_poses=True, converted=True)
    np.testing.assert_allclose(own, unturned, atol=AGREEMENT)
    # The same poses in another program's words, with its digits: the same map.
    for other in others:
        np.testing.assert_allclose(other, own, atol=1e-4)


def test_with_kept_poses_the_map_is_visibly_worse(job, unturned, tmp_path):
    kept = correlations(job, tmp_path, "cryosparc", update_poses=False)
    assert (kept.mean(axis=1) < unturned.mean(axis=1) - 5 * AGREEMENT).all()
