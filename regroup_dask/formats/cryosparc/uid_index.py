"""Finding rows by their ``uid``, in files larger than memory.

The index is two NumPy files in a scratch folder: hashed uids in increasing order, and the row of each. The
hash is the product with an odd constant modulo 2^64, which is a bijection: equal hashes are equal uids, and
uids of any kind (random or counted up) spread evenly, so that they can be distributed into buckets by their
upper bits and each bucket sorted in memory. Building takes about 100 MB whatever the number of rows; looking
up maps the index read-only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, odd (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""
BUCKET_ROWS = 2**20


class UidIndex(NamedTuple):
    """A sorted index on disk; small and picklable."""

    hash_path: str
    row_path: str

    def find(self, uids: np.ndarray) -> np.ndarray:
        """Return the row of each uid, -1 where it is not there. i64[n]."""
        hashes = _hash(uids)
        known = load_hashes(self)
        rows = np.load(self.row_path, mmap_mode="r", allow_pickle=False)
        if not len(known):
            return np.full(len(uids), -1, np.int64)
        order = np.argsort(hashes)
        result = np.empty(len(uids), np.int64)
        # Sorted queries walk through the index once, page by page.
        place = np.minimum(np.searchsorted(known, hashes[order]), len(known) - 1)
        result[order] = np.where(known[place] == hashes[order], rows[place], -1)
        return result


def build_uid_index(chunks: Iterator[np.ndarray], *, n_rows: int, scratch: str) -> UidIndex:
    """Build an index from the uids of all rows, given piece by piece in row order."""
    folder = tempfile.mkdtemp(prefix="uids-", dir=scratch)
    index = UidIndex(os.path.join(folder, "hash.npy"), os.path.join(folder, "row.npy"))
    bits = max(0, int(np.ceil(np.log2(max(n_rows, 1) / BUCKET_ROWS))))
    spooled = os.path.join(folder, "unsorted")
    sizes = np.zeros(2**bits, np.int64)
    with open(spooled, "wb") as stream:
        for uids in chunks:
            hashes = _hash(uids)
            sizes += np.bincount(_bucket(hashes, bits), minlength=2**bits)
            hashes.tofile(stream)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    hashes_out = np.lib.format.open_memmap(index.hash_path, "w+", np.uint64, (n_rows,))
    rows_out = np.lib.format.open_memmap(index.row_path, "w+", np.int64, (n_rows,))
    filled = starts[:-1].copy()
    with open(spooled, "rb") as stream:
        for first in range(0, n_rows, BUCKET_ROWS):
            hashes = np.fromfile(stream, np.uint64, min(BUCKET_ROWS, n_rows - first))
            bucket = _bucket(hashes, bits)
            order = np.argsort(bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=2**bits))
            for number, stop in enumerate(ends):
                part = order[(ends[number - 1] if number else 0) : stop]
                place = slice(filled[number], filled[number] + len(part))
                hashes_out[place] = hashes[part]
                rows_out[place] = part + first
                filled[number] += len(part)
    os.unlink(spooled)
    for start, stop in pairwise(starts):
        order = np.argsort(hashes_out[start:stop], kind="stable")
        hashes_out[start:stop] = hashes_out[start:stop][order]
        rows_out[start:stop] = rows_out[start:stop][order]
    return index


def refuse_duplicates(index: UidIndex, files: Sequence[tuple[str, int]]) -> None:
    """Raise if a uid occurs twice in the rows of some files (path and number of rows, in row order).

    Raises
    ------
    InputError
        Names the uid and where it is.
    """
    hashes = load_hashes(index)
    rows = np.load(index.row_path, mmap_mode="r", allow_pickle=False)
    n_duplicates, first = 0, -1
    for start in range(0, max(len(hashes) - 1, 0), BUCKET_ROWS):
        part = hashes[start : start + BUCKET_ROWS + 1]
        equal = np.flatnonzero(part[1:] == part[:-1])
        if len(equal) and first < 0:
            first = start + int(equal[0])
        n_duplicates += len(equal)
    if first < 0:
        return
    uid = uid_of_hash(hashes[first])
    ends = np.cumsum([n_rows for _, n_rows in files])
    places = []
    for row in sorted((int(rows[first]), int(rows[first + 1]))):
        number = int(np.searchsorted(ends, row, side="right"))
        places.append(f"{files[number][0]} (row {row - (int(ends[number - 1]) if number else 0)})")
    raise InputError(
        f"particles must be there once, but {n_duplicates} uids are repeated, the first being {uid} in "
        f"{places[0]} and {places[1]}: give each particle in one file only"
    )


def load_hashes(index: UidIndex) -> np.ndarray:
    """Map the sorted hashes read-only. u64[n_rows]."""
    return np.asarray(np.load(index.hash_path, mmap_mode="r", allow_pickle=False))


def uid_of_hash(value: np.uint64) -> int:
    """Undo the hash of a uid."""
    return int(value) * pow(int(MULTIPLIER), -1, 2**64) % 2**64


def _hash(uids: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(uids, dtype=np.uint64) * MULTIPLIER


def _bucket(hashes: np.ndarray, bits: int) -> np.ndarray:
    if bits == 0:
        return np.zeros(len(hashes), np.int64)
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)
