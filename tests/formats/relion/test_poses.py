import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError
from regroup_dask.formats.relion.poses import (
    find_pixel_size,
    find_pose_columns,
    poses_of_rows,
)
from regroup_dask.formats.rotations import angles_of_matrices, matrices_of_angles

angles = st.lists(
    st.tuples(
        st.floats(-360, 360),
        st.one_of(st.floats(-180, 180), st.sampled_from([0.0, 180.0, -180.0, 1e-9, 1e-5, 180 - 1e-8])),
        st.floats(-360, 360),
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(angles=angles)
def test_angles_to_rotations_and_back(angles):
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    rotation = matrices_of_angles(np.array(angles))
    np.testing.assert_allclose(rotation, expected, atol=1e-12)
    back = angles_of_matrices(rotation)
    assert (np.abs(back[:, [0, 2]]) <= 180).all()
    assert ((back[:, 1] >= 0) & (back[:, 1] <= 180)).all()
    np.testing.assert_allclose(matrices_of_angles(back), expected, atol=3e-7)


def test_relion_matrix_of_known_angles():
    # Euler_angles2matrix of RELION, worked out by hand: rot turns x to y first, then tilt, then psi.
    a = matrices_of_angles(np.array([[90.0, 0, 0], [0, 90.0, 0]])).transpose(0, 2, 1)
    np.testing.assert_allclose(a[0] @ [1, 0, 0], [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(a[1] @ [1, 0, 0], [0, 0, 1], atol=1e-12)


def test_pixel_size_of_optics_groups():
    optics = [
        {"rlnOpticsGroup": "1", "rlnImagePixelSize": "1.5"},
        {"rlnOpticsGroup": "3", "rlnImagePixelSize": "2"},
    ]
    found = find_pixel_size("a.star", ["rlnOpticsGroup"], [0], optics)
    assert found.single() is None
    np.testing.assert_array_equal(found.of_rows(pa.table({"rlnOpticsGroup": [3, 1, 2]})), [2, 1.5, np.nan])
    with pytest.raises(InputError, match=r"a.star: the number or pixel size of an optics group"):
        find_pixel_size(
            "a.star", ["rlnOpticsGroup"], [0], [{"rlnOpticsGroup": "x", "rlnImagePixelSize": "2"}]
        )


def test_files_with_fewer_pose_columns():
    assert find_pose_columns("a.star", ["rlnAngleRot", "rlnAngleTilt"], [1, 1]) is None
    names = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    poses = find_pose_columns("a.star", names, [1, 1, 0])
    rotation, shift = poses_of_rows(poses, pa.table({name: [0.0] for name in names}), None)
    np.testing.assert_array_equal(rotation, [np.eye(3)])
    np.testing.assert_array_equal(shift, [[0, 0]])
