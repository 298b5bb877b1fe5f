"""Passthrough files: columns of the same particles in other files, in any row order, joined by uid."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from regroup_dask.formats.cryosparc.dataset_file import DatasetFile
from regroup_dask.formats.cryosparc.rearranged import RearrangedRows, rearrange
from regroup_dask.formats.cryosparc.stacked_files import StackedFiles, StackRows, stack_files
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.uid_index import UidIndex, build_uid_index, refuse_duplicates


@dataclass(frozen=True)
class Passthrough:
    """Passthrough files of one set of columns."""

    stack: StackedFiles
    columns: tuple[str, ...]
    """the columns taken from here"""
    rearranged: RearrangedRows | None
    """None when the rows are those of the primary files, in the same order"""
    binary: tuple[str, ...]
    """columns with text that is not UTF-8"""

    def read(self, first_row: int, n_rows: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the rows of some particles, which are rows ``first_row ...`` of the primary files."""
        if self.rearranged is None:
            return self.stack.read(first_row, first_row + n_rows, columns)
        return self.rearranged.read(first_row, n_rows, columns)


def join_passthrough(
    files: Sequence[DatasetFile],
    primary: StackedFiles,
    primary_index: UidIndex,
    *,
    scratch: str,
    run: RunPieces = in_this_process,
) -> tuple[Passthrough, ...]:
    """Prepare the join of passthrough files with the primary ones.

    Files of the same columns are read as one table (one per job), others beside each other; a column that is
    there already is not taken again.

    Raises
    ------
    InputError
        A particle is missing in a passthrough file, or is there twice.
    """
    sets: dict[frozenset[str], list[DatasetFile]] = {}
    for file in files:
        sets.setdefault(frozenset(file.dtype.names or ()), []).append(file)
    taken = set(primary.dtype.names or ())
    joined = []
    for group in sets.values():
        stack = stack_files(group)
        columns = tuple(name for name in stack.dtype.names or () if name not in taken)
        taken.update(columns)
        if not columns:
            continue
        if _same_rows(stack, primary, run):
            binary = sum(run(binary_columns, stack.parts()), ())
            joined.append(Passthrough(stack, columns, None, binary))
            continue
        index = build_uid_index(stack.parts(), scratch=scratch, run=run)
        refuse_duplicates(index, stack.sizes)
        rearranged = rearrange(stack, columns, primary_index, index, scratch=scratch, run=run)
        shutil.rmtree(index.folder)
        joined.append(Passthrough(stack, columns, rearranged, index.notes))
    return tuple(joined)


def binary_columns(rows: StackRows) -> tuple[str, ...]:
    """Names of columns with text that is not UTF-8."""
    return rows.read_hashes()[1]


class _SamePiece(NamedTuple):
    rows: StackRows
    primary: StackedFiles


def _same_rows(stack: StackedFiles, primary: StackedFiles, run: RunPieces) -> bool:
    """Tell whether the rows are the same particles in the same order."""
    if stack.n_rows != primary.n_rows:
        return False
    first = StackRows(stack, 0, min(stack.n_rows, 1000))
    return same_uids(_SamePiece(first, primary)) and all(
        run(same_uids, [_SamePiece(part, primary) for part in stack.parts()])
    )


def same_uids(piece: _SamePiece) -> bool:
    """Tell whether some rows are the same particles as those of the primary files."""
    first = piece.rows.first_row
    for values in piece.rows.chunks(["uid"]):
        uids = values["uid"]
        if (piece.primary.read(first, first + len(uids), ["uid"])["uid"] != uids).any():
            return False
        first += len(uids)
    return True
