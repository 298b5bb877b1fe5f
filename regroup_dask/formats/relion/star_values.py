"""Values of star text, compiled: where one begins and ends, its type, and the number it is.

Bytes are looked at sixty-four at a time, and no object is made per value. A number whose digits fit into 53 bits and whose
power of ten is at most 22 is read by one correctly rounded operation on exact numbers (W. D. Clinger, How to read
floating point numbers accurately, 1990); the rare others are left to the caller.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from regroup_dask.formats.relion.star_kernels import DOUBLE, HASH, NEWLINE, ONE, SINGLE, SPACE, after_value, inner_range
from regroup_dask.formats.relion.star_vectors import WINDOW, digits_value, first_bit, look

INTEGER, FLOAT, STRING = 0, 1, 2
LARGEST_EXACT_DIGITS = 15
"""Whole numbers of more digits may not fit a float64 exactly; a column that has one is kept as text."""
MINUS, PLUS, POINT, ZERO = ord("-"), ord("+"), ord("."), ord("0")
_POWERS = 10.0 ** np.arange(23)
_WHOLE_POWERS = 10 ** np.arange(9, dtype=np.uint64)
_EXACT = 2**53
_NONE, _EIGHT, _ROOM = np.uint64(0), np.uint64(8), np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def next_value(text, end, position):  # type: ignore[no-untyped-def]
    """Return where the next value of a line begins, or its newline, and the masks of white space and digits from there."""
    spaces, digits, newlines = look(text, end, position)
    begins = ~spaces | newlines
    while begins == _NONE:
        position += WINDOW
        spaces, digits, newlines = look(text, end, position)
        begins = ~spaces | newlines
    skip: np.uint64 = first_bit(begins)
    return position + skip, spaces >> skip, digits >> skip


@njit(cache=True, nogil=True)
def next_newline(text, end, position):  # type: ignore[no-untyped-def]
    """Return where the next newline is."""
    _, _, newlines = look(text, end, position)
    while newlines == _NONE:
        position += WINDOW
        _, _, newlines = look(text, end, position)
    return position + first_bit(newlines)


@njit(cache=True, nogil=True, inline="always")
def value_stop(text, end, start, spaces):  # type: ignore[no-untyped-def]
    """Return the end of a value, given the mask of white space from its begin on."""
    if text[start] == SINGLE or text[start] == DOUBLE:
        return after_value(text, start)
    while spaces == _NONE:  # the window began before the value, so that up to 63 bytes are looked at twice
        spaces, _, _ = look(text, end, start)
        start += _NONE if spaces else WINDOW
    return start + first_bit(spaces)


@njit(cache=True, nogil=True, inline="always")
def _plain_number(text, start, spaces, digits):  # type: ignore[no-untyped-def]
    """Tell whether this is a number written with digits alone; return end, begin of the digits and the point.

    The point of a whole number is its end. Nothing here is a branch: signs and lengths come as they come, and a processor
    that guesses wrong loses more time than all of this takes.
    """
    length: np.uint64 = first_bit(spaces)
    stop, byte = start + length, text[start]
    signed = np.uint64((byte == np.uint8(MINUS)) | (byte == np.uint8(PLUS)))
    other = ~digits & ((ONE << length) - ONE) & ~signed
    point = min(start + first_bit(other), stop)
    plain = (spaces != _NONE) & ((other & (other - ONE)) == _NONE) & (length > signed + np.uint64(other != _NONE))
    plain &= (point == stop) | (text[point] == np.uint8(POINT))
    return plain, stop, start + signed, point


@njit(cache=True, nogil=True, inline="always")
def _number_type(text, start, stop, point):  # type: ignore[no-untyped-def]
    """Tell the type of a plain number; a name like 0012, or one of 16 digits, is text."""
    length, whole = np.int64(stop - start), point == stop
    name = (text[start] == np.uint8(ZERO)) & (length > 1) & (text[start + ONE] != np.uint8(POINT))
    return STRING if name | (whole & (length > LARGEST_EXACT_DIGITS)) else INTEGER if whole else FLOAT


@njit(cache=True, nogil=True, inline="always")
def value_type(text, start, spaces, digits):  # type: ignore[no-untyped-def]
    """Return end and type of a value."""
    plain, stop, _, point = _plain_number(text, start, spaces, digits)
    if plain:
        return stop, _number_type(text, start, stop, point)
    stop, kind, _, _ = _scan_unusual(text, start)
    return stop, kind


@njit(cache=True, nogil=True, inline="always")
def scan_value(text, end, start, spaces, digits):  # type: ignore[no-untyped-def]
    """Return end, type and number of a value, and whether the number is exact; the number of a text is 0."""
    plain, stop, first, point = _plain_number(text, start, spaces, digits)
    before = point - first
    after = stop - min(point + ONE, stop)
    if not plain or before > _EIGHT or after > _EIGHT or start + _ROOM > end:
        return _scan_long(text, start)
    mantissa = digits_value(text, first, before) * _WHOLE_POWERS[after] + digits_value(text, point + ONE, after)
    value = np.float64(np.int64(mantissa)) / _POWERS[after]
    value = -value if text[start] == np.uint8(MINUS) else value
    return stop, _number_type(text, start, stop, point), value, mantissa < np.uint64(_EXACT)


@njit(cache=True, nogil=True)
def has_high_bytes(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell whether a byte of a range is above 127."""
    high = False
    for place in range(start, stop):
        high |= text[place] >= 128
    return high


@njit(cache=True, nogil=True)
def _scan_long(text, start):  # type: ignore[no-untyped-def]
    """What `scan_value` says, digit by digit."""
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
    """What `scan_value` says, of a value that is quoted, has an exponent, is nan or infinite, or is text."""
    stop = after_value(text, start)
    first, last = inner_range(text, start, stop)
    kind = _type_of(text, first, last)
    if kind == STRING:
        return stop, kind, 0.0, True
    negative = text[first] == MINUS
    position = first + ONE if negative or text[first] == PLUS else first
    if (text[position] | 32) == ord("n"):
        return stop, kind, np.nan, True
    if (text[position] | 32) == ord("i"):
        return stop, kind, -np.inf if negative else np.inf, True
    digits, exponent, mantissa, after_point = 0, np.int64(0), np.int64(0), False
    while position < last and (_is_digit(text[position]) or text[position] == POINT):
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
def opens_block(text, position):  # type: ignore[no-untyped-def]
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
def _type_of(text, start, stop):  # type: ignore[no-untyped-def]
    """Tell the type of a value; names like 0012 or 0x1f, and identifiers of 16 digits, are text."""
    position = start
    if position < stop and (text[position] == MINUS or text[position] == PLUS):
        position += ONE
    if start + ONE < stop and text[start] == ZERO and _is_digit(text[start + ONE]):
        return STRING
    first = position
    while position < stop and _is_digit(text[position]):
        position += ONE
    digits = np.int64(position - first)
    if position == stop and digits:
        return STRING if np.int64(stop - start) > LARGEST_EXACT_DIGITS else INTEGER
    if position < stop and text[position] == POINT:
        position += ONE
        while position < stop and _is_digit(text[position]):
            position += ONE
            digits += 1
    if not digits:
        return FLOAT if _is_named_number(text, first, stop) else STRING
    if position < stop and (text[position] | 32) == ord("e"):
        position += ONE
        if position < stop and (text[position] == MINUS or text[position] == PLUS):
            position += ONE
        first = position
        while position < stop and _is_digit(text[position]):
            position += ONE
        if position == first:
            return STRING
    return FLOAT if position == stop else STRING


@njit(cache=True, nogil=True, inline="always")
def _is_digit(byte):  # type: ignore[no-untyped-def]
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
