"""Rows of passthrough files put into the order of the primary files, once, in bounded memory and linear time.

Two indices sorted by hashed uid say together which row of the one is which row of the other: each window of them is matched
alone, and its pairs are sorted by the row of the passthrough files. Then each part of these is read from begin to end, and
its rows are written in the order that they have in the primary files. A range of primary rows is a range of each of the
parts. All of this goes to a scratch folder, and takes there what the columns take in their files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.stacked_files import StackedFiles, StackRows
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.remote_array import mapped
from regroup_dask.formats.uid_index import BUCKET_ROWS, UidIndex, uid_of_hash

BLOCK_ROWS = 4096
"""Where each block of so many primary rows begins is known for every part."""


class RearrangedRows(NamedTuple):
    """Rows in the order of the primary files, in parts; small and picklable."""

    folder: str
    dtype: np.dtype
    """record of the columns that are there"""
    sizes: tuple[int, ...]
    """rows of each part"""

    def read(self, first_row: int, n_rows: int, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the rows of some particles, which are rows ``first_row ...`` of the primary files."""
        result = {name: np.empty(n_rows, self.dtype[name]) for name in columns}
        if not n_rows:
            return result
        block, last_block = first_row // BLOCK_ROWS, -(-(first_row + n_rows) // BLOCK_ROWS)
        for number, size in enumerate(self.sizes):
            start, stop = (int(_window(self.folder, "begins", number, np.int64, edge, 1)[0]) for edge in (block, last_block))
            if not size or start == stop:
                continue
            rows = _window(self.folder, "rows", number, np.int64, start, stop - start) - first_row
            inside = slice(*np.searchsorted(rows, [0, n_rows]).tolist())
            records = _window(self.folder, "records", number, self.dtype, start, stop - start)[inside]
            for name, values in result.items():
                values[rows[inside]] = records[name]
        return result


class MatchPiece(NamedTuple):
    """A window of the primary index, to be matched with the passthrough files."""

    number: int
    primary: UidIndex
    passthrough: UidIndex
    part_starts: tuple[int, ...]
    folder: str


class Matched(NamedTuple):
    """What matching a window gave."""

    edges: np.ndarray
    """i64[n_parts + 1]: where the pairs of each part of the passthrough files begin"""
    n_missing: int
    first_missing: int
    """a uid that is not in the passthrough files"""


class ArrangePiece(NamedTuple):
    """A part of the passthrough files, to be put into order."""

    number: int
    rows: StackRows
    columns: tuple[str, ...]
    edges: np.ndarray
    """i64[n_windows, 2]: where its pairs begin and end in each window's"""
    window_sizes: tuple[int, ...]
    n_primary_rows: int
    folder: str


def rearrange(
    stack: StackedFiles,
    columns: Sequence[str],
    primary: UidIndex,
    passthrough: UidIndex,
    *,
    scratch: str,
    run: RunPieces = in_this_process,
) -> RearrangedRows:
    """Put some columns of passthrough files into the order of the primary files.

    Parameters
    ----------
    stack : StackedFiles
        The passthrough files; rows of particles that are not in the primary files are left away.
    columns : sequence of str
    primary, passthrough : UidIndex
        Indices of both, without repeated uids.
    scratch : str
        Folder that all workers see.
    run : RunPieces
        Runs the pieces of both rounds, each in bounded memory.

    Raises
    ------
    InputError
        A particle is missing in the passthrough files.
    """
    folder = tempfile.mkdtemp(prefix="rearranged-", dir=scratch)
    parts = stack.parts()
    part_starts = tuple(part.first_row for part in parts)
    windows = range(-(-primary.n_rows // BUCKET_ROWS))
    matched = run(match_window, [MatchPiece(number, primary, passthrough, part_starts, folder) for number in windows])
    n_missing = sum(window.n_missing for window in matched)
    if n_missing:
        paths = ", ".join(path for path, _ in stack.sizes)
        first = next(window.first_missing for window in matched if window.n_missing)
        raise InputError(
            f"{n_missing} of {primary.n_rows} particles are not in the passthrough {paths} (the first "
            f"has uid {first}): give the passthrough file of the same job, for all its classes, or none"
        )
    edges = np.array([window.edges for window in matched], np.int64).reshape(len(matched), len(parts) + 1)
    window_sizes = tuple(edges[:, -1].tolist())
    pieces = [
        ArrangePiece(number, part, tuple(columns), edges[:, number : number + 2], window_sizes, primary.n_rows, folder)
        for number, part in enumerate(parts)
    ]
    sizes = tuple(run(arrange_part, pieces))
    for number in windows:
        os.unlink(_path(folder, "pairs", number))
    return RearrangedRows(folder, np.dtype([(name, stack.dtype[name]) for name in columns]), sizes)


def match_window(piece: MatchPiece) -> Matched:
    """Find the passthrough row of each uid of a window, and write the pairs by it."""
    start = piece.number * BUCKET_ROWS
    hashes = np.array(piece.primary.hashes(start))
    found = piece.passthrough.find_sorted(hashes)
    missing = np.flatnonzero(found < 0)
    order = np.argsort(found)
    with open(_path(piece.folder, "pairs", piece.number), "wb") as stream:
        found[order].tofile(stream)
        np.array(piece.primary.rows(start))[order].tofile(stream)
    edges = np.append(np.searchsorted(found[order], piece.part_starts), len(found)).astype(np.int64)
    return Matched(edges, len(missing), uid_of_hash(hashes[missing[0]]) if len(missing) else 0)


def arrange_part(piece: ArrangePiece) -> int:
    """Write the rows of a part in the order of the primary files; returns how many of them are there."""
    own, primary = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, (size, (start, stop)) in enumerate(zip(piece.window_sizes, piece.edges.tolist(), strict=True)):
        if stop > start:
            path = _path(piece.folder, "pairs", number)
            own.append(np.fromfile(path, np.int64, stop - start, offset=8 * start))
            primary.append(np.fromfile(path, np.int64, stop - start, offset=8 * (size + start)))
    primary_rows = np.concatenate(primary)
    order = np.argsort(primary_rows)
    primary_rows, own_rows = primary_rows[order], np.concatenate(own)[order] - piece.rows.first_row
    stack = piece.rows.stack
    records = np.empty(len(order), np.dtype([(name, stack.dtype[name]) for name in piece.columns]))
    values = stack.read(piece.rows.first_row, piece.rows.first_row + piece.rows.n_rows, piece.columns)
    for name in piece.columns:
        records[name] = values.pop(name)[own_rows]
    blocks = np.arange(0, piece.n_primary_rows + BLOCK_ROWS, BLOCK_ROWS)
    for name, array in (("rows", primary_rows), ("records", records), ("begins", np.searchsorted(primary_rows, blocks))):
        with open(_path(piece.folder, name, piece.number), "wb") as stream:
            array.tofile(stream)
    return len(order)


def _window(folder: str, name: str, number: int, kind: np.dtype | type, start: int, n: int) -> np.ndarray:
    values = mapped(_path(folder, name, number), kind, offset=start * np.dtype(kind).itemsize, shape=(n,))
    return np.asarray(values[:])


def _path(folder: str, name: str, number: int) -> str:
    return os.path.join(folder, f"{name}_{number:06d}")
