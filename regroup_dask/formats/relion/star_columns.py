"""From text to Arrow: rows of a star loop as typed columns, and which type holds every row of a column.

Types widen in one direction only, int64 -> float64 -> string -> binary, so the types of parts of a file can be
merged in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from regroup_dask.formats.relion import star_kernels
from regroup_dask.formats.relion.star_text import RowTokens

TYPES = (pa.int64(), pa.float64(), pa.string(), pa.binary())
"""A column's type is an index into this, and only ever grows."""

INTEGER, FLOAT, STRING, BINARY = range(4)


def rows_to_table(
    tokens: RowTokens, columns: Sequence[str], types: Sequence[int], *, wanted: Sequence[str] | None = None
) -> pa.Table:
    """Convert rows to a table.

    Parameters
    ----------
    tokens : RowTokens
    columns : sequence of str
        Names of all columns of the loop.
    types : sequence of int
        Index into `TYPES` for each of them.
    wanted : sequence of str, optional
        Names of the columns to convert, in the order they shall have.

    Raises
    ------
    ValueError
        A value does not fit its type.
    """
    names = list(columns) if wanted is None else list(wanted)
    if not names:
        return pa.table({"": pa.nulls(len(tokens.starts))}).select([])
    arrays = []
    for name in names:
        index = list(columns).index(name)
        arrays.append(_column(tokens, index, types[index]))
    return pa.table(arrays, names=names)


def types_of_rows(tokens: RowTokens, at_least: Sequence[int]) -> tuple[int, ...]:
    """Find the narrowest types, none narrower than ``at_least``, that hold all of these rows.

    Text is what a number would not hold: names like 0012 or 0x1f, identifiers of 17 digits.
    """
    types = np.array(at_least, dtype=np.int64)
    not_ascii = np.zeros(len(types), dtype=bool)
    star_kernels.value_types(tokens.text, tokens.starts, tokens.stops, types, not_ascii)
    for index in np.flatnonzero(not_ascii & (types == STRING)):
        if not _is_utf8(_text(tokens, int(index))[1]):
            types[index] = BINARY
    return tuple(types.tolist())


def _column(tokens: RowTokens, index: int, kind: int) -> pa.Array:
    starts, stops = tokens.starts[:, index], tokens.stops[:, index]
    n = len(starts)
    if kind == INTEGER:
        integers = np.empty(n, np.int64)
        wrong = star_kernels.read_integers(tokens.text, starts, stops, integers)
        if wrong >= 0:
            raise ValueError(f"{_value(tokens, wrong, index)!r} is no whole number")
        return pa.array(integers)
    if kind == FLOAT:
        numbers, hard = np.empty(n), np.empty(n, np.int64)
        n_hard = star_kernels.read_floats(tokens.text, starts, stops, numbers, hard)
        for row in hard[:n_hard].tolist():
            text = _value(tokens, row, index)
            if b"_" in text:
                raise ValueError(f"{text!r} is no number")
            numbers[row] = float(text)
        return pa.array(numbers)
    offsets, text_bytes = _text(tokens, index)
    if kind == STRING and not _is_utf8(text_bytes):
        raise ValueError("a text is not UTF-8")
    return pa.Array.from_buffers(TYPES[kind], n, [None, pa.py_buffer(offsets), pa.py_buffer(text_bytes)])


def _text(tokens: RowTokens, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of a column one after another: where each begins, i32[n + 1], and their bytes."""
    starts, stops = tokens.starts[:, index], tokens.stops[:, index]
    offsets = np.empty(len(starts) + 1, np.int32)
    star_kernels.value_offsets(tokens.text, starts, stops, offsets)
    result = np.empty(offsets[-1], np.uint8)
    star_kernels.copy_values(tokens.text, starts, stops, offsets, result)
    return offsets, result


def _value(tokens: RowTokens, row: int, index: int) -> bytes:
    start, stop = int(tokens.starts[row, index]), int(tokens.stops[row, index])
    text = tokens.text[start:stop].tobytes()
    quoted = len(text) >= 2 and text[0] == text[-1] and text[:1] in b"\"'"
    return text[1:-1] if quoted else text


def _is_utf8(text: np.ndarray) -> bool:
    if not len(text) or int(text.max()) < 128:
        return True
    try:
        text.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
