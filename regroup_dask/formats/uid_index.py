"""Finding rows by their ``uid``, in files larger than memory.

The index is two plain binary files in a scratch folder: hashed uids in increasing order (u64), and the row of
each (i64). The hash is the product with an odd constant modulo 2^64, which is a bijection: equal hashes are
equal uids, and uids of any kind (random or counted up) spread evenly, so that they fall into buckets by their upper
bits. It is made in two rounds of pieces that run anywhere: parts of the rows are sorted, each into a file of its own;
then each bucket of about `BUCKET_ROWS` is merged from all of them. Looking up maps a window of as many rows at a
time. So memory stays below 100 MB whatever the number of rows; the index takes 16 bytes of disk per row, and as many
again while it is made.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.remote_array import mapped

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""
BUCKET_ROWS = 2**20


class UidRows(Protocol):
    """A range of rows that reads its identifiers; small and picklable."""

    @property
    def first_row(self) -> int:
        """Rows of the table before this range."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of the range."""
        ...

    def read_hashes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Read hashes of the identifiers, u64[n_rows], and anything to be noted of the rows."""
        ...


class SortPiece(NamedTuple):
    """One part, to be sorted."""

    rows: UidRows
    number: int
    folder: str
    bits: int


class SortedPart(NamedTuple):
    """What is known of a part that is sorted."""

    edges: np.ndarray
    """i64[2^bits + 1]: where its buckets begin"""
    notes: tuple[str, ...]


class MergePiece(NamedTuple):
    """One bucket, to be merged."""

    folder: str
    sizes: tuple[int, ...]
    """rows of each part"""
    edges: np.ndarray
    """i64[n_parts, 2]: where the bucket begins and ends in each part"""
    start: int
    """row of the index where it goes"""


class RepeatedUids(NamedTuple):
    """Identifiers that are there more than once."""

    n_repeated: int
    hash: int
    rows: tuple[int, ...]
    """two rows with the first of them"""


class UidIndex(NamedTuple):
    """A sorted index on disk; small and picklable."""

    folder: str
    n_rows: int
    repeated: RepeatedUids = RepeatedUids(0, 0, ())
    notes: tuple[str, ...] = ()
    """what the parts said of their rows"""

    def find_sorted(self, hashes: np.ndarray) -> np.ndarray:
        """Return the row of each hash of an increasing array, -1 where it is not there. i64[n]."""
        result = np.full(len(hashes), -1, np.int64)
        position = 0
        for start in range(0, self.n_rows, BUCKET_ROWS):
            known = self.hashes(start)
            stop = int(np.searchsorted(hashes, known[-1], side="right"))
            if stop > position:
                asked = hashes[position:stop]
                place = np.searchsorted(known, asked)
                found = np.flatnonzero(known[place] == asked)
                result[position + found] = self.rows(start)[place[found]]
                position = stop
            if position == len(hashes):
                break
        return result

    def hashes(self, start: int, n_rows: int | None = None) -> np.ndarray:
        """Map a window of the sorted hashes. u64[at most n_rows]."""
        return self._window("hashes", np.uint64, start, n_rows)

    def rows(self, start: int, n_rows: int | None = None) -> np.ndarray:
        """Map a window of the rows of the sorted hashes. i64[at most n_rows]."""
        return self._window("rows", np.int64, start, n_rows)

    def _window(self, name: str, kind: type, start: int, n_rows: int | None = None) -> np.ndarray:
        # A new mapping for each window: pages of a mapping count as memory of the process until it ends.
        n = min(n_rows or BUCKET_ROWS, self.n_rows - start)
        return mapped(os.path.join(self.folder, name), kind, offset=start * 8, shape=(n,))[:]


def build_uid_index(parts: Sequence[UidRows], *, scratch: str, run: RunPieces = in_this_process) -> UidIndex:
    """Build an index of all rows: each part sorted alone, then each bucket of hashes merged alone.

    Parameters
    ----------
    parts : sequence of UidRows
        Rows that read their identifiers, in row order.
    scratch : str
        Folder that all workers see.
    run : RunPieces
        Runs the pieces of both rounds, each in bounded memory.
    """
    folder = tempfile.mkdtemp(prefix="uids-", dir=scratch)
    n_rows = sum(part.n_rows for part in parts)
    bits = max(0, int(np.ceil(np.log2(max(n_rows, 1) / BUCKET_ROWS))))
    sorted_parts = run(sort_part, [SortPiece(part, number, folder, bits) for number, part in enumerate(parts)])
    edges = np.array([part.edges for part in sorted_parts], np.int64).reshape(len(parts), 2**bits + 1)
    for name in ("hashes", "rows"):
        with open(os.path.join(folder, name), "wb") as stream:
            stream.truncate(8 * n_rows)
    starts = np.concatenate([[0], np.cumsum(np.diff(edges, axis=1).sum(axis=0))]).tolist()
    sizes = tuple(part.n_rows for part in parts)
    merged = run(
        merge_bucket,
        [MergePiece(folder, sizes, edges[:, number : number + 2], starts[number]) for number in range(2**bits)],
    )
    for number in range(len(parts)):
        os.unlink(_part_path(folder, number))
    first = next((bucket for bucket in merged if bucket.n_repeated), RepeatedUids(0, 0, ()))
    repeated = first._replace(n_repeated=sum(bucket.n_repeated for bucket in merged))
    notes = tuple(dict.fromkeys(note for part in sorted_parts for note in part.notes))
    return UidIndex(folder, n_rows, repeated, notes)


def sort_part(piece: SortPiece) -> SortedPart:
    """Sort the hashes of one part into a file of its own, with the row of each."""
    hashes, notes = piece.rows.read_hashes()
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    with open(_part_path(piece.folder, piece.number), "wb") as stream:
        stream.write(np.ascontiguousarray(hashes).data)
        stream.write((order + piece.rows.first_row).data)
    begins = np.arange(1, 2**piece.bits, dtype=np.uint64) << np.uint64(min(64 - piece.bits, 63))
    return SortedPart(np.concatenate([[0], np.searchsorted(hashes, begins), [len(hashes)]]).astype(np.int64), notes)


def merge_bucket(piece: MergePiece) -> RepeatedUids:
    """Merge what all parts have of one bucket into the files of the index; says which hashes are there twice."""
    hashes, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for number, (size, (start, stop)) in enumerate(zip(piece.sizes, piece.edges.tolist(), strict=True)):
        if stop > start:
            path = _part_path(piece.folder, number)
            hashes.append(np.fromfile(path, np.uint64, stop - start, offset=8 * start))
            rows.append(np.fromfile(path, np.int64, stop - start, offset=8 * (size + start)))
    all_hashes, all_rows = np.concatenate(hashes), np.concatenate(rows)
    order = np.argsort(all_hashes, kind="stable")
    all_hashes, all_rows = all_hashes[order], all_rows[order]
    for name, values in (("hashes", all_hashes), ("rows", all_rows)):
        with open(os.path.join(piece.folder, name), "r+b") as stream:
            stream.seek(8 * piece.start)
            stream.write(values.data)
    equal = np.flatnonzero(all_hashes[1:] == all_hashes[:-1])
    if not len(equal):
        return RepeatedUids(0, 0, ())
    first = int(equal[0])
    return RepeatedUids(len(equal), int(all_hashes[first]), (int(all_rows[first]), int(all_rows[first + 1])))


def refuse_duplicates(index: UidIndex, files: Sequence[tuple[str, int]], uid: object = None) -> None:
    """Raise if a uid occurs twice in the rows of some files (path and number of rows, in row order).

    Parameters
    ----------
    index : UidIndex
    files : sequence of (str, int)
    uid : object, optional
        How the first repeated one is written; by default it is found from its hash.

    Raises
    ------
    InputError
        Names the uid and where it is.
    """
    if not index.repeated.n_repeated:
        return
    uid = uid_of_hash(np.uint64(index.repeated.hash)) if uid is None else uid
    ends = np.cumsum([n_rows for _, n_rows in files])
    places = []
    for row in sorted(index.repeated.rows):
        number = int(np.searchsorted(ends, row, side="right"))
        places.append(f"{files[number][0]} (row {row - (int(ends[number - 1]) if number else 0)})")
    how_many = "1 uid is" if index.repeated.n_repeated == 1 else f"{index.repeated.n_repeated} uids are"
    raise InputError(
        f"particles must be there once, but {how_many} repeated, the first being {uid} in "
        f"{places[0]} and {places[1]}: give each particle in one file only"
    )


def uid_of_hash(value: np.uint64) -> int:
    """Undo the hash of a uid."""
    return int(value) * pow(int(MULTIPLIER), -1, 2**64) % 2**64


def hashes_of_integers(uids: np.ndarray) -> np.ndarray:
    """Hash whole numbers of 64 bits; different ones have different hashes."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(uids).astype(np.uint64) * MULTIPLIER


def _part_path(folder: str, number: int) -> str:
    return os.path.join(folder, f"part_{number:06d}")
