"""Rows of a star file written back with some values replaced, and every other byte as it was.

Rows keep the comment lines before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regroup_dask.formats.relion import star_kernels
from regroup_dask.formats.relion.star_text import RowTokens

APPENDED = -1

TOO_LARGE = 1e9
"""Numbers from here on cannot be written with a fixed number of decimals."""

LONGEST_NUMBER = 24
"""Bytes that a new value takes at most beside its field."""


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
    """The text of rows."""

    text_of_all: np.ndarray
    """u8"""
    offsets: np.ndarray
    """i64[n_rows + 1], where each row begins"""

    def text(self, rows: np.ndarray) -> np.ndarray:
        """Join the text of some rows, u8[n_bytes]."""
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        result = np.empty(int(sizes.sum()), np.uint8)
        star_kernels.gather_rows(self.text_of_all, self.offsets, np.asarray(rows, np.int64), result)
        return result


def rewrite_rows(tokens: RowTokens, changes: Sequence[NewValues], placed: Sequence[int]) -> RewrittenRows:
    """Replace values in rows.

    A new value is padded with spaces to the field that the old one had, so that columns stay aligned, unless
    something else than a space stands before it.

    Parameters
    ----------
    tokens : RowTokens
        The rows, with the positions of some columns; what stands before a row's line and after the line before
        belongs to it.
    changes : sequence of NewValues
        At most one for each column.
    placed : sequence of int
        The columns whose positions ``tokens`` holds: all that change, and for a new one the last of the file.

    Raises
    ------
    ValueError
        A number is too large to be written.
    """
    n_rows = len(tokens.starts)
    ordered = sorted(changes, key=lambda change: (change.column == APPENDED, change.column))
    values = np.zeros((len(ordered), n_rows))
    changed = np.zeros((len(ordered), n_rows), dtype=bool)
    for position, change in enumerate(ordered):
        values[position], changed[position] = change.values, change.changed
    largest = np.abs(values, out=np.zeros_like(values), where=changed).max(initial=0)
    if largest >= TOO_LARGE:
        raise ValueError(f"{largest} is too large to be written in a star file")
    place_of = {column: place for place, column in enumerate(placed)}
    ways = {APPENDED: star_kernels.APPEND, 0: star_kernels.FIRST}
    edges = np.concatenate([[0], tokens.line_stops]).astype(np.int64)
    room = int(edges[-1]) + LONGEST_NUMBER * int(changed.sum())
    text, offsets = np.empty(room, np.uint8), np.empty(n_rows + 1, np.int64)
    star_kernels.replace_values(
        tokens.text,
        tokens.starts,
        tokens.stops,
        edges,
        np.array([place_of[max(placed) if change.column == APPENDED else change.column] for change in ordered], np.int64),
        np.array([ways.get(change.column, star_kernels.REPLACE) for change in ordered], np.int64),
        values,
        np.array([change.decimals for change in ordered], np.int64),
        changed,
        text,
        offsets,
    )
    return RewrittenRows(text, offsets)
