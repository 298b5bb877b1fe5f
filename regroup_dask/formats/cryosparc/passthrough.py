"""Passthrough files: columns of the same particles in other files, in any row order, joined by uid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.dataset_file import DatasetFile
from regroup_dask.formats.cryosparc.stacked_files import StackedFiles, StackRows, stack_files
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.uid_index import (
    BUCKET_ROWS,
    UidIndex,
    build_uid_index,
    refuse_duplicates,
    uid_of_hash,
)


@dataclass(frozen=True)
class Passthrough:
    """Passthrough files of one set of columns."""

    stack: StackedFiles
    columns: tuple[str, ...]
    """the columns taken from here"""
    uid_index: UidIndex | None
    """None when the rows are those of the primary files, in the same order"""

    def read(self, first_row: int, uids: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the rows of some particles, which are rows ``first_row ...`` of the primary files."""
        if self.uid_index is None:
            return self.stack.read(first_row, first_row + len(uids), columns)
        return self.stack.take(self.uid_index.find(uids), columns)


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
        index = None
        if not _same_rows(stack, primary, run):
            index = build_uid_index(stack.parts(), scratch=scratch, run=run)
            refuse_duplicates(index, stack.sizes)
            _refuse_missing(primary_index, index, stack, run)
        joined.append(Passthrough(stack, columns, index))
    return tuple(joined)


class _SamePiece(NamedTuple):
    rows: StackRows
    primary: StackedFiles


class _MissingPiece(NamedTuple):
    start: int
    primary: UidIndex
    passthrough: UidIndex


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


def _refuse_missing(primary_index: UidIndex, index: UidIndex, stack: StackedFiles, run: RunPieces) -> None:
    pieces = [_MissingPiece(start, primary_index, index) for start in range(0, primary_index.n_rows, BUCKET_ROWS)]
    found = run(missing_uids, pieces)
    n_missing = sum(n for n, _ in found)
    if n_missing:
        paths = ", ".join(path for path, _ in stack.sizes)
        first = next(uid for n, uid in found if n)
        raise InputError(
            f"{n_missing} of {primary_index.n_rows} particles are not in the passthrough {paths} (the first "
            f"has uid {first}): give the passthrough file of the same job, for all its classes, or none"
        )


def missing_uids(piece: _MissingPiece) -> tuple[int, int]:
    """How many of a window of uids are not in the other index, and the first of them."""
    part = piece.primary.hashes(piece.start)
    absent = np.flatnonzero(piece.passthrough.find_sorted(part) < 0)
    return len(absent), uid_of_hash(part[absent[0]]) if len(absent) else 0
