"""Finding rows by their ``uid``, in files larger than memory.

The index is two plain binary files in a scratch folder: hashed uids in increasing order (u64), and the row of
each (i64). The hash is the product with an odd constant modulo 2^64, which is a bijection: equal hashes are
equal uids, and uids of any kind (random or counted up) spread evenly, so that they can be distributed into
buckets by their upper bits and each bucket sorted in memory. Building and looking up map or hold a window of
`BUCKET_ROWS` rows at a time, so that memory stays below 100 MB whatever the number of rows; the index takes
16 bytes of disk per row.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.remote_array import mapped

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""
BUCKET_ROWS = 2**20


class UidIndex(NamedTuple):
    """A sorted index on disk; small and picklable."""

    folder: str
    n_rows: int

    def find(self, uids: np.ndarray) -> np.ndarray:
        """Return the row of each uid, -1 where it is not there. i64[n]."""
        hashes = _hash(uids)
        order = np.argsort(hashes)
        result = np.full(len(uids), -1, np.int64)
        result[order] = self.find_sorted(hashes[order])
        return result

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


def build_uid_index(chunks: Iterator[np.ndarray], *, scratch: str, n_rows: int) -> UidIndex:
    """Build an index from the uids of all rows, given piece by piece in row order."""
    folder = tempfile.mkdtemp(prefix="uids-", dir=scratch)
    bits = max(0, int(np.ceil(np.log2(max(n_rows, 1) / BUCKET_ROWS))))
    spooled = os.path.join(folder, "unsorted")
    sizes = np.zeros(2**bits, np.int64)
    with open(spooled, "wb") as stream:
        for uids in chunks:
            hashes = _hash(uids)
            sizes += np.bincount(_bucket(hashes, bits), minlength=2**bits)
            hashes.tofile(stream)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    with (
        open(spooled, "rb") as stream,
        open(os.path.join(folder, "hashes"), "w+b") as hash_stream,
        open(os.path.join(folder, "rows"), "w+b") as row_stream,
    ):
        filled = starts[:-1].copy()
        for first in range(0, n_rows, BUCKET_ROWS):
            hashes = np.fromfile(stream, np.uint64, min(BUCKET_ROWS, n_rows - first))
            bucket = _bucket(hashes, bits)
            order = np.argsort(bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=2**bits))
            for number, (start, stop) in enumerate(pairwise([0, *ends.tolist()])):
                part = order[start:stop]
                _write_at(hash_stream, int(filled[number]), hashes[part])
                _write_at(row_stream, int(filled[number]), part + first)
                filled[number] += len(part)
        for start, stop in pairwise(starts.tolist()):
            hashes = _read_at(hash_stream, start, stop, np.uint64)
            order = np.argsort(hashes, kind="stable")
            _write_at(hash_stream, start, hashes[order])
            _write_at(row_stream, start, _read_at(row_stream, start, stop, np.int64)[order])
    os.unlink(spooled)
    return UidIndex(folder, n_rows)


def refuse_duplicates(index: UidIndex, files: Sequence[tuple[str, int]]) -> None:
    """Raise if a uid occurs twice in the rows of some files (path and number of rows, in row order).

    Raises
    ------
    InputError
        Names the uid and where it is.
    """
    n_duplicates, first = 0, -1
    for start in range(0, index.n_rows, BUCKET_ROWS):
        part = index.hashes(start, BUCKET_ROWS + 1)
        equal = np.flatnonzero(part[1:] == part[:-1])
        if len(equal) and first < 0:
            first = start + int(equal[0])
        n_duplicates += len(equal)
    if first < 0:
        return
    uid = uid_of_hash(index.hashes(first, 1)[0])
    ends = np.cumsum([n_rows for _, n_rows in files])
    places = []
    for row in sorted(index.rows(first, 2).tolist()):
        number = int(np.searchsorted(ends, row, side="right"))
        places.append(f"{files[number][0]} (row {row - (int(ends[number - 1]) if number else 0)})")
    raise InputError(
        f"particles must be there once, but {n_duplicates} uids are repeated, the first being {uid} in "
        f"{places[0]} and {places[1]}: give each particle in one file only"
    )


def uid_of_hash(value: np.uint64) -> int:
    """Undo the hash of a uid."""
    return int(value) * pow(int(MULTIPLIER), -1, 2**64) % 2**64


def _read_at(stream: BinaryIO, start: int, stop: int, kind: type) -> np.ndarray:
    stream.seek(start * 8)
    return np.fromfile(stream, kind, stop - start)


def _write_at(stream: BinaryIO, start: int, values: np.ndarray) -> None:
    stream.seek(start * 8)
    values.tofile(stream)


def _hash(uids: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(uids, dtype=np.uint64) * MULTIPLIER


def _bucket(hashes: np.ndarray, bits: int) -> np.ndarray:
    if bits == 0:
        return np.zeros(len(hashes), np.int64)
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)
