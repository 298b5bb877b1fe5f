"""Particles in parquet: files of one's own, read as ranges of row groups.

The schema that is asked for; all other columns are carried along as they are:

======================  ==============================================  ==================================
column                  type                                            meaning
======================  ==============================================  ==================================
``uid``                 integer or string                               names the particle (required)
``class_posterior``     fixed_size_list of float [K]                    posterior of classes 0 .. K - 1, or
``class_id``            integer                                         the particle's class, zero-based;
                                                                        negative or null: none
``rotation_quaternion`` fixed_size_list of float [4]                    optional: x, y, z, w; takes the
                                                                        particle's frame to the volume's
``shift_angstrom``      fixed_size_list of float [2] or [3]             optional: the image moves by
                                                                        +shift to centre it
======================  ==============================================  ==================================

A list of variable length, as pandas writes one, is taken where all its rows have the same length. With both
class columns the posteriors count. A folder may be partitioned as Hive does it, ``class_id=3/...``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regroup_dask.errors import InputError
from regroup_dask.formats.parquet_files import (
    ParquetFragment,
    fragments_of_file,
    parquet_files,
    read_metadata,
)
from regroup_dask.formats.parquet_outputs import create_outputs, finish_outputs, write_fragment
from regroup_dask.formats.parquet_uids import refuse_repeated_uids
from regroup_dask.formats.particle_source import ParticleSource
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.rotations import matrices_of_quaternions

__all__ = [
    "ParquetFragment",
    "ParquetParticles",
    "create_outputs",
    "finish_outputs",
    "open_parquet_particles",
    "write_fragment",
]


@dataclass(frozen=True, kw_only=True)
class ParquetParticles(ParticleSource):
    """Particles of parquet files with the schema of this module."""

    def class_posteriors(self, table: pa.Table) -> np.ndarray:
        """Posteriors f32[n, n_classes], one-hot when the files have classes only; a null row is all zero."""
        if not self.hard:
            valid, values = _list_rows(table, "class_posterior", len(self.class_ids), self.files[0], np.float32)
            if len(values) == table.num_rows:
                return values
        posteriors = np.zeros((table.num_rows, len(self.class_ids)), dtype=np.float32)
        if not self.hard:
            posteriors[valid] = values
            return posteriors
        ids = pc.fill_null(table.column("class_id").cast(pa.int64(), safe=False), -1).to_numpy()
        index = np.minimum(np.searchsorted(self.class_ids, ids), len(self.class_ids) - 1)
        known = np.flatnonzero(np.asarray(self.class_ids)[index] == ids)
        posteriors[known, index[known]] = 1
        return posteriors

    def particle_poses(self, table: pa.Table, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation f64[n, 3, 3] and shift f64[n, 2|3] in angstrom of each row, or None; NaN where null."""
        if "rotation_quaternion" not in self.schema.names:
            return None
        quaternion = self._vectors(table, "rotation_quaternion", 4)
        if "shift_angstrom" not in self.schema.names:
            return matrices_of_quaternions(quaternion), np.zeros((table.num_rows, 2))
        n_axes = _list_length(table.column("shift_angstrom"))
        if n_axes not in (2, 3):
            raise InputError(f"{self.files[0]}: shift_angstrom has {n_axes} values in a row; 2 or 3 are expected")
        return matrices_of_quaternions(quaternion), self._vectors(table, "shift_angstrom", n_axes)

    def _vectors(self, table: pa.Table, name: str, length: int) -> np.ndarray:
        """Vectors of a column, f64[n, length]; NaN where a row is null. Not to be changed: it may be the column itself."""
        valid, values = _list_rows(table, name, length, self.files[0])
        if len(values) == table.num_rows:
            return values
        result = np.full((table.num_rows, length), np.nan)
        result[valid] = values
        return result


def open_parquet_particles(
    paths: Sequence[str],
    *,
    fragment_rows: int | None = None,
    scratch: str | None = None,
    run: RunPieces = in_this_process,
) -> ParquetParticles:
    """Open parquet files, or folders of them, as particles.

    Parameters
    ----------
    paths : sequence of str
        Files with the same columns; folders are searched for ``*.parquet`` in sorted order.
    fragment_rows : int, optional
        Rows of a fragment; by default whole row groups of together about 64 MB, or parts of very large ones.
    scratch, run
        See `formats.particles.open_particles`.

    Raises
    ------
    InputError
        A file cannot be read, files differ in their columns, a required column is missing, or a uid is null or repeated.
    """
    files = parquet_files(paths)
    schema: pa.Schema | None = None
    fragments: list[ParquetFragment] = []
    for file in files:
        metadata, found = read_metadata(file)
        if schema is None:
            schema = found
            _check_schema(file.path, schema)
        elif {item.name: item.type for item in found} != {item.name: item.type for item in schema}:
            raise InputError(f"{files[0].path} and {file.path} have different columns: they cannot be read together")
        fragments += fragments_of_file(file, metadata, schema, fragments[-1:], fragment_rows)
    if schema is None or not fragments:
        raise InputError(f"{', '.join(paths)}: there are no particles in it")
    refuse_repeated_uids(fragments, scratch=scratch, run=run)
    hard = "class_posterior" not in schema.names
    class_ids = _class_ids(fragments, run) if hard else tuple(range(_posterior_classes(fragments[0])))
    if not class_ids:
        raise InputError(f"{files[0].path}: no particle has a class_id of 0 or more")
    if class_ids[-1] >= 2**31:
        raise InputError(f"{files[0].path}: a class_id is {class_ids[-1]}; classes are numbered from 0 to {2**31 - 1}")
    return ParquetParticles(
        kind="parquet",
        files=tuple(file.path for file in files),
        schema=schema,
        fragments=tuple(fragments),
        class_ids=class_ids,
        posterior_columns=("class_id",) if hard else ("class_posterior",),
        hard=hard,
        particle_columns=("uid",),
        lines=(
            f"{os.path.basename(files[0].path)}{f' and {len(files) - 1} more' if len(files) > 1 else ''}: "
            f"{fragments[-1].first_row + fragments[-1].n_rows} parquet particles, {len(schema.names)} columns, "
            f"{len(class_ids)} classes" + (" without posteriors" if hard else ""),
        ),
    )


def _check_schema(path: str, schema: pa.Schema) -> None:
    present = ", ".join(schema.names)
    if "uid" not in schema.names:
        raise InputError(f"{path} has no column uid that names its particles; it has: {present}")
    uid = schema.field("uid").type
    values = uid.value_type if pa.types.is_dictionary(uid) else uid
    if not any(
        test(values) for test in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    ):
        raise InputError(f"{path}: the column uid is of type {uid}; an integer or a string is expected")
    if "class_posterior" in schema.names:
        _check_list(path, schema.field("class_posterior"), None)
    elif "class_id" not in schema.names:
        raise InputError(f"{path} has neither a column class_posterior nor class_id and so no classes; it has: {present}")
    elif not pa.types.is_integer(schema.field("class_id").type):
        raise InputError(f"{path}: class_id is of type {schema.field('class_id').type}; an integer is expected")
    if "rotation_quaternion" in schema.names:
        _check_list(path, schema.field("rotation_quaternion"), (4,))
    if "shift_angstrom" in schema.names:
        _check_list(path, schema.field("shift_angstrom"), (2, 3))


def _check_list(path: str, item: pa.Field, lengths: tuple[int, ...] | None) -> None:
    kind = item.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{path}: {item.name} is of type {kind}; a fixed_size_list of floats is expected")
    if fixed and lengths is not None and kind.list_size not in lengths:
        expected = " or ".join(str(length) for length in lengths)
        raise InputError(f"{path}: {item.name} has {kind.list_size} values in a row; {expected} are expected")


def _class_ids(fragments: Sequence[ParquetFragment], run: RunPieces) -> tuple[int, ...]:
    return tuple(sorted({class_id for found in run(classes_of_fragment, fragments) for class_id in found}))


def classes_of_fragment(fragment: ParquetFragment) -> list[int]:
    """Distinct classes of the rows of a fragment."""
    values = pc.unique(fragment.read(["class_id"]).column("class_id")).to_pylist()
    return [int(value) for value in values if value is not None and value >= 0]


def _posterior_classes(fragment: ParquetFragment) -> int:
    kind = fragment.schema.field("class_posterior").type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    return _list_length(fragment.read(["class_posterior"]).column("class_posterior"))


def _list_length(column: pa.ChunkedArray) -> int:
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    return int(pc.max(pc.list_value_length(column)).as_py() or 0)


def _list_rows(
    table: pa.Table, name: str, length: int, path: str, kind: type = np.float64
) -> tuple[np.ndarray | slice, np.ndarray]:
    """Rows of a list column that are not null, bool[n] or all of them, and their values, [n_valid, length] of ``kind``.

    A null within a row makes it NaN.
    """
    column = table.column(name)
    valid = np.asarray(column.is_valid()) if column.null_count else slice(None)
    n_valid = table.num_rows - column.null_count
    values: list[np.ndarray] = [np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), kind) for chunk in column.chunks]
    flat = values[0] if len(values) == 1 else np.concatenate(values) if values else np.empty(0, kind)
    same = pa.types.is_fixed_size_list(column.type) and column.type.list_size == length
    if not same:
        same = pc.all(pc.equal(pc.drop_null(pc.list_value_length(column)), length), min_count=0).as_py()
    if len(flat) != n_valid * length or not same:
        raise InputError(f"{path}: {name} has rows of other than {length} values")
    return valid, flat.reshape(-1, length)
