"""Members of a superclass: what differs is found, where it is, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.report.aligned_members import align_members, member_fsc, move_classes
from regroup_dask.report.members import fsc_of_members, member_images, plot_fsc, plot_members
from tests.report.output_folder import VOXEL_SIZE_ANGSTROM, ball_map


def classes(kinds: list[int], *, noise: float = 0.08, box: int = 32) -> tuple[xr.Dataset, xr.Dataset]:
    """Maps of the kinds, each with its gain, and a grouping that puts all into one superclass."""
    count = len(kinds)
    maps = np.stack([(1 + index) * ball_map(kind, box=box, noise=noise, seed=index) for index, kind in enumerate(kinds)])
    class_maps = xr.Dataset(
        {"density": (("class_id", "z", "y", "x"), maps)},
        coords={"class_id": np.arange(count)},
        attrs={"voxel_size_angstrom": VOXEL_SIZE_ANGSTROM},
    )
    groups = xr.Dataset(
        {
            "superclass": ("class_id", np.zeros(count, int)),
            "rotation_quaternion": (("class_id", "quaternion"), np.tile([0.0, 0, 0, 1], (count, 1))),
            "shift_angstrom": (("class_id", "axis"), np.zeros((count, 3))),
            "mirrored": ("class_id", np.zeros(count, bool)),
            "reference_class": ("superclass_id", [0]),
        },
        coords={
            "class_id": np.arange(count),
            "superclass_id": [0],
            "n_particles": ("class_id", np.arange(count, 0, -1)),
        },
    )
    return class_maps, groups


def test_a_missing_ball_is_found_where_it_is() -> None:
    class_maps, groups = classes([0, 0, 0, 0, 2])
    members = align_members(move_classes(class_maps, groups), groups, 0)
    odd = members.deviation[-1]
    less, more = np.argwhere(odd < -members.limit[-1]), np.argwhere(odd > members.limit[-1])
    truth = ball_map(2, box=32) - ball_map(0, box=32)
    np.testing.assert_allclose(less.mean(axis=0), np.argwhere(truth < -0.5).mean(axis=0), atol=0.8)
    np.testing.assert_allclose(more.mean(axis=0), np.argwhere(truth > 0.5).mean(axis=0), atol=0.8)
    assert members.significant_share[-1] > 0.005


def test_gain_and_noise_are_no_difference() -> None:
    class_maps, groups = classes([1, 1, 1, 1])
    members = align_members(move_classes(class_maps, groups), groups, 0)
    assert members.significant_share.max() < 3e-4


def test_a_class_on_its_own_differs_from_nothing() -> None:
    class_maps, groups = classes([1])
    members = align_members(move_classes(class_maps, groups), groups, 0)
    assert np.isnan(members.significant_share).all()
    assert member_images(members)[1].differences is None


def test_poses_bring_members_together() -> None:
    class_maps, groups = classes([0, 0, 0], noise=0.0)
    turn = Rotation.from_euler("z", 90, degrees=True)
    groups["rotation_quaternion"][1] = turn.as_quat(canonical=True)
    groups["shift_angstrom"][1] = [4.0, -8.0, 0.0]
    # The map before the move: x_super = R x + t, so it is the moved one seen at R x + t.
    moved_back = np.roll(class_maps["density"].values[0], (2, -1), axis=(1, 2))
    class_maps["density"][1, 1:, 1:, 1:] = np.rot90(moved_back[1:, 1:, 1:], 1, axes=(1, 2))
    moved = move_classes(class_maps, groups)
    inside = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(moved.values[inside][1], moved.values[inside][0], atol=1e-3)


def test_fsc_of_equal_and_of_noisy_members() -> None:
    class_maps, groups = classes([0, 0, 0])
    members = align_members(move_classes(class_maps, groups), groups, 0)
    fsc = member_fsc(members)
    assert fsc.shape == (3, 3, 17)
    np.testing.assert_allclose(fsc, fsc.transpose(1, 0, 2))
    assert (fsc[0, 1, :4] > 0.97).all()
    assert fsc[0, 1, -1] < 0.6
    frequency, same = fsc_of_members(None, members)
    np.testing.assert_allclose(same, fsc)
    assert frequency[-1] == pytest.approx(1 / (2 * VOXEL_SIZE_ANGSTROM))
    assert plot_fsc(frequency, fsc).axes[0].get_ylabel() == "FSC"


def test_pictures_are_of_one_size_and_range() -> None:
    class_maps, groups = classes([0, 0, 2])
    images = member_images(align_members(move_classes(class_maps, groups), groups, 0))
    assert len(images) == 4
    assert len({image.slices.shape for image in images}) == 1
    rows, columns = images[0].slices.shape
    assert columns == 3 * rows
    assert all(image.projections.min() >= 0 and image.projections.max() <= 1 for image in images)
    assert images[0].differences is None
    assert images[3].differences is not None
    assert np.ptp(images[3].differences, axis=2).max() > 0.3
    assert len(plot_members(class_maps, groups, 0).axes) == 12
