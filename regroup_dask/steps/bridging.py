"""One frame for superclasses whose classes were not all compared with each other: the missing pairs are aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.sparse.csgraph import connected_components

from regroup_dask import grouping
from regroup_dask.science.rotations import Pose, invert_pose, matrix_to_quaternion
from regroup_dask.settings import Settings
from regroup_dask.steps.comparing import plan_for_maps
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import bridges


def missing_bridges(
    pairs: xr.Dataset, labels: np.ndarray, sizes: np.ndarray, *, frame: str = "superclass"
) -> list[tuple[int, int]]:
    """Pairs that have to be aligned before every superclass has one frame.

    Parameters
    ----------
    pairs
        The pairs; those never compared have a correlation that is NaN.
    labels, sizes
        Superclass and particles of each class, (N,).
    frame
        With ``"common"`` all classes need one frame.

    Returns
    -------
    list of (int, int)
        Positions of the fixed and the moving class: the largest of each part that no pair joins to the part of the
        reference.
    """
    compared = np.isfinite(pairs["correlation"].values)
    shared = np.zeros_like(labels) if frame == "common" else labels
    found = []
    for label in np.unique(shared):
        members = np.flatnonzero(shared == label)
        n_parts, part = connected_components(compared[np.ix_(members, members)], directed=False)
        if n_parts == 1:
            continue
        largest = [members[part == one][np.argmax(sizes[members[part == one]])] for one in range(n_parts)]
        reference = members[np.argmax(sizes[members])]
        found += [(int(reference), int(other)) for other in sorted(largest) if other != reference]
    return found


def join_superclasses(
    pairs: xr.Dataset,
    groups: xr.Dataset,
    classes: xr.Dataset,
    store: Path,
    settings: Settings,
    run: RunContext,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Align the pairs that are missing between parts of a superclass, and pose its classes by them.

    Parameters
    ----------
    pairs, groups
        From comparing and grouping.
    classes, store
        classes.zarr, opened, and its path.
    settings
        Parameters of the run.
    run
        The run.

    Returns
    -------
    xarray.Dataset, xarray.Dataset
        `pairs` and `groups`; the same objects where nothing was missing.
    """
    labels = groups["superclass"].values
    sizes = groups["n_particles"].values if "n_particles" in groups.coords else np.ones(len(labels), np.int64)
    missing = missing_bridges(pairs, labels, sizes, frame=settings.frame)
    if not missing:
        return pairs, groups
    plan = plan_for_maps(
        box=classes.sizes["z"],
        voxel_size_angstrom=float(classes.attrs["voxel_size_angstrom"]),
        extents_angstrom=classes["extent_angstrom"].values,
        resolutions_angstrom=classes["resolution_angstrom"].values,
        settings=settings,
    )
    ids = pairs["class_i"].values
    row_of = {int(class_id): row for row, class_id in enumerate(classes["class_id"].values)}
    units = [
        bridges.BridgeUnit(
            f"class_{ids[fixed]:05d}_{ids[moving]:05d}",
            row_of[int(ids[fixed])],
            row_of[int(ids[moving])],
            store,
            plan,
            settings.mask_inner_radius,
        )
        for fixed, moving in missing
    ]
    results = run.run("bridges", "Aligning classes that were not compared", bridges.align_bridge, units)
    joined = pairs.copy(deep=True)
    for (fixed, moving), result in zip(missing, results, strict=True):
        pose = Pose(result["rotation"], result["shift_angstrom"], bool(result["mirrored"]))
        for first, second, placed in ((fixed, moving, pose), (moving, fixed, invert_pose(pose))):
            joined["rotation_quaternion"].values[first, second] = matrix_to_quaternion(placed.rotation)
            joined["shift_angstrom"].values[first, second] = placed.shift_angstrom
            joined["mirrored"].values[first, second] = placed.mirrored
            joined["correlation"].values[first, second] = result["correlation"]
            if "confidence" in joined:
                joined["confidence"].values[first, second] = result["confidence"]
            if "hand_trust" in joined:
                # What this one pair says of the hand is all that is known of it.
                joined["hand_trust"].values[first, second] = max(float(result["correlation"]), 0.0)
    position = {int(class_id): at for at, class_id in enumerate(ids)}
    references = np.array([position[int(class_id)] for class_id in groups["reference_class"].values])
    rotation, shift, mirrored = grouping.superclass_poses(joined, labels, sizes, references, frame=settings.frame)
    posed = groups.copy()
    posed["rotation_quaternion"] = (groups["rotation_quaternion"].dims, rotation)
    posed["shift_angstrom"] = (groups["shift_angstrom"].dims, shift, {"units": "angstrom"})
    posed["mirrored"] = ("class_id", mirrored)
    return joined, posed
