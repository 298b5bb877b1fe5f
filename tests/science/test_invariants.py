"""Rotation invariants against what they must not see, and the pairs they choose."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.science import align
from regroup_dask.science.invariants import nearest_pairs, rotation_invariants

BOX, VOXEL = 32, 4.0


def blobs(centres: np.ndarray, rotation: Rotation, shift: np.ndarray) -> np.ndarray:
    """Exact Gaussians of sigma 2.2 voxels, so that a turned map needs no interpolation."""
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((BOX,) * 3)
    for weight, (cx, cy, cz) in zip(np.linspace(1, 2, len(centres)), rotation.apply(centres) + shift, strict=True):
        volume += weight * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 2.2**2))
    return volume.astype(np.float32)


@pytest.fixture(scope="module")
def plan():
    return align.plan_alignment(
        box=BOX, voxel_size_angstrom=VOXEL, maximum_shift_angstrom=20.0, hand="off", particle_radius_angstrom=45.0
    )


def invariants_of(plan, structure: int, pose: int) -> np.ndarray:
    centres = np.random.default_rng(structure).normal(size=(7, 3)) * 4.0
    centres -= centres.mean(axis=0)
    rng = np.random.default_rng([structure, pose])
    volume = blobs(centres, Rotation.random(random_state=rng), rng.uniform(-1, 1, 3))
    return rotation_invariants(align.prepare_map(volume, plan).amplitudes)


def test_a_turned_and_shifted_map_looks_the_same(plan):
    first, second, other = invariants_of(plan, 1, 0), invariants_of(plan, 1, 1), invariants_of(plan, 2, 0)
    same = np.abs(first - second)[:, :6].max()
    different = np.abs(first - other)[:, :6].max()
    assert same < 0.1 * different


def test_the_nearest_pairs_are_those_of_one_structure(plan):
    structures = [0, 1, 2, 3] * 3
    values = np.array([invariants_of(plan, structure, pose) for pose, structure in enumerate(structures)])
    pairs = nearest_pairs(values, np.ones((12, values.shape[2])), 2)
    wanted = {(i, j) for i in range(12) for j in range(i + 1, 12) if structures[i] == structures[j]}
    assert wanted <= set(pairs)
    assert all(i < j for i, j in pairs)
    assert pairs == sorted(set(pairs))


@pytest.mark.parametrize("n_nearest", [1, 5, 50])
def test_every_map_is_in_a_pair(n_nearest):
    values = np.random.default_rng(0).normal(size=(9, 4, 3))
    pairs = nearest_pairs(values, np.ones((9, 3)), n_nearest)
    assert {index for pair in pairs for index in pair} == set(range(9))
    assert len(pairs) <= 36
