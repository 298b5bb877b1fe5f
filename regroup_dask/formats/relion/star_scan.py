"""One pass over the rows of a star loop, compiled: what types its values have, or the values themselves.

All loops need a text that ends with a newline. Blank lines and lines that begin with ``#`` are passed over.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from regroup_dask.formats.relion.star_kernels import HASH, NEWLINE, ONE
from regroup_dask.formats.relion.star_values import (
    FLOAT,
    INTEGER,
    STRING,
    has_high_bytes,
    next_newline,
    next_value,
    opens_block,
    scan_value,
    value_stop,
    value_type,
)
from regroup_dask.formats.relion.star_vectors import address_of

SKIPPED = -1


@njit(cache=True, nogil=True)
def survey_rows(buffer, ascii, n_columns, types, not_ascii, class_column, classes, row_stops, row_lines):  # type: ignore[no-untyped-def]
    """Find the types and classes of rows, up to the end of the text or of the block.

    Parameters
    ----------
    buffer : u8
        The text.
    ascii : bool
        No byte of the text is above 127.
    n_columns : int
    types : i64[n_columns]
        Raised until they hold all values.
    not_ascii : bool[n_columns]
        Set for columns of text with bytes above 127.
    class_column : int
    classes : f64[m]
        Filled with the numbers in this column; NaN where it holds none, or one that is hard to read.
    row_stops, row_lines : i32[m]
        Filled: just after the newline of each row; its line, from 0.

    Returns
    -------
    n_rows, n_lines, first, stop, line, count
        First byte of the first row's line (-1: no rows); where the next block begins or the text ends; ``line`` is -1,
        or the first line with ``count`` values instead of ``n_columns``.
    """
    text, end = address_of(buffer), np.uint64(len(buffer))
    n_rows, n_lines, first, position = 0, 0, np.int64(-1), np.uint64(0)
    while position < end:
        line_start, count = position, 0
        while True:
            start, spaces, digits = next_value(text, end, position)
            byte = text[start]
            if byte == NEWLINE:
                position = start
                break
            if count == 0:
                if byte == HASH:
                    position = next_newline(text, end, start)
                    break
                if byte == ord("d") and opens_block(text, start):
                    return n_rows, n_lines, first, np.int64(line_start), -1, 0
            if count >= n_columns:
                position = value_stop(text, end, start, spaces)
            elif types[count] == STRING:
                position = value_stop(text, end, start, spaces)
                if not ascii:
                    not_ascii[count] |= has_high_bytes(text, start, position)
            else:
                position, kind = value_type(text, start, spaces, digits)
                if kind > types[count]:
                    types[count] = kind
                    if kind == STRING and not ascii:
                        not_ascii[count] |= has_high_bytes(text, start, position)
            if count == class_column:
                if types[count] == STRING:
                    classes[n_rows] = np.nan
                else:
                    _, _, value, exact = scan_value(text, end, start, spaces, digits)
                    classes[n_rows] = value if exact else np.nan
            count += 1
        position += ONE
        if count:
            if count != n_columns:
                return n_rows, n_lines, first, np.int64(line_start), n_lines, count
            if first < 0:
                first = np.int64(line_start)
            row_stops[n_rows], row_lines[n_rows] = position, n_lines
            n_rows += 1
        n_lines += 1
    return n_rows, n_lines, first, np.int64(end), -1, 0


@njit(cache=True, nogil=True)
def read_rows(buffer, kinds, slots, places, integers, floats, row, starts, stops, row_stops, hard):  # type: ignore[no-untyped-def]
    """Read rows into columns.

    Parameters
    ----------
    buffer : u8
        The text.
    kinds : i64[n_columns]
        Type of each column; `SKIPPED` for one that is not read.
    slots : i64[n_columns]
        Row of ``integers`` or ``floats`` for a column of numbers.
    places : i64[n_columns]
        Column of ``starts`` and ``stops``; -1 where positions are not asked for.
    integers i64[n_integers, n], floats f64[n_floats, n]
        Filled from column ``row`` on.
    starts, stops : i32[m, n_places]
        Filled; quotes around a value belong to it.
    row_stops : i32[m]
        Filled: just after the newline of each row.
    hard : i64[h, 2]
        Filled with row and column of the numbers left to the caller, as many as fit.

    Returns
    -------
    n_rows, line, count, n_hard
        ``line`` is -1, or the first line with another number of values, or for which there is no room.
    """
    n_columns, n_rows, line, n_hard = len(kinds), 0, 0, 0
    text, position, end = address_of(buffer), np.uint64(0), np.uint64(len(buffer))
    while position < end:
        count = 0
        while True:
            start, spaces, digits = next_value(text, end, position)
            if text[start] == NEWLINE:
                position = start
                break
            if count == 0 and text[start] == HASH:
                position = next_newline(text, end, start)
                break
            if count >= n_columns or row + n_rows >= integers.shape[1]:
                position = value_stop(text, end, start, spaces)
                count += 1
                continue
            kind = kinds[count]
            if kind >= INTEGER and kind <= FLOAT:
                position, found, value, exact = scan_value(text, end, start, spaces, digits)
                if found > kind or not exact:
                    if n_hard < len(hard):
                        hard[n_hard, 0], hard[n_hard, 1] = n_rows, count
                    n_hard += 1
                elif kind == INTEGER:
                    integers[slots[count], row + n_rows] = np.int64(value)
                else:
                    floats[slots[count], row + n_rows] = value
            else:
                position = value_stop(text, end, start, spaces)
            place = places[count]
            if place >= 0:
                starts[n_rows, place], stops[n_rows, place] = start, position
            count += 1
        position += ONE
        if count:
            if count != n_columns or n_rows == len(row_stops):
                return n_rows, line, count, n_hard
            row_stops[n_rows] = position
            n_rows += 1
        line += 1
    return n_rows, -1, 0, n_hard
