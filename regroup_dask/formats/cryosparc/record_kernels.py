"""Loops over the bytes of records, compiled: rows and pieces of rows moved from one layout to another.

Records are seen as bytes, u8[n, itemsize], so that one loop serves every record type and nothing is converted.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def bytes_of_records(records: np.ndarray) -> np.ndarray:
    """View records [n] as u8[n, itemsize]."""
    return np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)


def take_records(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some records in the order of ``rows``."""
    result = np.empty(len(rows), records.dtype)
    if len(rows):
        _take(bytes_of_records(records), np.asarray(rows, np.int64), bytes_of_records(result))
    return result


@njit(cache=True, nogil=True)
def _take(source, rows, target):  # type: ignore[no-untyped-def]
    for place in range(len(rows)):
        row = np.uint64(rows[place])
        for byte in range(np.uint64(source.shape[1])):
            target[place, byte] = source[row, byte]


@njit(cache=True, nogil=True)
def copy_pieces(source, rows, selected, selectors, source_starts, target_starts, sizes, target):  # type: ignore[no-untyped-def]
    """Make each target record of pieces of one source record.

    Parameters
    ----------
    source : u8[n, source itemsize]
    rows : i64[m]
        Source record of each target record.
    selected : i32[m, n_selectors]
        Which of a piece's places each selector takes, row by row.
    selectors : i64[n_pieces]
        Selector of each piece; -1 for a piece that is always at its first place.
    source_starts : i64[n_pieces, n_places]
    target_starts, sizes : i64[n_pieces]
    target : u8[m, target itemsize]
        Filled.
    """
    for place in range(len(rows)):
        row = np.uint64(rows[place])
        for piece in range(len(sizes)):
            selector = selectors[piece]
            # Unsigned, or the compiler would look for negative positions at each byte.
            start = np.uint64(source_starts[piece, 0 if selector < 0 else selected[place, selector]])
            target_start = np.uint64(target_starts[piece])
            for byte in range(np.uint64(sizes[piece])):
                target[place, target_start + byte] = source[row, start + byte]


@njit(cache=True, nogil=True)
def text_offsets(text, offsets):  # type: ignore[no-untyped-def]
    """Fill i32[n + 1] with where each text begins without the NULs at its end; ``text`` is u8[n, width]."""
    total = 0
    for row in range(text.shape[0]):
        offsets[row] = total
        length = text.shape[1]
        while length > 0 and text[row, length - 1] == 0:
            length -= 1
        total += length
    offsets[text.shape[0]] = total


@njit(cache=True, nogil=True)
def pack_text(text, offsets, packed):  # type: ignore[no-untyped-def]
    """Put texts of fixed width one after another."""
    for row in range(text.shape[0]):
        start = np.uint64(offsets[row])
        for byte in range(np.uint64(offsets[row + 1]) - start):
            packed[start + byte] = text[row, byte]


@njit(cache=True, nogil=True)
def spread_text(packed, offsets, text):  # type: ignore[no-untyped-def]
    """Undo `pack_text`, with NULs to the full width."""
    for row in range(text.shape[0]):
        start, length = np.uint64(offsets[row]), np.uint64(offsets[row + 1] - offsets[row])
        for byte in range(length):
            text[row, byte] = packed[start + byte]
        for byte in range(length, np.uint64(text.shape[1])):
            text[row, byte] = 0
