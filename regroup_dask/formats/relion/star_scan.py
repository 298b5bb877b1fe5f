"""One pass over the rows of a star loop, compiled: what types its values have, or the values themselves.

Each byte is looked at once or twice, and no object is made per value. A number whose digits fit into 53 bits and whose
power of ten is at most 22 is read by one correctly rounded operation on exact numbers (W. D. Clinger, How to read
floating point numbers accurately, 1990); the rare others are left to the caller.

All loops need a text that ends with a newline. Blank lines and lines that begin with ``#`` are passed over.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from regroup_dask.formats.relion.star_kernels import HASH, NEWLINE, ONE, SPACE, after_value, inner_range

INTEGER, FLOAT, STRING = 0, 1, 2
SKIPPED = -1
LARGEST_EXACT_DIGITS = 15
"""Whole numbers of more digits may not fit a float64 exactly; a column that has one is kept as text."""
MINUS, PLUS, POINT, ZERO = ord("-"), ord("+"), ord("."), ord("0")
_POWERS = 10.0 ** np.arange(23)
_EXACT = 2**53


@njit(cache=True, nogil=True)
def survey_rows(text, n_columns, types, not_ascii, class_column, classes, row_stops, row_lines):  # type: ignore[no-untyped-def]
    """Find the types and classes of rows, up to the end of the text or of the block.

    Parameters
    ----------
    text : u8
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
    n_rows, n_lines, first, position, end = 0, 0, np.int64(-1), np.uint64(0), np.uint64(len(text))
    while position < end:
        line_start, count = position, 0
        while text[position] != NEWLINE:
            if text[position] <= SPACE:
                position += ONE
                continue
            if count == 0:
                if text[position] == HASH:
                    while text[position] != NEWLINE:
                        position += ONE
                    break
                if text[position] == ord("d") and _opens_block(text, position):
                    return n_rows, n_lines, first, np.int64(line_start), -1, 0
            start = position
            if count >= n_columns:
                position = after_value(text, position)
            elif types[count] == STRING:
                position = after_value(text, position)
                for place in range(start, position):
                    if text[place] >= 128:
                        not_ascii[count] = True
            else:
                position, kind, value, exact = _scan_value(text, start)
                if kind > types[count]:
                    types[count] = kind
                    if kind == STRING:
                        for place in range(start, position):
                            if text[place] >= 128:
                                not_ascii[count] = True
            if count == class_column:
                if types[count] == STRING:
                    classes[n_rows] = np.nan
                else:
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
def read_rows(text, kinds, slots, places, integers, floats, row, starts, stops, row_stops, hard):  # type: ignore[no-untyped-def]
    """Read rows into columns.

    Parameters
    ----------
    text : u8
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
    position, end = np.uint64(0), np.uint64(len(text))
    while position < end:
        count = 0
        while text[position] != NEWLINE:
            if text[position] <= SPACE:
                position += ONE
                continue
            if count == 0 and text[position] == HASH:
                while text[position] != NEWLINE:
                    position += ONE
                break
            start = position
            if count >= n_columns or row + n_rows >= integers.shape[1]:
                position = after_value(text, position)
                count += 1
                continue
            kind = kinds[count]
            if kind in (INTEGER, FLOAT):
                position, found, value, exact = _scan_value(text, start)
                if found > kind or not exact:
                    if n_hard < len(hard):
                        hard[n_hard, 0], hard[n_hard, 1] = n_rows, count
                    n_hard += 1
                elif kind == INTEGER:
                    integers[slots[count], row + n_rows] = np.int64(value)
                else:
                    floats[slots[count], row + n_rows] = value
            else:
                position = after_value(text, position)
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


@njit(cache=True, nogil=True, inline="always")
def _scan_value(text, start):  # type: ignore[no-untyped-def]
    """Return end, type and number of a value, and whether the number is exact; the number of a text is 0."""
    position = start
    negative = text[position] == MINUS
    if negative or text[position] == PLUS:
        position += ONE
    first, mantissa = position, np.int64(0)
    digit = np.int64(text[position]) - ZERO
    while 0 <= digit <= 9:
        mantissa = 10 * mantissa + digit
        position += ONE
        digit = np.int64(text[position]) - ZERO
    digits, exponent, kind = np.int64(position - first), np.int64(0), INTEGER
    if digit == POINT - ZERO:
        position += ONE
        first = position
        digit = np.int64(text[position]) - ZERO
        while 0 <= digit <= 9:
            mantissa = 10 * mantissa + digit
            position += ONE
            digit = np.int64(text[position]) - ZERO
        exponent, kind = np.int64(position - first), FLOAT
        digits += exponent
    if digits == 0 or text[position] > SPACE:
        return _scan_unusual(text, start)
    value, exact = np.float64(mantissa), digits <= 18 and mantissa < _EXACT and exponent <= 22
    if exact:
        value = value / _POWERS[exponent]
    length = np.int64(position - start)
    if text[start] == ZERO and length > 1 and text[start + ONE] != POINT:
        kind = STRING  # a name like 0012
    elif kind == INTEGER and length > LARGEST_EXACT_DIGITS:
        kind = STRING
    return position, kind, -value if negative else value, exact


@njit(cache=True, nogil=True)
def _scan_unusual(text, start):  # type: ignore[no-untyped-def]
    """What `_scan_value` says, of a value that is quoted, has an exponent, is nan or infinite, or is text."""
    stop = after_value(text, start)
    first, last = inner_range(text, start, stop)
    kind = type_of(text, first, last)
    if kind == STRING:
        return stop, kind, 0.0, True
    negative = text[first] == MINUS
    position = first + ONE if negative or text[first] == PLUS else first
    if (text[position] | 32) == ord("n"):
        return stop, kind, np.nan, True
    if (text[position] | 32) == ord("i"):
        return stop, kind, -np.inf if negative else np.inf, True
    digits, exponent, mantissa, after_point = 0, np.int64(0), np.int64(0), False
    while position < last and (is_digit(text[position]) or text[position] == POINT):
        if text[position] == POINT:
            after_point = True
        else:
            mantissa = 10 * mantissa + (np.int64(text[position]) - ZERO)
            digits += 1
            exponent -= after_point
        position += ONE
    if position < last:
        position += ONE
        down = text[position] == MINUS
        if down or text[position] == PLUS:
            position += ONE
        written = np.int64(0)
        while position < last and written < 1000:
            written = 10 * written + (np.int64(text[position]) - ZERO)
            position += ONE
        exponent += -written if down else written
    exact = digits <= 18 and mantissa < _EXACT and abs(exponent) <= 22
    value = np.float64(mantissa)
    if exact:
        value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
    return stop, kind, -value if negative else value, exact


@njit(cache=True, nogil=True)
def _opens_block(text, position):  # type: ignore[no-untyped-def]
    """Tell whether ``data_`` stands here, with nothing after it on its line but a comment."""
    name = (ord("d"), ord("a"), ord("t"), ord("a"), ord("_"))
    for place in range(5):
        if text[position + np.uint64(place)] != name[place]:
            return False
    while text[position] > SPACE and text[position] != HASH:
        position += ONE
    while text[position] <= SPACE and text[position] != NEWLINE:
        position += ONE
    return text[position] == NEWLINE or text[position] == HASH


@njit(cache=True, nogil=True)
def type_of(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell the type of a value; names like 0012 or 0x1f, and identifiers of 16 digits, are text."""
    position = start
    if position < stop and (text[position] == MINUS or text[position] == PLUS):
        position += ONE
    if start + ONE < stop and text[start] == ZERO and is_digit(text[start + ONE]):
        return STRING
    first = position
    while position < stop and is_digit(text[position]):
        position += ONE
    digits = np.int64(position - first)
    if position == stop and digits:
        return STRING if np.int64(stop - start) > LARGEST_EXACT_DIGITS else INTEGER
    if position < stop and text[position] == POINT:
        position += ONE
        while position < stop and is_digit(text[position]):
            position += ONE
            digits += 1
    if not digits:
        return FLOAT if _is_named_number(text, first, stop) else STRING
    if position < stop and (text[position] | 32) == ord("e"):
        position += ONE
        if position < stop and (text[position] == MINUS or text[position] == PLUS):
            position += ONE
        first = position
        while position < stop and is_digit(text[position]):
            position += ONE
        if position == first:
            return STRING
    return FLOAT if position == stop else STRING


@njit(cache=True, nogil=True, inline="always")
def is_digit(byte):  # type: ignore[no-untyped-def]
    """Tell whether a byte is one of 0 to 9."""
    return ord("0") <= byte <= ord("9")


@njit(cache=True, nogil=True)
def _is_named_number(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell whether this is nan, inf or infinity, in any case."""
    for name in ("nan", "inf", "infinity"):
        if len(name) == np.int64(stop - start):
            same = True
            for place in range(len(name)):
                same = same and (text[start + np.uint64(place)] | 32) == ord(name[place])
            if same:
                return True
    return False
