"""Loops over the bytes of star text, compiled: finding values, copying them, and writing rows with new ones.

They touch each byte once or twice at the speed of memory, and make no object per value.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from regroup_dask.formats.relion.star_vectors import address_of, copy_bytes

SPACE, NEWLINE, HASH = 32, 10, ord("#")
SINGLE, DOUBLE = ord("'"), ord('"')
ONE, TEN = np.uint64(1), np.uint64(10)
"""Positions are u64: with signed ones the compiler makes every access look for an index from the end."""
REPLACE, FIRST, APPEND = 0, 1, 2
APPENDED_WIDTH = 13
_POWERS = 10.0 ** np.arange(23)


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
    n_rows, line, position, end = 0, 0, np.uint64(0), np.uint64(len(text))
    while position < end:
        line_start, count = position, 0
        while text[position] != NEWLINE:
            if text[position] <= SPACE:
                position += ONE
                continue
            if count == 0 and text[position] == HASH:
                while text[position] != NEWLINE:
                    position += ONE
                break
            start = position
            position = after_value(text, position)
            if count < n_columns and n_rows < len(starts):
                starts[n_rows, count] = start
                stops[n_rows, count] = position
            count += 1
        position += ONE
        if count:
            if count != n_columns:
                return n_rows, line, count
            line_starts[n_rows], line_stops[n_rows] = line_start, position
            n_rows += 1
        line += 1
    return n_rows, -1, 0


@njit(cache=True, nogil=True, inline="always")
def after_value(text, position):  # type: ignore[no-untyped-def]
    """Return the end of a value that begins at a position (u64).

    A quote opens a value only at its begin, and closes it only before white space: ``5'-end`` is a word.
    """
    quote = text[position]
    if quote in (SINGLE, DOUBLE):
        close = position + ONE
        while text[close] != NEWLINE:
            if text[close] == quote and text[close + ONE] <= SPACE:
                return close + ONE
            close += ONE
    while text[position] > SPACE:
        position += ONE
    return position


@njit(cache=True, nogil=True, inline="always")
def inner_range(text, start, stop):  # type: ignore[no-untyped-def]
    """Leave away the quotes around a value (u64 positions)."""
    first = text[start]
    if first in (SINGLE, DOUBLE) and stop - start > ONE and text[stop - ONE] == first:
        return start + ONE, stop - ONE
    return start, stop


@njit(cache=True, nogil=True)
def value_offsets(buffer, starts, stops, offsets):  # type: ignore[no-untyped-def]
    """Fill i32[n + 1] with where each value begins when they stand one after another, without quotes."""
    text, total = address_of(buffer), np.uint64(0)
    for row in range(len(starts)):
        start, stop = inner_range(text, np.uint64(starts[row]), np.uint64(stops[row]))
        offsets[row] = total
        total += stop - start
    offsets[len(starts)] = total


@njit(cache=True, nogil=True)
def copy_values(buffer, starts, stops, offsets, copies):  # type: ignore[no-untyped-def]
    """Copy values to where `value_offsets` says."""
    text, result = address_of(buffer), address_of(copies)
    for row in range(len(starts)):
        start, _ = inner_range(text, np.uint64(starts[row]), np.uint64(stops[row]))
        place = np.uint64(offsets[row])
        copy_bytes(text, start, np.uint64(offsets[row + 1]) - place, result, place)


@njit(cache=True, nogil=True)
def gather_rows(buffer, offsets, rows, gathered):  # type: ignore[no-untyped-def]
    """Copy some rows of text one after another; ``gathered`` has their size."""
    text, result, place = address_of(buffer), address_of(gathered), np.uint64(0)
    for row in rows:
        start = np.uint64(offsets[row])
        n_bytes = np.uint64(offsets[row + 1]) - start
        copy_bytes(text, start, n_bytes, result, place)
        place += n_bytes


@njit(cache=True, nogil=True)
def replace_values(buffer, starts, stops, row_edges, places, ways, values, decimals, changed, written, offsets):  # type: ignore[no-untyped-def]
    """Write rows with new values in some columns, and all other bytes as they are.

    A new value is padded with spaces to the field that the old one had, unless something else than a space stands
    before it.

    Parameters
    ----------
    buffer : u8
        The text.
    starts, stops : i32[n, n_places]
        Positions of some values of each row.
    row_edges : i64[n + 1]
        Row i is ``buffer[row_edges[i]:row_edges[i + 1]]``.
    places : i64[m]
        Which of them change, in the order in which they stand in a row.
    ways : i64[m]
        `REPLACE` a value, the `FIRST` of its row, or `APPEND` one after it, the last of its row.
    values : f64[m, n]
        Of magnitudes that fit into 18 digits.
    decimals : i64[m]
        0 writes whole numbers. Zero is never written with a minus sign.
    changed : bool[m, n]
    written : u8
        Large enough.
    offsets : i64[n + 1]
        Filled: where each row begins in ``written``; the last is the size of all.
    """
    text, result, place = address_of(buffer), address_of(written), np.uint64(0)
    room = np.empty(20, np.uint8)
    digits = address_of(room)
    for row in range(len(row_edges) - 1):
        offsets[row] = place
        position, row_stop = np.uint64(row_edges[row]), np.uint64(row_edges[row + 1])
        for number in range(len(places)):
            if not changed[number, row]:
                continue
            start, stop = np.uint64(starts[row, places[number]]), np.uint64(stops[row, places[number]])
            width, before = np.int64(stop - start), np.uint8(0)
            if ways[number] == APPEND:
                before = text[start - ONE] if start > np.uint64(row_edges[row]) else np.uint8(SPACE)
                before = np.uint8(SPACE) if before == NEWLINE else before
                start, width = stop, np.int64(APPENDED_WIDTH)
            elif ways[number] == REPLACE:
                previous = start
                while text[previous - ONE] <= SPACE:
                    previous -= ONE
                if text[previous] == SPACE and text[start - ONE] == SPACE:
                    start, before = previous, np.uint8(SPACE)
                width = np.int64(stop - start)
            copy_bytes(text, position, start - position, result, place)
            place += start - position
            position = stop
            place = _write_number(
                values[number, row], decimals[number], before, width, digits, result, place
            )
        copy_bytes(text, position, row_stop - position, result, place)
        place += row_stop - position
    offsets[len(row_edges) - 1] = place


@njit(cache=True, nogil=True)
def _write_number(value, decimals, before, width, digits, result, place):  # type: ignore[no-untyped-def]
    """Write a number: after a space, padded to ``width``; after another byte ``before``; or (0) at once."""
    scaled = np.uint64(np.rint(abs(value) * _POWERS[decimals]))
    negative = value < 0 and scaled > 0
    n_digits = 0
    while scaled > 0 or n_digits <= decimals:
        digits[n_digits] = ord("0") + scaled % TEN
        scaled //= TEN
        n_digits += 1
    length = n_digits + (decimals > 0) + negative
    if before == SPACE:
        for _ in range(max(1, width - length)):
            result[place] = SPACE
            place += ONE
    elif before:
        result[place] = before
        place += ONE
    if negative:
        result[place] = ord("-")
        place += ONE
    for digit in range(n_digits - 1, -1, -1):
        result[place] = digits[digit]
        place += ONE
        if digit == decimals and decimals > 0:
            result[place] = ord(".")
            place += ONE
    return place
