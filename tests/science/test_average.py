"""Moving maps, against balls whose moved density is known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.science import average
from tests.small_job import density

VOXEL = 3.0


def balls(seed=0):
    return np.random.default_rng(seed).uniform(-14, 14, (6, 3))


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize("mirrored", [False, True])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_moved_map_is_the_density_of_the_moved_balls(box, mirrored, seed):
    rotation = Rotation.random(random_state=seed)
    shift = np.random.default_rng(seed).uniform(-5, 5, 3)
    points = balls(seed)
    moved = average.move_map(
        density(points, box, VOXEL).astype(np.float32),
        rotation=rotation.as_matrix(),
        shift_voxel=shift / VOXEL,
        mirrored=mirrored,
    )
    expected = density(rotation.apply(-points if mirrored else points) + shift, box, VOXEL)
    np.testing.assert_allclose(moved, expected, atol=0.005 * expected.max())


@pytest.mark.parametrize("box", [16, 17])
def test_the_identity_is_exact_to_rounding(box):
    volume = np.random.default_rng(1).normal(size=(box,) * 3).astype(np.float32)
    moved = average.move_map(volume, rotation=np.eye(3), shift_voxel=np.zeros(3))
    np.testing.assert_allclose(moved, volume, atol=2e-6)


@pytest.mark.parametrize("box", [16, 17])
def test_turns_by_right_angles_move_voxels_onto_voxels(box):
    volume = np.random.default_rng(2).normal(size=(box,) * 3).astype(np.float32)
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    moved = average.move_map(volume, rotation=turn, shift_voxel=np.array([0.0, 0, 0]))
    origin, here = box // 2, np.array([3, -4, 2])
    there = np.rint(turn @ here).astype(int)
    assert moved[tuple(origin + there[::-1])] == pytest.approx(volume[tuple(origin + here[::-1])], abs=1e-5)


def test_what_comes_from_outside_the_box_is_solvent():
    turn, total = Rotation.from_euler("z", 45, degrees=True).as_matrix(), np.zeros((20, 20, 20))
    coefficients = average.spline_coefficients(np.full((20, 20, 20), 7.0, np.float32))
    pose = {"rotation": turn, "shift_voxel": np.array([3.0, 0, 0]), "mirrored": False}
    average.add_moved_slab(coefficients, **pose, first_plane=0, total=total, outside=7.0)
    np.testing.assert_allclose(total, 7.0, atol=1e-5)


def test_slabs_are_pieces_of_the_whole():
    volume = density(balls(), 20, VOXEL).astype(np.float32)
    pose = {"rotation": Rotation.random(random_state=3).as_matrix(), "shift_voxel": np.array([1.3, -0.2, 2.0])}
    whole = average.move_map(volume, **pose, mirrored=True)
    coefficients = average.spline_coefficients(volume, slab=7)
    for first, last in ((0, 6), (6, 7), (7, 20)):
        total = np.zeros((last - first, 20, 20))
        average.add_moved_slab(coefficients, **pose, mirrored=True, first_plane=first, total=total)
        np.testing.assert_array_equal(total.astype(np.float32), whole[first:last])


def test_coefficients_do_not_depend_on_the_slab():
    volume = np.random.default_rng(4).normal(size=(12, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(average.spline_coefficients(volume, slab=5), average.spline_coefficients(volume))
