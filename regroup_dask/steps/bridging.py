"""One frame for superclasses whose classes were not all compared with each other: the missing pairs are aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import xarray as xr
from scipy.sparse.csgraph import connected_components

from regroup_dask import superclass_frames
from regroup_dask.science import sparse_frames
from regroup_dask.science.frames import INCONSISTENT_DEGREES
from regroup_dask.science.rotations import Pose, invert_pose, matrix_to_quaternion, quaternion_to_matrix
from regroup_dask.settings import Settings
from regroup_dask.steps.comparing import plan_for_maps
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import bridges

# Pairs that join a part to that of the reference: one may be wrong, and then the others outvote it.
WITNESSES = 3


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
        Positions of the fixed and the moving class: where pairs are missing, some between the largest classes of the
        reference's part and the largest of each other part. A part is held together by pairs that third classes confirm:
        a single pair may be wrong, and would carry all that hangs on it along.
    """
    compared = np.isfinite(pairs["correlation"].values)
    shared = np.zeros_like(labels) if frame == "common" else labels
    found: list[tuple[int, int]] = []
    for label in np.unique(shared):
        members = np.flatnonzero(shared == label)
        members = members[np.argsort(-sizes[members], kind="stable")]
        known = compared[np.ix_(members, members)]
        np.fill_diagonal(known, True)
        if known.all():
            continue
        _, part = connected_components(_confirmed(pairs, members, known), directed=False)
        found += [(int(members[fixed]), int(members[moving])) for fixed, moving in _between_parts(part, known)]
    return found


def _confirmed(pairs: xr.Dataset, members: np.ndarray, known: np.ndarray) -> sp.csr_matrix:
    """Which of the known pairs of some classes close cycles with third ones."""
    listed = np.argwhere(np.triu(known, 1))
    i, j = members[listed].T
    cycles = sparse_frames.cycle_residual_degrees(
        listed,
        quaternion_to_matrix(pairs["rotation_quaternion"].values[i, j]),
        pairs["mirrored"].values[i, j],
        superclass_frames.weights_of_correlations(np.asarray(pairs["correlation"].values[i, j], np.float64)),
        n_maps=len(members),
    )
    closed = listed[np.nan_to_num(cycles, nan=180.0) <= INCONSISTENT_DEGREES]
    return sp.csr_matrix((np.ones(len(closed)), (closed[:, 0], closed[:, 1])), shape=known.shape)


def _between_parts(part: np.ndarray, known: np.ndarray) -> list[tuple[int, int]]:
    """Pairs not yet known between the part of the first class and each other one: so many as there are witnesses."""
    hosts = np.flatnonzero(part == part[0])[:WITNESSES]
    added: list[tuple[int, int]] = []
    for one in dict.fromkeys(part.tolist()):
        guests = np.flatnonzero(part == one)[:WITNESSES]
        if one == part[0]:
            continue
        # First each with a partner of its own, then the rest.
        every = sorted((abs(a - b), a, b) for a in range(len(hosts)) for b in range(len(guests)))
        new = [(int(hosts[a]), int(guests[b])) for _, a, b in every if not known[hosts[a], guests[b]]]
        added += new[:WITNESSES]
    return added


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
    rotation, shift, mirrored = superclass_frames.superclass_poses(joined, labels, sizes, references, frame=settings.frame)
    posed = groups.copy()
    posed["rotation_quaternion"] = (groups["rotation_quaternion"].dims, rotation)
    posed["shift_angstrom"] = (groups["shift_angstrom"].dims, shift, {"units": "angstrom"})
    posed["mirrored"] = ("class_id", mirrored)
    return joined, posed
