"""Where the particles of one output folder are in another: counts over both groupings, whatever the number of rows.

Particles are told apart by what identifies them in both folders. They are read in passes, each of a share of all keys, so
that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.parquet_files import opened_parquet

KEYS = ("uid", "rlnImageName")
ROW = "input_row"
ROWS_PER_PASS = 10**7
# Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): spreads keys that follow each other.
SPREAD = np.uint64(0x9E3779B97F4A7C15)


class ParticleOverlap(NamedTuple):
    """Particles counted by where they are in two folders.

    Attributes
    ----------
    counts
        int64 (K1 + 1, K2 + 1): superclass in the first and in the second folder; the last row and column are remaining.
    only_first, only_second
        Particles that the other folder does not have.
    repeated
        Rows that carry the key of an earlier one of their folder; they are not counted.
    key
        The column that told them apart.
    """

    counts: np.ndarray
    only_first: int
    only_second: int
    repeated: int
    key: str


class _Files(NamedTuple):
    """Parquet files of one folder and the superclass of each, -1 for remaining."""

    paths: tuple[tuple[str, int], ...]
    n_superclasses: int
    names: frozenset[str]
    n_rows: int


def particle_overlap(
    first: Path, second: Path, *, n_first: int, n_second: int, same_rows: bool, rows_per_pass: int = ROWS_PER_PASS
) -> ParticleOverlap | None:
    """Count where each particle is in two output folders.

    Parameters
    ----------
    first, second
        Output folders.
    n_first, n_second
        Their numbers of superclasses.
    same_rows
        Both were made from the same particle files, so that the row in the input tells particles apart too.
    rows_per_pass
        Rows of one folder that are held at a time.

    Returns
    -------
    ParticleOverlap or None
        None where nothing tells the particles of both apart, or a folder has none.
    """
    files = _files(first, n_first), _files(second, n_second)
    if not all(folder.paths for folder in files):
        return None
    shared = files[0].names & files[1].names
    key = next((name for name in KEYS if name in shared), ROW if same_rows and ROW in shared else None)
    if key is None:
        return None
    n_passes = max(1, -(-max(folder.n_rows for folder in files) // rows_per_pass))
    counts = np.zeros((n_first + 1, n_second + 1), np.int64)
    only = [0, 0]
    repeated = 0
    for number in range(n_passes):
        (keys, labels), (other_keys, other_labels) = (_share(folder, key, number, n_passes) for folder in files)
        known, repeats = _once(keys, labels)
        other, other_repeats = _once(other_keys, other_labels)
        repeated += repeats + other_repeats
        shared_keys, here, there = np.intersect1d(known[0], other[0], assume_unique=True, return_indices=True)
        np.add.at(counts, (known[1][here], other[1][there]), 1)
        only[0] += len(known[0]) - len(shared_keys)
        only[1] += len(other[0]) - len(shared_keys)
    return ParticleOverlap(counts, only[0], only[1], repeated, key)


def _files(folder: Path, n_superclasses: int) -> _Files:
    paths = [
        (path, number)
        for number in range(n_superclasses)
        for path in storage.matching_files(f"{folder}/particles/superclass={number}/*.parquet")
    ]
    paths += [(path, -1) for path in storage.matching_files(f"{folder}/remaining/*.parquet")]
    try:
        names, n_rows = frozenset[str](), 0
        for number, (path, _) in enumerate(paths):
            with opened_parquet(path) as file:
                names = frozenset(file.schema_arrow.names) if number == 0 else names
                n_rows += file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"The particles in {folder} cannot be read: {error}.") from error
    return _Files(tuple(paths), n_superclasses, names, n_rows)


def _share(folder: _Files, key: str, number: int, n_passes: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of one pass, as uint64, and the superclass of each, with the number of superclasses for remaining."""
    keys, labels = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for path, superclass in folder.paths:
        for part in _keys_of(path, key):
            mine = part if n_passes == 1 else part[(part * SPREAD >> np.uint64(33)) % np.uint64(n_passes) == number]
            keys.append(mine)
            labels.append(np.full(len(mine), superclass if superclass >= 0 else folder.n_superclasses, np.int32))
    return np.concatenate(keys), np.concatenate(labels)


def _batches(path: str, key: str) -> Iterator[pa.RecordBatch]:
    with opened_parquet(path) as file:
        yield from file.iter_batches(columns=[key])


def _keys_of(path: str, key: str) -> Iterator[np.ndarray]:
    try:
        for batch in _batches(path, key):
            column = batch.column(0)
            if pa.types.is_integer(column.type):
                yield column.to_numpy(zero_copy_only=False).astype(np.uint64)
            else:
                from pandas.util import hash_array

                yield hash_array(np.asarray(column.to_pylist(), dtype=object), categorize=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _once(keys: np.ndarray, labels: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Each key once, in order, with the label of its first row; and how many rows were left out."""
    unique, where = np.unique(keys, return_index=True)
    return (unique, labels[where]), len(keys) - len(unique)
