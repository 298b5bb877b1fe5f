"""From images to maps: regrouped particles of rotated classes reconstruct as particles that were never rotated.

Images are made from each class map at the pose a classification would give, as Fourier slices of sums of Gaussians,
which are exact; the output of the regrouping is reconstructed by direct Fourier inversion and compared with the truth.
"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.formats.particles import open_particles
from tests.formats.cryosparc.making import make_particles, save
from tests.formats.cryosparc.test_outputs import load, make_plan, regroup

BOX, PIXEL, WIDTH = 24, 4.0, 5.0  # voxels, angstrom, angstrom
LABELS = [0, 0, 1, 0]  # superclasses of the four classes; class 0 is the frame of superclass 0
MIRRORED = (3,)
N_PARTICLES = 500
NOISE = 0.6


def transform(points, wave_vectors):
    """Fourier transform of a sum of Gaussians at wave vectors [..., 3] in 1/angstrom."""
    envelope = np.exp(-2 * np.pi**2 * WIDTH**2 * (wave_vectors**2).sum(axis=-1))
    return envelope * np.exp(-2j * np.pi * wave_vectors @ points.T).sum(axis=-1)


FREQUENCY = np.fft.fftshift(np.fft.fftfreq(BOX, PIXEL))
PLANE = np.stack([*np.meshgrid(FREQUENCY, FREQUENCY, indexing="xy"), np.zeros((BOX, BOX))], axis=-1)
PLANE = PLANE[np.hypot(PLANE[..., 0], PLANE[..., 1]) < FREQUENCY.max()]


def image(points, rotation, shift, rng):
    """Coefficients of the noisy image of a map: a point x appears at (P^T x)_xy - shift."""
    clean = transform(points, PLANE @ rotation.T) * np.exp(2j * np.pi * PLANE[:, :2] @ shift)
    return clean + NOISE * (rng.normal(size=len(PLANE)) + 1j * rng.normal(size=len(PLANE)))


def reconstruct(images, rotations, shifts):
    """Put the centred images as slices into a grid, with trilinear weights."""
    total, weight = np.zeros((BOX + 2) ** 3, complex), np.zeros((BOX + 2) ** 3)
    for coefficients, rotation, shift in zip(images, rotations, shifts, strict=True):
        centred = coefficients * np.exp(-2j * np.pi * PLANE[:, :2] @ shift)
        place = PLANE @ rotation.T * BOX * PIXEL + BOX // 2
        low = np.floor(place).astype(int)
        for corner in np.ndindex(2, 2, 2):
            share = np.prod(np.abs(1 - np.array(corner) - (place - low)), axis=1)
            index = np.ravel_multi_index((low + corner).T, (BOX + 2,) * 3)
            total += np.bincount(index, share * centred.real, len(total))
            total += 1j * np.bincount(index, share * centred.imag, len(total))
            weight += np.bincount(index, share, len(weight))
    volume = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.1)
    return volume.reshape((BOX + 2,) * 3)[:BOX, :BOX, :BOX]


def shell_correlation(volume, truth):
    """Mean Fourier shell correlation from shell 2 to half of Nyquist."""
    axis = np.arange(BOX) - BOX // 2
    shell = np.rint(np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij")))).astype(int)
    values = []
    for s in range(2, BOX // 4 + 1):
        a, b = volume[shell == s], truth[shell == s]
        values.append((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()))
    return float(np.mean(values))


@pytest.mark.parametrize("generation", ["multi", "class"])
def test_regrouped_particles_reconstruct_as_unrotated_ones(tmp_path, generation):
    rng = np.random.default_rng(17)
    truth = rng.uniform(-18, 18, (9, 3))
    structures = [truth, rng.uniform(-18, 18, (9, 3))]
    plan = make_plan(LABELS, rng, mirrored=MIRRORED)
    maps = []
    for class_id, superclass in enumerate(LABELS):
        pose = plan.pose_of_class[class_id]
        # The inverse of the class's way into its superclass frame.
        points = (structures[superclass] - pose.shift_angstrom) @ pose.rotation
        maps.append(-points if pose.mirrored else points)
    records, _ = make_particles(N_PARTICLES, 4, generation, rng)
    class_of = rng.integers(0, 4, N_PARTICLES)
    rotations = Rotation.random(N_PARTICLES, rng=rng)
    shifts = rng.uniform(-6, 6, (N_PARTICLES, 2))
    images = {}
    for record, class_id, rotation, shift in zip(records, class_of, rotations, shifts, strict=True):
        for k in range(4):
            fields = {"pose": rotation.as_rotvec(), "shift": shift / 1.5, "class_posterior": k == class_id}
            for field, value in fields.items():
                if generation == "multi":
                    record[f"alignments3D_multi/{field}"][k] = value
                else:
                    record[f"alignments_class_{k}/{field}"] = value
        images[int(record["uid"])] = image(maps[class_id], rotation.as_matrix(), shift, rng)
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=300)
    regroup(source, plan, tmp_path / "moved")
    regroup(source, make_plan(LABELS, np.random.default_rng(17), update=False), tmp_path / "kept")

    axis = np.stack(np.meshgrid(FREQUENCY, FREQUENCY, FREQUENCY, indexing="ij"), axis=-1)
    expected = transform(truth, axis)
    found = {}
    for name in ("moved", "kept"):
        part = load(tmp_path / name, "particles_superclass_0")
        assert len(part) == np.isin(class_of, [0, 1, 3]).sum()
        turned = Rotation.from_rotvec(part["alignments3D/pose"].astype(float)).as_matrix()
        moved_by = part["alignments3D/shift"].astype(float) * part["alignments3D/psize_A"][:, None]
        found[name] = shell_correlation(
            reconstruct([images[int(uid)] for uid in part["uid"]], turned, moved_by), expected
        )
    never_rotated = [image(truth, r.as_matrix(), s, rng) for r, s in zip(rotations, shifts, strict=True)]
    n = len(part)
    best = shell_correlation(reconstruct(never_rotated[:n], rotations.as_matrix()[:n], shifts[:n]), expected)
    assert best > 0.9
    assert found["moved"] == pytest.approx(best, abs=0.02)
    assert found["kept"] < best - 0.2
