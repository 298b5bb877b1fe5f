"""The Arrow side of the output, whatever the particles were read from: hive-partitioned parquet.

``particles/superclass=K/fragNNNNN-0.parquet`` and ``remaining/fragNNNNN-0.parquet``: one file per fragment of
the input and superclass, rows in input order, every input column as it was, and these besides:

===================================  ========================  =======================================
``assigned_class_id``                int32                     the particle's best class; -1 when its
                                                               posteriors say nothing
``input_row``                        int64                     row in the input, over all its files
``superclass_posterior``             fixed_size_list<f32>[K]   summed over each superclass's classes
``superclass_rotation_quaternion``   fixed_size_list<f64>[4]   x, y, z, w, w >= 0: particle frame to
                                                               superclass volume; null for remaining
``superclass_shift_angstrom``        fixed_size_list<f64>[2|3] the image moves by +shift; likewise
===================================  ========================  =======================================

The last two are there when the input has poses. Each file is written under another name and then renamed, so
that a task may run twice, or die.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import RegroupWarning
from regroup_dask.formats import storage, storing
from regroup_dask.formats.regroup_plan import Assignment, RegroupPlan, SuperclassMaps, assigned_order
from regroup_dask.formats.rotations import quaternions_of_matrices

ROW_GROUP_ROWS = 2**18
ROW_GROUP_BYTES = 64 * 2**20
COMPRESSION = "lz4"
"""On a table of CryoSPARC's, LZ4 takes three fifths of the time of Zstandard and 8 percent more bytes."""

POSE_ROWS = 2**13

ADDED_COLUMNS = (
    "assigned_class_id",
    "input_row",
    "superclass_posterior",
    "superclass_rotation_quaternion",
    "superclass_shift_angstrom",
)


@dataclass(frozen=True)
class ParquetOutputs:
    """Where the parquet files go."""

    folder: str


def create_outputs(
    source: Any, plan: RegroupPlan, counts: np.ndarray, folder: str | os.PathLike[str]
) -> ParquetOutputs:
    """Make the folders; a superclass without particles gets a file without rows, which keeps the columns.

    Parameters
    ----------
    source : ParticleSource
    plan : RegroupPlan
    counts : i64[n_fragments, K + 1]
    folder : path
        The whole output folder.
    """
    outputs = ParquetOutputs(str(folder))
    replaced = [name for name in source.schema.names if name in (*ADDED_COLUMNS, "superclass")]
    if replaced:
        warnings.warn(
            f"the particles have columns that regrouping adds and so replaces: {', '.join(replaced)}",
            RegroupWarning,
            stacklevel=2,
        )
    totals = np.asarray(counts).sum(axis=0)
    empty: pa.Table | None = None
    for group in range(plan.n_superclasses + 1):
        path = _folder_of(outputs, plan, group)
        storing.make_folder(path)
        if totals[group] == 0:
            if empty is None:
                empty = _empty_table(source, plan)
            _write(empty, path / "frag00000-0.parquet")
    return outputs


def write_fragment(
    source: Any,
    fragment: Any,
    table: pa.Table,
    assignment: Assignment,
    plan: RegroupPlan,
    outputs: ParquetOutputs,
    counts_before: np.ndarray,
    own: Any = None,
) -> None:
    """Write one fragment: a file for each superclass it has rows in, and one for the remaining rows."""
    regrouped = add_columns(source, table, assignment, plan, first_row=fragment.first_row)
    for group, rows in enumerate(assigned_order(assignment.superclass, plan.n_superclasses)):
        if len(rows):
            path = _folder_of(outputs, plan, group) / f"frag{fragment.index:05d}-0.parquet"
            _write(regrouped.take(pa.array(rows)), path)


def finish_outputs(
    source: Any, plan: RegroupPlan, outputs: ParquetOutputs, counts: np.ndarray, maps: SuperclassMaps | None
) -> tuple[str, ...]:
    """Return the folders written; parquet needs no finishing."""
    groups = range(plan.n_superclasses + 1)
    return tuple(str(_folder_of(outputs, plan, group)) for group in groups)


def add_columns(
    source: Any, table: pa.Table, assignment: Assignment, plan: RegroupPlan, *, first_row: int
) -> pa.Table:
    """Add the columns of a regrouping to the rows of a fragment.

    Parameters
    ----------
    source : ParticleSource
    table : pyarrow.Table
        The fragment's rows with all columns.
    assignment : Assignment
    plan : RegroupPlan
    first_row : int
        Row of the source where the fragment begins.
    """
    n = table.num_rows
    table = table.drop_columns(
        [name for name in table.column_names if name in (*ADDED_COLUMNS, "superclass")]
    )
    class_index = assignment.class_index(plan)
    posterior = np.asarray(assignment.superclass_posterior, dtype=np.float32).reshape(n, plan.n_superclasses)
    columns = {
        "assigned_class_id": pa.array(np.asarray(assignment.class_id, dtype=np.int32)),
        "input_row": pa.array(np.arange(first_row, first_row + n, dtype=np.int64)),
        "superclass_posterior": _vectors(posterior, None),
    }
    poses = superclass_poses(source, table, class_index, plan)
    if poses is not None:
        quaternion, shift, known = poses
        columns["superclass_rotation_quaternion"] = _vectors(quaternion, known)
        columns["superclass_shift_angstrom"] = _vectors(shift, known)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def superclass_poses(
    source: Any, table: pa.Table, class_index: np.ndarray, plan: RegroupPlan
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the pose of each row against its superclass map, or None where the files have no poses.

    Returns
    -------
    quaternion f64[n, 4], shift_angstrom f64[n, 2|3], known bool[n]
        Zero where the pose is not known.
    """
    n = table.num_rows
    quaternion, shift, known = np.zeros((n, 4)), np.empty((n, 0)), np.zeros(n, bool)
    # Matrices are nine numbers per row: a few thousand rows at a time stay in the processor's cache.
    for start in range(0, max(n, 1), POSE_ROWS):
        part = slice(start, min(start + POSE_ROWS, n))
        index = class_index[part]
        poses = source.particle_poses(table.slice(start, POSE_ROWS), index)
        if poses is None:
            return None
        rotation, moved_shift = poses
        moves = np.flatnonzero(plan.moves(index))
        if len(moves) and plan.move_poses is not None:
            rotation, moved_shift = rotation.copy(), moved_shift.copy()
            rotation[moves], moved_shift[moves] = plan.move_poses(
                rotation[moves], moved_shift[moves], *plan.class_pose_arrays(index[moves])
            )
        found = quaternions_of_matrices(rotation)
        # A matrix that is not finite makes every component NaN.
        sound = (index >= 0) & np.isfinite(found[:, 3])
        for axis in moved_shift.T:
            sound &= np.isfinite(axis)
        if shift.shape[1] != moved_shift.shape[1]:
            shift = np.zeros((n, moved_shift.shape[1]))
        quaternion[part], shift[part], known[part] = found, moved_shift, sound
        quaternion[part][~sound] = 0
        shift[part][~sound] = 0
    return quaternion, shift, known


def _vectors(values: np.ndarray, known: np.ndarray | None) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    mask = None if known is None or known.all() else pa.array(~known)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask)


def _empty_table(source: Any, plan: RegroupPlan) -> pa.Table:
    """The table that `add_columns` makes of no rows; two rows are read to learn the shape of the poses."""
    k = plan.n_superclasses
    rows = source.head(1)
    n = rows.num_rows
    nothing = Assignment(
        np.full(n, -1, np.int32),
        np.full(n, -1, np.int32),
        np.zeros((n, k), np.float32),
        np.full((n, k), -1, np.int32),
    )
    return add_columns(source, rows, nothing, plan, first_row=0).slice(0, 0)


def _folder_of(outputs: ParquetOutputs, plan: RegroupPlan, group: int) -> Path:
    folder = storage.location(outputs.folder)
    return (
        folder / "remaining" if group == plan.n_superclasses else folder / "particles" / f"superclass={group}"
    )


def _write(table: pa.Table, path: Path) -> None:
    with storing.opened_writing(path) as stream:
        pq.write_table(
            table,
            stream,
            compression=COMPRESSION,
            # Names repeat. Numbers do not, and a dictionary that is given up half way takes nine tenths of the time.
            use_dictionary=[item.name for item in table.schema if _is_text(item.type)],
            row_group_size=max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes))),
            write_statistics=True,
        )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests)
