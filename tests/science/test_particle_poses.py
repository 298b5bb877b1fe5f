"""Poses follow their class map: the moved map at the new pose projects as the map at the old one.

The maps are sums of Gaussians, whose projections are known exactly; and once voxel maps, moved and projected
by interpolation.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from regroup_dask.science.particle_poses import move_poses

WIDTH = 6.0  # angstrom, of every Gaussian


def make_map(rng, n=12):
    return rng.uniform(-40, 40, (n, 3)), rng.uniform(0.3, 1.0, n)


def move_map(centres, rotation, shift, mirrored):
    """y = R x + t, after x -> -x if mirrored."""
    return (-centres if mirrored else centres) @ rotation.T + shift


def relion_matrix(rot, tilt, psi):
    """RELION's Euler_angles2matrix: volume to image (written out from its documented convention)."""
    (ca, cb, cg), (sa, sb, sg) = np.cos([rot, tilt, psi]), np.sin([rot, tilt, psi])
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def project(centres, weights, view, shift, box=64, pixel=2.0):
    """Image [y, x] of the map seen by ``view`` (volume to image); the image moves by +shift to centre it."""
    position = (centres @ view.T)[:, :2] - shift[:2]
    grid = (np.arange(box) - box // 2) * pixel
    gauss_x = np.exp(-((grid[None, :] - position[:, :1]) ** 2) / (2 * WIDTH**2))
    gauss_y = np.exp(-((grid[None, :] - position[:, 1:]) ** 2) / (2 * WIDTH**2))
    return np.einsum("n,ny,nx->yx", weights, gauss_y, gauss_x)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("convention", ["cryosparc", "relion"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_projections_do_not_change(convention, mirrored, seed):
    rng = np.random.default_rng(seed)
    centres, weights = make_map(rng)
    class_rotation = Rotation.random(rng=rng).as_matrix()
    class_shift = rng.uniform(-15, 15, 3)
    shift = rng.uniform(-10, 10, 2)
    if convention == "cryosparc":
        pose = Rotation.random(rng=rng).as_rotvec()
        view = Rotation.from_rotvec(pose).as_matrix().T
    else:
        angles = rng.uniform([-np.pi, 0, -np.pi], np.pi, 3)
        view = relion_matrix(*angles)
        np.testing.assert_allclose(view.T, Rotation.from_euler("ZYZ", angles).as_matrix(), atol=1e-12)
    moved = move_poses(
        view.T[None], shift[None], class_rotation[None], class_shift[None], np.array([mirrored])
    )
    new_rotation, new_shift = moved.rotation[0], moved.shift_angstrom[0]
    assert np.linalg.det(new_rotation) == pytest.approx(1)
    if convention == "relion":
        new_view = relion_matrix(*Rotation.from_matrix(new_rotation).as_euler("ZYZ"))
    else:
        new_view = Rotation.from_rotvec(Rotation.from_matrix(new_rotation).as_rotvec()).as_matrix().T
    old = project(centres, weights, view, shift)
    new = project(move_map(centres, class_rotation, class_shift, mirrored), weights, new_view, new_shift)
    np.testing.assert_allclose(new, old, atol=1e-9)
    stale = project(move_map(centres, class_rotation, class_shift, mirrored), weights, view, shift)
    assert correlation(stale, old) < 0.95


@pytest.mark.parametrize("mirrored", [False, True])
def test_subtomograms_follow_with_their_z(mirrored):
    rng = np.random.default_rng(5)
    centres, _ = make_map(rng)
    particle = Rotation.random(20, rng=rng).as_matrix()
    shift = rng.uniform(-10, 10, (20, 3))
    class_rotation, class_shift = Rotation.random(rng=rng).as_matrix(), rng.uniform(-10, 10, 3)
    moved = move_poses(particle, shift, class_rotation, class_shift, mirrored)
    for i in range(20):
        seen = centres @ particle[i] - shift[i]
        after = (
            move_map(centres, class_rotation, class_shift, mirrored) @ moved.rotation[i]
            - moved.shift_angstrom[i]
        )
        np.testing.assert_allclose(after, seen * (1, 1, -1 if mirrored else 1), atol=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_voxel_maps_moved_by_interpolation(mirrored):
    box, pixel = 49, 4.0
    rng = np.random.default_rng(6)
    centres, weights = make_map(rng)
    centres *= 0.7
    axis = (np.arange(box) - box // 2) * pixel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = sum(
        w * np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * (2 * WIDTH) ** 2))
        for c, w in zip(centres, weights, strict=True)
    )

    def moved(values, rotation, shift_angstrom):
        """V'(y) = V(R^T (y - t)) on arrays [z, y, x]."""
        matrix = rotation.T[::-1, ::-1]
        origin = np.full(3, box // 2)
        offset = origin - matrix @ (origin + shift_angstrom[::-1] / pixel)
        return ndimage.affine_transform(values, matrix, offset, order=3)

    class_rotation, class_shift = Rotation.random(rng=rng).as_matrix(), np.array([9.0, -6.0, 4.0])
    particle, shift = Rotation.random(rng=rng).as_matrix(), np.array([5.0, -7.0])
    # The origin voxel is in the middle of the odd box: reversing all axes inverts through the origin.
    new_map = moved(volume[::-1, ::-1, ::-1] if mirrored else volume, class_rotation, class_shift)
    new = move_poses(particle[None], shift[None], class_rotation, class_shift, mirrored)

    def image(values, rotation, shift_angstrom):
        return moved(values, rotation.T, np.array([-shift_angstrom[0], -shift_angstrom[1], 0.0])).sum(axis=0)

    old_image = image(volume, particle, shift)
    assert correlation(image(new_map, new.rotation[0], new.shift_angstrom[0]), old_image) > 0.999
    assert correlation(image(new_map, particle, shift), old_image) < 0.95


def test_a_class_that_stays_leaves_poses_alone():
    rng = np.random.default_rng(7)
    particle, shift = Rotation.random(5, rng=rng).as_matrix(), rng.normal(size=(5, 2))
    moved = move_poses(particle, shift, np.eye(3), np.zeros(3))
    np.testing.assert_array_equal(moved.rotation, particle)
    np.testing.assert_array_equal(moved.shift_angstrom, shift)


@pytest.mark.parametrize("shapes", [((3, 3), (2,)), ((4, 3, 3), (4, 4)), ((4, 3, 3), (3, 2))])
def test_shapes_are_checked(shapes):
    with pytest.raises(ValueError, match="must be"):
        move_poses(np.zeros(shapes[0]), np.zeros(shapes[1]), np.eye(3), np.zeros(3))
