"""Polish poses: each class is aligned once more, to the average of the others of its superclass."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import xarray as xr

from regroup_dask.science.rotations import Pose, compose_pose, invert_pose, matrix_to_quaternion
from regroup_dask.settings import Settings
from regroup_dask.steps.averaging import class_pose
from regroup_dask.steps.preparing import plan_for_maps
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import polish

MEMBERS_PER_UNIT = 16
# Members that an average is made of: a task holds them all.
MOST_IN_AVERAGE = 48
TOLERATED_LOSS = 1e-3


def polish_poses(
    groups: xr.Dataset, classes: xr.Dataset, store: Path, settings: Settings, run: RunContext
) -> xr.Dataset:
    """Refine the pose of each class against the average of the other classes of its superclass.

    The average has less noise than any one class, so a pose against it is surer than those of pairs. A class is left
    out of the average that it is compared with, so that its own noise does not hold it where it is. The reference
    class of each superclass keeps its pose exactly.

    Parameters
    ----------
    groups
        From grouping.
    classes
        classes.zarr, opened.
    store
        Its path.
    settings
        Parameters of the run.
    run
        The run.

    Returns
    -------
    xarray.Dataset
        `groups` with the polished poses.
    """
    plan = plan_for_maps(
        box=classes.sizes["z"],
        voxel_size_angstrom=float(classes.attrs["voxel_size_angstrom"]),
        extents_angstrom=classes["extent_angstrom"].values,
        resolutions_angstrom=classes["resolution_angstrom"].values,
        settings=settings,
    )
    row_of = {int(class_id): row for row, class_id in enumerate(classes["class_id"].values)}
    weights = np.maximum(classes["information"].values, 1e-3 * classes["information"].values.max())
    ids, labels = groups["class_id"].values, groups["superclass"].values
    weights_of = weights[[row_of[int(class_id)] for class_id in ids]]
    poses = [class_pose(groups, position) for position in range(len(ids))]
    families = [
        np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1) if (labels == label).sum() > 1
    ]
    units, homes = [], []
    for members in families:
        for start in range(0, len(members), MEMBERS_PER_UNIT):
            chosen = members[start : start + MEMBERS_PER_UNIT]
            averaged = _best_of(members, weights_of)
            present = np.union1d(averaged, chosen)
            counts = np.isin(present, averaged)
            units.append(
                polish.PolishUnit(
                    f"superclass_{labels[members[0]]:04d}_{start:06d}",
                    tuple(row_of[int(ids[member])] for member in present),
                    tuple(poses[member] for member in present),
                    tuple(float(weight) for weight in np.where(counts, weights_of[present], 0.0)),
                    tuple(int(at) for at in np.searchsorted(present, chosen)),
                    store,
                    plan,
                    settings.mask_inner_radius,
                )
            )
            homes.append(chosen.tolist())
    refined = list(poses)
    results = run.run("polish", "Polishing poses", polish.polish_members, units, same=_what_counts)
    for home, result in zip(homes, results, strict=True):
        for row, member in enumerate(home):
            # A refinement weighs shells by their noise, so the plain correlation may fall a little; if it falls more
            # than that, the refinement has gone astray.
            if result["after"][row] > result["before"][row] - TOLERATED_LOSS:
                refined[member] = Pose(result["rotation"][row], result["shift_angstrom"][row], poses[member].mirrored)
    poses = _anchor(poses, refined, families, ids, groups["reference_class"].values, labels)
    return _with_poses(groups, poses)


def _best_of(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The classes of most signal among the members of a superclass: more of them would not make a better average."""
    if len(members) <= MOST_IN_AVERAGE:
        return members
    return np.sort(members[np.argsort(-weights[members], kind="stable")[:MOST_IN_AVERAGE]])


def _what_counts(unit: polish.PolishUnit) -> bytes:
    """All that the poses of a superclass depend on: not its number, nor the folder that the same maps are copied to."""
    return pickle.dumps(unit._replace(name="", store=Path()))


def _anchor(
    poses: list[Pose],
    refined: list[Pose],
    families: list[np.ndarray],
    ids: np.ndarray,
    references: np.ndarray,
    labels: np.ndarray,
) -> list[Pose]:
    """Move each superclass as a whole so that its reference class is where it was."""
    anchored = list(poses)
    for members in families:
        reference = int(np.flatnonzero(ids == references[labels[members[0]]])[0])
        back = compose_pose(poses[reference], invert_pose(refined[reference]))
        for member in members:
            anchored[member] = compose_pose(back, refined[member])
        anchored[reference] = poses[reference]
    return anchored


def _with_poses(groups: xr.Dataset, poses: list[Pose]) -> xr.Dataset:
    polished = groups.copy()
    quaternion = groups["rotation_quaternion"].values.copy()
    shift = groups["shift_angstrom"].values.copy()
    for position, pose in enumerate(poses):
        still = np.array_equal(pose.rotation, np.eye(3)) and not pose.shift_angstrom.any()
        quaternion[position] = [0, 0, 0, 1] if still else matrix_to_quaternion(pose.rotation)
        shift[position] = pose.shift_angstrom
    polished["rotation_quaternion"] = (groups["rotation_quaternion"].dims, quaternion)
    polished["shift_angstrom"] = (groups["shift_angstrom"].dims, shift, {"units": "angstrom"})
    return polished
