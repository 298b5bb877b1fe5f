"""What changes in the rows of a star file when its particles follow their classes."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.regroup_plan import Assignment, ClassPose, RegroupPlan
from regroup_dask.formats.relion.particles import RelionParticles, class_ids_of_rows
from regroup_dask.formats.relion.poses import (
    ANGLE_PRIORS,
    ANGLES,
    ORIGINS_ANGSTROM,
    ORIGINS_PIXEL,
    poses_of_rows,
    priors_of_rows,
)
from regroup_dask.formats.relion.star_rewrite import APPENDED, TOO_LARGE, NewValues
from regroup_dask.formats.relion.survey import CLASS_COLUMN
from regroup_dask.formats.rotations import angles_of_matrices

DECIMALS = 6


def new_columns(source: RelionParticles, plan: RegroupPlan) -> tuple[str, ...]:
    """Columns to add: origins, when a class moves by a shift and the file has none.

    They are in angstrom, or in pixels before 3.1.
    """
    shifted = any(np.any(np.asarray(pose.shift_angstrom) != 0) for _, pose in _moving(plan))
    if source.poses is None or source.poses.origins or not shifted:
        return ()
    before_31 = "rlnOpticsGroup" not in source.schema.names
    return (ORIGINS_PIXEL if before_31 else ORIGINS_ANGSTROM)[:2]


def check_poses_can_follow(source: RelionParticles, plan: RegroupPlan) -> None:
    """Refuse, or warn of, what the poses of this file do not allow.

    Raises
    ------
    InputError
        Origins are in pixels, and the file does not say how large a pixel is.
    """
    moving = _moving(plan)
    if not moving:
        return
    path = source.part.path
    if source.poses is None:
        _warn(f"{path} has no {', '.join(ANGLES)}: the poses of its particles do not follow their classes")
        return
    in_pixels = source.poses.in_pixels or new_columns(source, plan)[:1] == ORIGINS_PIXEL[:1]
    if in_pixels and source.pixel_size is None:
        raise InputError(
            f"{path} has origins in pixels and does not say its pixel size: add rlnPixelSize or keep poses"
        )
    priors = source.poses.angle_priors
    if priors and len(priors) < len(ANGLE_PRIORS):
        missing = ", ".join(name for name in ANGLE_PRIORS if name not in priors)
        _warn(
            f"{path} has {', '.join(priors)} without {missing}: the pose itself is taken for what is missing"
        )
    if source.poses.n_dimensions == 3 and any(pose.mirrored for _, pose in moving):
        mirrored = ", ".join(str(class_id) for class_id, pose in moving if pose.mirrored)
        _warn(
            f"class {mirrored} is of the opposite hand, and no pose turns a subtomogram into its mirror "
            "image: the poses of its particles in the star files are not to be trusted"
        )


def new_values(
    source: RelionParticles, table: pa.Table, assignment: Assignment, plan: RegroupPlan
) -> list[NewValues]:
    """Find the values to write in the rows of a fragment.

    The class number of a grouped particle is its superclass + 1. Where its class moves, its angles, origins
    and priors follow; a value that is not finite stays as it is written.

    Parameters
    ----------
    source : RelionParticles
    table : pyarrow.Table
        The rows of the fragment.
    assignment : Assignment
    plan : RegroupPlan
    """
    columns = source.schema.names
    grouped = assignment.superclass >= 0
    number = assignment.superclass.astype(np.int64) + 1
    changed = grouped & (class_ids_of_rows(table) + 1 != number)
    values = [NewValues(columns.index(CLASS_COLUMN), number, 0, changed)]
    class_index = assignment.class_index(plan)
    moves = plan.moves(class_index)
    poses, law = source.poses, plan.move_poses
    appended = new_columns(source, plan)
    if poses is None or law is None or not (moves.any() or appended):
        return values
    rows = np.flatnonzero(moves)
    pixel_columns = () if source.pixel_size is None else source.pixel_size.columns
    needed = dict.fromkeys([*ANGLES, *poses.origins, *poses.angle_priors, *poses.origin_priors, *pixel_columns])
    moved_table = table.select([*needed]).take(pa.array(rows))
    class_poses = plan.class_pose_arrays(class_index[rows])
    rotation, shift = law(*poses_of_rows(poses, moved_table, source.pixel_size), *class_poses)
    names: list[str] = [*ANGLES]
    new = [*angles_of_matrices(rotation).T]
    pixel: np.ndarray | float = 1.0
    if (poses.in_pixels or appended[:1] == ORIGINS_PIXEL[:1]) and source.pixel_size is not None:
        pixel = source.pixel_size.of_rows(moved_table)
        if not np.isfinite(pixel).all() or (pixel <= 0).any():
            raise InputError(
                f"{source.part.path}: the pixel size of some particles is unknown; keep the poses"
            )
    names += [*(poses.origins or appended)]
    new += [axis / pixel for axis in shift.T[: len(poses.origins or appended)]]
    if poses.angle_priors or poses.origin_priors:
        rotation, shift = law(*priors_of_rows(poses, moved_table, source.pixel_size), *class_poses)
        priors = dict(zip(ANGLE_PRIORS, angles_of_matrices(rotation).T, strict=True))
        names += [*poses.angle_priors, *poses.origin_priors]
        new += [priors[name] for name in poses.angle_priors]
        new += [axis / pixel for axis in shift.T[: len(poses.origin_priors)]]
    for name, value in zip(names, new, strict=True):
        if (np.abs(value) >= TOO_LARGE).any():
            raise InputError(
                f"{source.part.path}: moving with its class makes a particle's _{name} "
                f"{value[np.nanargmax(np.abs(value))]:.3g}, which is too large: check its pose"
            )
        spread = np.zeros(table.num_rows)
        spread[rows] = value
        if name in appended:
            values.append(NewValues(APPENDED, np.nan_to_num(spread), DECIMALS, grouped))
        else:
            finite = np.isfinite(spread)
            values.append(
                NewValues(columns.index(name), np.where(finite, spread, 0), DECIMALS, moves & finite)
            )
    return values


def _moving(plan: RegroupPlan) -> list[tuple[int, ClassPose]]:
    """Classes that move, with their poses."""
    if not plan.update_poses:
        return []
    indices = np.flatnonzero(plan.moves(np.arange(len(plan.class_ids))))
    return [(plan.class_ids[index], plan.pose_of_class[plan.class_ids[index]]) for index in indices]


def _warn(message: str) -> None:
    warnings.warn(message, RegroupWarning, stacklevel=4)
