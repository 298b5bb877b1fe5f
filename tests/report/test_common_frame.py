"""Superclasses are turned onto the first by the poses of their pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.report.common_frame import in_one_frame, poses_to_first
from regroup_dask.report.output_contents import OutputContents, read_output
from regroup_dask.science.rotations import Pose, compose_pose, invert_pose
from tests.report.output_folder import write_output


def turned_pairs(contents: OutputContents, truth: list[Pose]) -> xr.Dataset:
    """Pairs as classes that lie turned by `truth` from one common frame would have."""
    assert contents.pairs is not None
    pairs = contents.pairs.copy(deep=True)
    for first, fixed in enumerate(truth):
        for second, moving in enumerate(truth):
            pose = compose_pose(fixed, invert_pose(moving))
            pairs["rotation_quaternion"][first, second] = Rotation.from_matrix(pose.rotation).as_quat(canonical=True)
            pairs["shift_angstrom"][first, second] = pose.shift_angstrom
            pairs["mirrored"][first, second] = pose.mirrored
    return pairs


def test_poses_lead_to_the_frame_of_the_first(tmp_path: Path) -> None:
    contents = read_output(write_output(tmp_path / "OUT", labels=(0, 1, 2, 0, 1, 2)))
    rng = np.random.default_rng(3)
    truth = [Pose(Rotation.random(rng=rng).as_matrix(), rng.uniform(-9, 9, 3), bool(index in (1, 2))) for index in range(6)]
    pairs = turned_pairs(contents, truth)
    # Not every pair was compared: superclass 2 is only reached over superclass 1.
    for first, second in ((0, 2), (0, 5), (3, 2), (3, 5), (1, 2), (4, 5)):
        pairs["correlation"][first, second] = pairs["correlation"][second, first] = np.nan
    groups = contents.groups.copy(deep=True)
    for index, reference in ((3, 0), (4, 1), (5, 2)):
        pose = compose_pose(truth[reference], invert_pose(truth[index]))
        groups["rotation_quaternion"][index] = Rotation.from_matrix(pose.rotation).as_quat(canonical=True)
        groups["shift_angstrom"][index], groups["mirrored"][index] = pose.shift_angstrom, pose.mirrored
    poses = poses_to_first(pairs, groups)
    assert poses is not None
    for superclass, pose in enumerate(poses):
        expected = compose_pose(truth[0], invert_pose(truth[superclass]))
        np.testing.assert_allclose(pose.rotation, expected.rotation, atol=1e-9)
        np.testing.assert_allclose(pose.shift_angstrom, expected.shift_angstrom, atol=1e-8)
        assert pose.mirrored == expected.mirrored


def test_superclasses_out_of_reach_stay(tmp_path: Path) -> None:
    contents = read_output(write_output(tmp_path / "OUT", labels=(0, 1, 0, 1)))
    assert contents.pairs is not None
    pairs = contents.pairs.copy(deep=True)
    pairs["correlation"].values[[0, 0, 2, 2, 1, 3, 1, 3], [1, 3, 1, 3, 0, 0, 2, 2]] = np.nan
    assert poses_to_first(pairs, contents.groups) is None


def test_maps_are_moved(tmp_path: Path) -> None:
    contents = read_output(write_output(tmp_path / "OUT", labels=(0, 1, 0, 1)))
    assert contents.volumes is not None
    half_turn = Pose(np.diag([-1.0, -1.0, 1.0]), np.zeros(3), False)
    rest = Pose(np.eye(3), np.zeros(3), False)
    pairs = turned_pairs(contents, [rest, half_turn, rest, half_turn])
    maps = contents.volumes["density"].assign_attrs(voxel_size_angstrom=4.0).load()
    turned, any_turned = in_one_frame(maps, pairs, contents.groups)
    assert any_turned
    np.testing.assert_array_equal(turned[0], maps[0])
    np.testing.assert_allclose(turned.values[1][:, 1:, 1:], maps.values[1][:, :0:-1, :0:-1], atol=1e-4)
    assert in_one_frame(maps, contents.pairs, contents.groups)[1] is False
    assert in_one_frame(maps, None, contents.groups)[1] is False
