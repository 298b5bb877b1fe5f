"""Rows of a star file written back with some values replaced, and every other byte as it was.

The text of rows is cut at the values to replace; new values are put in the gaps; and the pieces of the rows
wanted are joined. Rows keep the comment lines before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.formats.relion.star_text import SPACE, RowTokens

APPENDED = -1

TOO_LARGE = 1e9
"""Numbers from here on cannot be written with a fixed number of decimals."""


class NewValues(NamedTuple):
    """New values of one column."""

    column: int
    """index of the column, or `APPENDED` for a new one at the end of the rows"""
    values: np.ndarray
    """f64[n] or i64[n]"""
    decimals: int
    changed: np.ndarray
    """bool[n]; other rows keep their text"""

    def rows(self, start: int, stop: int) -> NewValues:
        """Return the values of a range of rows."""
        return self._replace(values=self.values[start:stop], changed=self.changed[start:stop])


class RewrittenRows(NamedTuple):
    """Rows as lists of pieces of text."""

    pieces: pa.BinaryArray
    order: np.ndarray
    """i64[n_rows, n_pieces], the pieces of each row"""

    def text(self, rows: np.ndarray) -> pa.Buffer | bytes:
        """Join the text of some rows."""
        if len(rows) == 0:
            return b""
        joined = self.pieces.take(pa.array(self.order[rows].ravel()))
        start, stop = np.frombuffer(joined.buffers()[1], dtype=np.int32)[
            [joined.offset, joined.offset + len(joined)]
        ]
        return joined.buffers()[2].slice(int(start), int(stop) - int(start))


def rewrite_rows(tokens: RowTokens, changes: Sequence[NewValues]) -> RewrittenRows:
    """Replace values in rows.

    A new value is padded with spaces to the field that the old one had, so that columns stay aligned, unless
    something else than a space stands before it.

    Parameters
    ----------
    tokens : RowTokens
        The rows; what stands before a row's line and after the line before belongs to it.
    changes : sequence of NewValues
        At most one for each column.
    """
    n_rows = len(tokens.starts)
    ordered = sorted(changes, key=lambda change: (change.column == APPENDED, change.column))
    edges = np.empty((n_rows, 1 + 2 * len(ordered)), dtype=np.int32)
    edges[:, 0] = np.concatenate([[0], tokens.line_stops[:-1]])[:n_rows]
    replacements = []
    for position, change in enumerate(ordered):
        if change.column == APPENDED:
            start = stop = tokens.stops[:, -1]
            separator = np.full(n_rows, SPACE, dtype=np.uint8)
            if tokens.starts.shape[1] > 1:
                separator = tokens.text[tokens.starts[:, -1] - 1]
            width = np.full(n_rows, 13)
        else:
            start, stop = tokens.starts[:, change.column], tokens.stops[:, change.column]
            separator = np.zeros(n_rows, dtype=np.uint8)  # the white space before stays
            width = stop - start
            if change.column > 0:
                previous = tokens.stops[:, change.column - 1]
                padded = change.changed & (tokens.text[previous] == SPACE) & (tokens.text[start - 1] == SPACE)
                start = np.where(padded, previous, start)
                separator[padded] = SPACE
                width = stop - start
        replacements.append(format_numbers(change.values, change.decimals, separator, width, change.changed))
        edges[:, 1 + 2 * position], edges[:, 2 + 2 * position] = start, stop
    offsets = np.append(edges.ravel(), np.int32(tokens.line_stops[-1] if n_rows else 0))
    source = pa.Array.from_buffers(
        pa.binary(), n_rows * edges.shape[1], [None, pa.py_buffer(offsets), pa.py_buffer(tokens.text)]
    )
    index = np.arange(n_rows * edges.shape[1], dtype=np.int64).reshape(edges.shape)
    for position, change in enumerate(ordered):
        first_new = n_rows * edges.shape[1] + position * n_rows
        gap = 1 + 2 * position
        index[:, gap] = np.where(change.changed, first_new + np.arange(n_rows), index[:, gap])
    return RewrittenRows(pa.concat_arrays([source, *replacements]), index)


def format_numbers(
    values: np.ndarray,
    decimals: int,
    separator: np.ndarray,
    width: np.ndarray,
    wanted: np.ndarray,
) -> pa.BinaryArray:
    """Write numbers as text with a fixed number of decimals.

    Parameters
    ----------
    values : f64[n] or i64[n]
        Magnitude below `TOO_LARGE` where wanted.
    decimals : int
        0 writes whole numbers. Zero is never written with a minus sign.
    separator : u8[n]
        A space: pad on the left to ``width``, with one space at least. 0: neither. Another byte, such as a
        tab: that byte goes before the number.
    width : int[n]
    wanted : bool[n]
        Others become empty.
    """
    safe = np.where(wanted, values, 0)
    if (np.abs(safe) >= TOO_LARGE).any():
        raise ValueError(f"{safe[np.argmax(np.abs(safe))]} is too large to be written in a star file")
    scaled = np.rint(np.abs(safe) * 10.0**decimals).astype(np.int64)
    negative = (safe < 0) & (scaled > 0)
    powers = 10 ** np.arange(1, 19, dtype=np.int64)
    n_digits = np.maximum(np.searchsorted(powers, scaled, side="right") + 1, decimals + 1)
    length = n_digits + (decimals > 0) + negative
    padded = separator == SPACE
    total = np.where(padded, np.maximum(length + 1, width), length + (separator != 0))
    total = np.where(wanted, total, 0)
    columns = int(total.max(initial=1))
    text = np.full((len(safe), columns), SPACE, dtype=np.uint8)
    column = columns - 1
    for digit in range(int(n_digits.max(initial=0))):
        if digit == decimals and decimals > 0:
            text[:, column] = ord(".")
            column -= 1
        scaled, last = np.divmod(scaled, 10)
        if column >= 0:
            text[:, column] = np.where(digit < n_digits, last + ord("0"), SPACE)
        column -= 1
    minus = np.flatnonzero(negative & wanted)
    text[minus, columns - length[minus]] = ord("-")
    marked = np.flatnonzero(wanted & ~padded & (separator != 0))
    text[marked, columns - total[marked]] = separator[marked]
    keep = np.arange(columns) >= (columns - total)[:, None]
    offsets = np.concatenate([[0], np.cumsum(total)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(safe), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text[keep]))]
    )
