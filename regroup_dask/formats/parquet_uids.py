"""Particles of parquet files are there once: their uids, whole numbers or text, are looked at in pieces."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.uid_index import build_uid_index, hashes_of_integers, refuse_duplicates


class _FragmentUids(NamedTuple):
    """The uids of a fragment."""

    fragment: Any

    @property
    def first_row(self) -> int:
        return int(self.fragment.first_row)

    @property
    def n_rows(self) -> int:
        return int(self.fragment.n_rows)

    def read_hashes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        column = self.fragment.read(["uid"]).column("uid")
        if column.null_count:
            row = self.first_row + int(np.flatnonzero(np.asarray(column.is_null()))[0])
            raise InputError(f"{self.fragment.path}: row {row} has no uid, by which particles are known")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_integer(column.type):
            return hashes_of_integers(column.to_numpy()), ()
        array = column.cast(pa.large_string()).combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        _, offsets, text = array.buffers()
        hashes = np.empty(len(array), np.uint64)
        places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        _hash_text(np.frombuffer(text or b"", np.uint8), places.astype(np.uint64), hashes)
        return hashes, ()


def refuse_repeated_uids(fragments: Sequence[Any], *, scratch: str | None, run: RunPieces) -> None:
    """Raise if a particle is there twice.

    Raises
    ------
    InputError
        Names the uid and where it is.
    """
    if scratch is not None and storage.is_remote(scratch):
        # An index is sorted in place, on a disk; other machines do not see this one's.
        scratch, run = None, in_this_process
    if scratch is not None:
        os.makedirs(scratch, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="parquet-uids-", dir=scratch)
    try:
        index = build_uid_index([_FragmentUids(fragment) for fragment in fragments], scratch=folder, run=run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not index.repeated.n_repeated:
        return
    uids = [_uid_of_row(fragments, row) for row in index.repeated.rows]
    if uids[0] == uids[1]:  # different texts may, once in a blue moon, have one hash
        sizes: dict[str, int] = {}
        for fragment in fragments:
            sizes[fragment.path] = sizes.get(fragment.path, 0) + fragment.n_rows
        refuse_duplicates(index, list(sizes.items()), uids[0])


def _uid_of_row(fragments: Sequence[Any], row: int) -> Any:
    fragment = next(item for item in fragments if item.first_row <= row < item.first_row + item.n_rows)
    return fragment.read(["uid"]).column("uid")[row - fragment.first_row].as_py()


@njit(cache=True, nogil=True)
def _hash_text(text, places, hashes):  # type: ignore[no-untyped-def]
    """Hash texts to 64 bits (FNV-1a, and the finaliser of MurmurHash3 to spread the bits)."""
    for row in range(len(hashes)):
        value = np.uint64(0xCBF29CE484222325)
        for place in range(places[row], places[row + 1]):
            value = (value ^ np.uint64(text[place])) * np.uint64(0x100000001B3)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        hashes[row] = value ^ (value >> np.uint64(33))
