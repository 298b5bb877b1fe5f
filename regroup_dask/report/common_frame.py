"""One frame for the pictures of all superclasses, so that they compare; the maps on disk keep their own."""

from __future__ import annotations

import numpy as np
import xarray as xr

from regroup_dask.science.average import move_map
from regroup_dask.science.rotations import Pose, compose_pose, identity_pose, invert_pose, quaternion_to_matrix


def poses_to_first(pairs: xr.Dataset | None, groups: xr.Dataset) -> list[Pose] | None:
    """Pose that takes the frame of each superclass into that of superclass 0.

    A superclass is joined by the most alike pair of one of its classes and a class of a superclass that is joined
    already, the most alike superclass first.

    Parameters
    ----------
    pairs
        Poses of the pairs of classes, or None.
    groups
        As of `regroup_dask.group`.

    Returns
    -------
    list of Pose or None
        None when pairs were not aligned, or some superclass cannot be joined.
    """
    count = int(groups.sizes["superclass_id"])
    if pairs is None or "rotation_quaternion" not in pairs or not pairs.attrs.get("align", 1):
        return None
    grouped = groups.sel(class_id=[value for value in groups["class_id"].values if value in pairs["class_i"].values])
    class_ids, labels = grouped["class_id"].values, grouped["superclass"].values
    chosen = pairs.sel(class_i=class_ids, class_j=class_ids)
    alike = chosen["similarity" if "similarity" in chosen else "correlation"].values
    alike = np.where(np.isfinite(chosen["correlation"].values), np.nan_to_num(alike, nan=-2.0), -2.0)
    into_frame = _poses(grouped, "class_id")
    placed = {0: identity_pose()}
    while len(placed) < count:
        known = np.isin(labels, list(placed))
        candidates = np.where(known[:, None] & ~known[None, :] & (labels[None, :] >= 0), alike, -3.0)
        fixed, moving = np.unravel_index(int(np.argmax(candidates)), candidates.shape)
        if candidates[fixed, moving] <= -2:
            return None
        pair = chosen.isel(class_i=fixed, class_j=moving)
        between = Pose(
            quaternion_to_matrix(pair["rotation_quaternion"].values),
            pair["shift_angstrom"].values.astype(np.float64),
            bool(pair["mirrored"]),
        )
        # Superclass frame -> its class -> a class that is placed -> the frame of that one -> superclass 0.
        pose = compose_pose(between, invert_pose(into_frame[moving]))
        pose = compose_pose(into_frame[fixed], pose)
        placed[int(labels[moving])] = compose_pose(placed[int(labels[fixed])], pose)
    return [placed[superclass] for superclass in range(count)]


def _poses(dataset: xr.Dataset, dimension: str) -> list[Pose]:
    rotation = quaternion_to_matrix(dataset["rotation_quaternion"].values)
    shift, mirrored = dataset["shift_angstrom"].values, dataset["mirrored"].values
    return [
        Pose(rotation[index], shift[index].astype(np.float64), bool(mirrored[index])) for index in range(dataset.sizes[dimension])
    ]


def in_one_frame(maps: xr.DataArray, pairs: xr.Dataset | None, groups: xr.Dataset) -> tuple[xr.DataArray, bool]:
    """Move every superclass map into the frame of superclass 0.

    Parameters
    ----------
    maps
        (superclass, z, y, x), each in its own frame, with the attribute voxel_size_angstrom.
    pairs, groups
        See `poses_to_first`.

    Returns
    -------
    xarray.DataArray, bool
        The maps, and whether any was moved.
    """
    poses = poses_to_first(pairs, groups)
    if poses is None:
        return maps, False
    voxel_size = float(maps.attrs["voxel_size_angstrom"])
    turned, any_turned = maps.copy(deep=True), False
    for superclass, pose in enumerate(poses):
        if _rests(pose):
            continue
        turned[superclass] = move_map(
            np.ascontiguousarray(maps[superclass].values, np.float32),
            rotation=pose.rotation,
            shift_voxel=pose.shift_angstrom / voxel_size,
            mirrored=pose.mirrored,
        )
        any_turned = True
    return turned, any_turned


def _rests(pose: Pose) -> bool:
    """Whether a pose moves nothing by more than can be seen, as between superclasses that share a frame."""
    return not pose.mirrored and np.allclose(pose.rotation, np.eye(3), atol=0.02) and np.abs(pose.shift_angstrom).max() < 1
