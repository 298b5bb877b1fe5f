"""Loops over the bytes of star text, compiled: finding values, telling their type, reading and writing numbers.

They touch each byte once or twice at the speed of memory, and make no object per value. A number whose digits fit
into 53 bits and whose power of ten is at most 22 is read by one correctly rounded operation on exact numbers
(W. D. Clinger, How to read floating point numbers accurately, 1990); the rare others are left to the caller.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SPACE, NEWLINE, HASH = 32, 10, ord("#")
SINGLE, DOUBLE = ord("'"), ord('"')
INTEGER, FLOAT, STRING = 0, 1, 2
LARGEST_EXACT_DIGITS = 15
"""Whole numbers of more digits may not fit a float64 exactly; a column that has one is kept as text."""
_POWERS = 10.0 ** np.arange(23)
_EXACT = 2**53


@njit(cache=True, nogil=True)
def find_values(text, n_columns, starts, stops, line_starts, line_stops):  # type: ignore[no-untyped-def]
    """Find the values of every row; blank lines and lines that begin with # are passed over.

    ``starts`` and ``stops`` (i32[m, n_columns]), ``line_starts`` and ``line_stops`` (i32[m]) are filled. The text
    ends with a newline.

    Returns
    -------
    n_rows, line, count
        ``line`` is -1, or the first line, from 0, with ``count`` values instead of ``n_columns``.
    """
    n_rows, line, position, end = 0, 0, 0, len(text)
    while position < end:
        line_start, count = position, 0
        while text[position] != NEWLINE:
            if text[position] <= SPACE:
                position += 1
                continue
            if count == 0 and text[position] == HASH:
                while text[position] != NEWLINE:
                    position += 1
                break
            start = position
            position = _after_value(text, position)
            if count < n_columns and n_rows < len(starts):
                starts[n_rows, count] = start
                stops[n_rows, count] = position
            count += 1
        position += 1
        if count:
            if count != n_columns:
                return n_rows, line, count
            line_starts[n_rows], line_stops[n_rows] = line_start, position
            n_rows += 1
        line += 1
    return n_rows, -1, 0


@njit(cache=True, nogil=True, inline="always")
def _after_value(text, position):  # type: ignore[no-untyped-def]
    """Return the end of a value.

    A quote opens a value only at its begin, and closes it only before white space: ``5'-end`` is a word.
    """
    quote = text[position]
    if quote in (SINGLE, DOUBLE):
        close = position + 1
        while text[close] != NEWLINE:
            if text[close] == quote and text[close + 1] <= SPACE:
                return close + 1
            close += 1
    while text[position] > SPACE:
        position += 1
    return position


@njit(cache=True, nogil=True, inline="always")
def inner_range(text, start, stop):  # type: ignore[no-untyped-def]
    """Leave away the quotes around a value."""
    first = text[start]
    if first in (SINGLE, DOUBLE) and stop - start >= 2 and text[stop - 1] == first:
        return start + 1, stop - 1
    return start, stop


@njit(cache=True, nogil=True)
def value_types(text, starts, stops, types, not_ascii):  # type: ignore[no-untyped-def]
    """Raise ``types`` (i64[n_columns]) until they hold these values; note columns that are not ASCII."""
    for column in range(starts.shape[1]):
        kind = types[column]
        for row in range(starts.shape[0]):
            start, stop = inner_range(text, starts[row, column], stops[row, column])
            if kind < STRING:
                kind = max(kind, _type_of(text, start, stop))
            if kind == STRING:
                for position in range(start, stop):
                    if text[position] >= 128:
                        not_ascii[column] = True
        types[column] = kind


@njit(cache=True, nogil=True)
def _type_of(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell the type of a value; names like 0012 or 0x1f, and identifiers of 16 digits, are text."""
    position = start
    if position < stop and (text[position] == ord("-") or text[position] == ord("+")):
        position += 1
    if position < stop - 1 and text[start] == ord("0") and _is_digit(text[start + 1]):
        return STRING
    first = position
    while position < stop and _is_digit(text[position]):
        position += 1
    digits = position - first
    if position == stop and digits:
        return STRING if stop - start > LARGEST_EXACT_DIGITS else INTEGER
    if position < stop and text[position] == ord("."):
        position += 1
        while position < stop and _is_digit(text[position]):
            position += 1
            digits += 1
    if not digits:
        return FLOAT if _is_named_number(text, first, stop) else STRING
    if position < stop and (text[position] | 32) == ord("e"):
        position += 1
        if position < stop and (text[position] == ord("-") or text[position] == ord("+")):
            position += 1
        first = position
        while position < stop and _is_digit(text[position]):
            position += 1
        if position == first:
            return STRING
    return FLOAT if position == stop else STRING


@njit(cache=True, nogil=True, inline="always")
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return ord("0") <= byte <= ord("9")


@njit(cache=True, nogil=True)
def _is_named_number(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell whether this is nan, inf or infinity, in any case."""
    for name in ("nan", "inf", "infinity"):
        if len(name) == stop - start:
            same = True
            for place in range(len(name)):
                same = same and (text[start + place] | 32) == ord(name[place])
            if same:
                return True
    return False


@njit(cache=True, nogil=True)
def read_integers(text, starts, stops, values):  # type: ignore[no-untyped-def]
    """Read whole numbers; returns the first row that has none, or -1."""
    for row in range(len(starts)):
        start, stop = inner_range(text, starts[row], stops[row])
        negative = start < stop and text[start] == ord("-")
        if negative or (start < stop and text[start] == ord("+")):
            start += 1
        if stop <= start or stop - start > 18:
            return row
        value = 0
        for position in range(start, stop):
            if not _is_digit(text[position]):
                return row
            value = 10 * value + (text[position] - ord("0"))
        values[row] = -value if negative else value
    return -1


@njit(cache=True, nogil=True)
def read_floats(text, starts, stops, values, hard):  # type: ignore[no-untyped-def]
    """Read numbers; returns how many rows are left to the caller, which are listed in ``hard``."""
    n_hard = 0
    for row in range(len(starts)):
        start, stop = inner_range(text, starts[row], stops[row])
        position, digits, exponent = start, 0, 0
        negative = position < stop and text[position] == ord("-")
        if negative:
            position += 1
        mantissa = np.int64(0)
        while position < stop and _is_digit(text[position]):
            mantissa = 10 * mantissa + (text[position] - ord("0"))
            position += 1
            digits += 1
        if position < stop and text[position] == ord("."):
            position += 1
            while position < stop and _is_digit(text[position]):
                mantissa = 10 * mantissa + (text[position] - ord("0"))
                position += 1
                digits += 1
                exponent -= 1
        if position < stop - 1 and (text[position] | 32) == ord("e") and digits:
            position += 1
            down = text[position] == ord("-")
            if down or text[position] == ord("+"):
                position += 1
            written = 0
            digits += 100 * (position == stop)
            while position < stop and _is_digit(text[position]) and written < 1000:
                written = 10 * written + (text[position] - ord("0"))
                position += 1
            exponent += -written if down else written
        if position != stop or not 0 < digits <= 18 or mantissa >= _EXACT or abs(exponent) > 22:
            hard[n_hard] = row
            n_hard += 1
            continue
        value = np.float64(mantissa)
        value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
        values[row] = -value if negative else value
    return n_hard


@njit(cache=True, nogil=True)
def value_offsets(text, starts, stops, offsets):  # type: ignore[no-untyped-def]
    """Fill i32[n + 1] with where each value begins when they stand one after another, without quotes."""
    total = 0
    for row in range(len(starts)):
        start, stop = inner_range(text, starts[row], stops[row])
        offsets[row] = total
        total += stop - start
    offsets[len(starts)] = total


@njit(cache=True, nogil=True)
def copy_values(text, starts, stops, offsets, result):  # type: ignore[no-untyped-def]
    """Copy values to where `value_offsets` says."""
    for row in range(len(starts)):
        start, _ = inner_range(text, starts[row], stops[row])
        place = offsets[row]
        for position in range(offsets[row + 1] - place):
            result[place + position] = text[start + position]


@njit(cache=True, nogil=True)
def gather_rows(text, offsets, rows, result):  # type: ignore[no-untyped-def]
    """Copy some rows of text one after another; ``result`` has their size."""
    place = 0
    for row in rows:
        start = offsets[row]
        for position in range(offsets[row + 1] - start):
            result[place + position] = text[start + position]
        place += offsets[row + 1] - start


@njit(cache=True, nogil=True)
def replace_values(text, starts, stops, row_edges, columns, values, decimals, changed, result, offsets):  # type: ignore[no-untyped-def]
    """Write rows with new values in some columns, and all other bytes as they are.

    A new value is padded with spaces to the field that the old one had, unless something else than a space stands
    before it.

    Parameters
    ----------
    row_edges : i64[n + 1]
        Row i is ``text[row_edges[i]:row_edges[i + 1]]``.
    columns : i64[m]
        Increasing; -1, at the end, appends a value to the row.
    values : f64[m, n]
        Of magnitudes that fit into 18 digits.
    decimals : i64[m]
        0 writes whole numbers. Zero is never written with a minus sign.
    changed : bool[m, n]
    result : u8
        Large enough.
    offsets : i64[n + 1]
        Filled: where each row begins in ``result``; the last is the size of all.
    """
    place, n_columns = 0, starts.shape[1]
    digits = np.empty(20, np.uint8)
    for row in range(len(row_edges) - 1):
        offsets[row] = place
        position = row_edges[row]
        for number in range(len(columns)):
            if not changed[number, row]:
                continue
            column = columns[number]
            width, before = 0, 0
            if column < 0:
                stop = stops[row, n_columns - 1]
                start = stop
                before = text[starts[row, n_columns - 1] - 1] if n_columns > 1 else SPACE
                width = 13
            else:
                start, stop = starts[row, column], stops[row, column]
                if column > 0:
                    previous = stops[row, column - 1]
                    if text[previous] == SPACE and text[start - 1] == SPACE:
                        start, before = previous, SPACE
                    width = stop - start
            for source in range(position, start):
                result[place + source - position] = text[source]
            place += start - position
            position = stop
            place = _write_number(
                values[number, row], decimals[number], before, width, digits, result, place
            )
        for source in range(position, row_edges[row + 1]):
            result[place + source - position] = text[source]
        place += row_edges[row + 1] - position
    offsets[len(row_edges) - 1] = place


@njit(cache=True, nogil=True)
def _write_number(value, decimals, before, width, digits, result, place):  # type: ignore[no-untyped-def]
    """Write a number: after a space, padded to ``width``; after another byte ``before``; or (0) at once."""
    scaled = np.int64(np.rint(abs(value) * _POWERS[decimals]))
    negative = value < 0 and scaled > 0
    n_digits = 0
    while scaled > 0 or n_digits <= decimals:
        digits[n_digits] = ord("0") + scaled % 10
        scaled //= 10
        n_digits += 1
    length = n_digits + (decimals > 0) + negative
    if before == SPACE:
        for _ in range(max(1, width - length)):
            result[place] = SPACE
            place += 1
    elif before:
        result[place] = before
        place += 1
    if negative:
        result[place] = ord("-")
        place += 1
    for digit in range(n_digits - 1, -1, -1):
        result[place] = digits[digit]
        place += 1
        if digit == decimals and decimals > 0:
            result[place] = ord(".")
            place += 1
    return place
