"""What is taken off maps for errors of their poses: blobs whose moved density is known in closed form."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.science.local_covariance import local_covariance
from regroup_dask.science.local_poses import tangent_fields, without_pose_errors
from regroup_dask.science.local_search import evidence_of_numbers, fewest_groups
from regroup_dask.science.masks import squared_radius

BOX, WIDTH = 20, 1.6
REGION = (squared_radius(BOX) < 8.5**2).astype(np.float32)
SHELLS = BOX // 2 + 1


def blobs(points, weights=None):
    """Gaussians at points (x, y, z), in voxels from the middle."""
    away = np.arange(BOX) - BOX // 2
    near = np.exp(-0.5 * ((away - points[:, :, None]) / WIDTH) ** 2)
    weights = np.ones(len(points)) if weights is None else weights
    return np.einsum("p,pz,py,px->zyx", weights, near[:, 2], near[:, 1], near[:, 0])


def power(volume):
    k = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None] ** 2)).astype(int).ravel()
    total = np.bincount(shell, (np.abs(np.fft.fftn(volume)) ** 2).ravel())
    return (total / np.bincount(shell))[:SHELLS]


def moved_maps(seed, n_maps, *, voxels, degrees, noise, missing=()):
    """Maps of a few blobs with such errors of their poses, and what is asked for beside them."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 5, (14, 3))
    volumes = []
    for number in range(n_maps):
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * rng.normal(size=3))
        present = np.ones(len(points))
        present[: 4 if number in missing else 0] = 0
        volumes.append(blobs(turn.apply(points) + voxels * rng.normal(size=3), present) + noise * rng.normal(size=(BOX,) * 3))
    signal = np.tile(power(blobs(points)), (n_maps, 1))
    usable = np.tile(np.arange(SHELLS) < 7, (n_maps, 1))
    usable[:, 0] = False
    measured = {"signal_power": signal, "noise_power": np.full(signal.shape, noise**2 * BOX**3), "usable": usable}
    return np.array(volumes, np.float32), measured


def test_tangents_are_the_slopes_of_a_moved_density():
    points = np.random.default_rng(0).uniform(-4, 4, (6, 3))
    found = np.fft.irfftn(tangent_fields(np.fft.rfftn(blobs(points)), np.ones((BOX,) * 3)), (BOX,) * 3, axes=(1, 2, 3))
    for number, axis in enumerate(np.eye(3)[::-1]):  # z, y, x
        step = 1e-4
        slope = (blobs(points - step * axis) - blobs(points + step * axis)) / (2 * step)  # along the axis: moved back
        np.testing.assert_allclose(found[number], slope, atol=2e-3)
        turn = Rotation.from_rotvec(step * axis)
        slope = (blobs(turn.apply(points)) - blobs(turn.inv().apply(points))) / (2 * step)
        np.testing.assert_allclose(found[3 + number], slope, atol=0.01)


@pytest.mark.parametrize("seed", [1, 2])
def test_maps_that_differ_by_their_poses_become_alike(seed):
    volumes, measured = moved_maps(seed, 8, voxels=0.15, degrees=0.7, noise=1e-3)
    after = without_pose_errors(volumes, **measured, region=np.ones_like(REGION))
    assert after.var(axis=0).sum() < 0.05 * volumes.var(axis=0).sum()


def test_a_missing_part_stays_missing():
    volumes, measured = moved_maps(3, 8, voxels=0.0, degrees=0.0, noise=1e-3, missing=range(4))
    after = without_pose_errors(volumes, **measured, region=REGION)
    before = np.square(volumes[0] - volumes[7]).sum()
    assert np.square(after[0] - after[7]).sum() > 0.9 * before


@pytest.mark.parametrize(("missing", "expected"), [((), 1), (range(5), 2)])
def test_poses_that_err_are_no_structures(missing, expected):
    counts = []
    for seed in range(3):
        volumes, measured = moved_maps(seed, 12, voxels=0.15, degrees=0.7, noise=0.02, missing=missing)
        known = {**measured, "noise_error": np.full(12, 0.05)}
        local = local_covariance(volumes, **known, region=REGION, spacing_voxels=3.0)
        counts.append(fewest_groups(evidence_of_numbers(local, 11)))
    assert counts == [expected] * 3
