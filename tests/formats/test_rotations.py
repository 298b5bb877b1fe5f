import numpy as np
from scipy.spatial.transform import Rotation

from regroup_dask.formats import rotations

MANY = np.concatenate(
    [
        Rotation.random(500, rng=np.random.default_rng(0)).as_rotvec(),
        np.pi * np.eye(3),
        -np.pi * np.eye(3),
        np.array([[np.pi - 1e-9, 0, 0], [2.2, 2.2, 0.1], [0, 0, 0], [1e-9, 0, 0], [1e-4, 2e-4, 0], [0, 1e-3, 1e-3]]),
    ]
)
TURNED = Rotation.from_rotvec(MANY)


def test_rotation_vectors():
    matrices = rotations.matrices_of_vectors(MANY)
    np.testing.assert_allclose(matrices, TURNED.as_matrix(), atol=1e-14)
    back = rotations.vectors_of_matrices(TURNED.as_matrix())
    assert (np.linalg.norm(back, axis=1) <= np.pi + 1e-12).all()
    assert (TURNED * Rotation.from_rotvec(back).inv()).magnitude().max() < 1e-8
    assert np.isnan(rotations.matrices_of_vectors(np.full((1, 3), np.nan))).any()


def test_quaternions():
    found = rotations.quaternions_of_matrices(TURNED.as_matrix())
    assert (found[:, 3] >= 0).all()
    np.testing.assert_allclose(np.abs((found * TURNED.as_quat()).sum(axis=1)), 1, atol=1e-14)
    far = found[:, 3] > 1e-6
    np.testing.assert_allclose(found[far], TURNED.as_quat(canonical=True)[far], atol=1e-14)
    np.testing.assert_array_equal(
        rotations.quaternions_of_matrices(Rotation.from_quat(np.eye(4)).as_matrix()), np.eye(4)
    )
    np.testing.assert_allclose(rotations.matrices_of_quaternions(-3 * found), TURNED.as_matrix(), atol=1e-14)
    assert np.isnan(rotations.matrices_of_quaternions(np.zeros((1, 4)))).all()


def test_angles():
    angles = np.random.default_rng(1).uniform([-180, 0, -180], [180, 180, 180], (300, 3))
    angles[:4, 1] = [0, 180, 1e-9, 180 - 1e-9]
    turned = Rotation.from_euler("ZYZ", angles, degrees=True)
    np.testing.assert_allclose(rotations.matrices_of_angles(angles), turned.as_matrix(), atol=1e-13)
    back = rotations.angles_of_matrices(turned.as_matrix())
    again = Rotation.from_euler("ZYZ", back, degrees=True)
    assert (turned * again.inv()).magnitude().max() < 1e-7
    assert (back[:4, 0] == 0).all()
    np.testing.assert_allclose(back[4:], angles[4:], atol=1e-8)
