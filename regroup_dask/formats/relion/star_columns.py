"""From text to Arrow: rows of a star loop as typed columns, and which type holds every row of a column.

Types widen in one direction only, int64 -> float64 -> string -> binary, so the types of parts of a file can be
merged in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats.relion import star_kernels, star_scan
from regroup_dask.formats.relion.star_text import Chunk, RowTokens, split_rows, wrong_number_of_values

TYPES = (pa.int64(), pa.float64(), pa.string(), pa.binary())
"""A column's type is an index into this, and only ever grows."""

INTEGER, FLOAT, STRING, BINARY = range(4)


class SurveyedRows(NamedTuple):
    """What `survey_rows` found in some lines."""

    types: tuple[int, ...]
    classes: np.ndarray
    """f64[n], the values of the class column; NaN for text and for numbers that are no class"""
    row_stops: np.ndarray
    """i32[n], just after the newline of each row"""
    row_lines: np.ndarray
    """i32[n], line of each row, from 0"""
    first: int
    """begin of the first row's line; -1 when there is none"""
    stop: int
    """where the next block begins, or the length of the text"""
    n_lines: int
    """lines before ``stop``"""


class ReadRows(NamedTuple):
    """Rows of a byte range: their values, and where some of these stand in the text."""

    table: pa.Table
    chunks: tuple[RowTokens, ...]
    """for each piece of the text, positions of the values of the columns that were asked for"""


def survey_rows(text: bytes, at_least: Sequence[int], class_column: int, *, path: str, first_line: int) -> SurveyedRows:
    """Find the narrowest types, none narrower than ``at_least``, that hold all rows of a text, and their classes.

    Text is what a number would not hold: names like 0012 or 0x1f, identifiers of 17 digits.

    Raises
    ------
    InputError
        A line has another number of values than there are types.
    """
    buffer = _buffer(text)
    n_columns = len(at_least)
    most = len(buffer) // (2 * n_columns) + 1
    types = np.minimum(np.array(at_least, dtype=np.int64), STRING)
    not_ascii = np.zeros(n_columns, dtype=bool)
    classes, row_stops, row_lines = np.empty(most), np.empty(most, np.int32), np.empty(most, np.int32)
    n_rows, n_lines, first, stop, line, count = star_scan.survey_rows(
        buffer, text.isascii(), n_columns, types, not_ascii, class_column, classes, row_stops, row_lines
    )
    if line >= 0:
        raise wrong_number_of_values(path, first_line + line, count, n_columns)
    types = np.maximum(types, at_least)
    suspects = np.flatnonzero(not_ascii & (types == STRING))
    if len(suspects):
        places = np.full(n_columns, -1)
        places[suspects] = np.arange(len(suspects))
        tokens, _, _ = _scan(buffer[:stop], np.full(n_columns, star_scan.SKIPPED), places, n_rows)
        for place, column in enumerate(suspects.tolist()):
            if not _is_utf8(text_of_values(tokens, place)[1]):
                types[column] = BINARY
    return SurveyedRows(
        tuple(types.tolist()), classes[:n_rows], row_stops[:n_rows], row_lines[:n_rows], first, stop, n_lines
    )


def read_rows(
    chunks: Iterator[Chunk],
    columns: Sequence[str],
    types: Sequence[int],
    *,
    n_rows: int,
    path: str,
    wanted: Sequence[str] | None = None,
    placed: Sequence[int] = (),
) -> ReadRows:
    """Convert rows to a table.

    Parameters
    ----------
    chunks : iterator of Chunk
        The text, whole lines; the last piece ends with the last row.
    columns : sequence of str
        Names of all columns of the loop.
    types : sequence of int
        Index into `TYPES` for each of them.
    n_rows : int
        How many rows there are.
    wanted : sequence of str, optional
        Names of the columns to convert, in the order they shall have.
    placed : sequence of int
        Columns whose positions are kept, and with them all of the text.

    Raises
    ------
    InputError
        A value does not fit its type, or there is another number of rows or values.
    """
    names = list(columns) if wanted is None else list(wanted)
    index_of = {name: list(columns).index(name) for name in names}
    kinds = np.full(len(columns), star_scan.SKIPPED, np.int64)
    slots, places = np.zeros(len(columns), np.int64), np.full(len(columns), -1, np.int64)
    places[list(placed)] = np.arange(len(placed))
    used = [0, 0]
    texts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for index in index_of.values():
        if types[index] <= FLOAT:
            kinds[index], slots[index] = types[index], used[types[index]]
            used[types[index]] += 1
        else:
            texts[index] = []
            if places[index] < 0:
                places[index] = places.max() + 1
    integers, floats = np.empty((used[INTEGER], n_rows), np.int64), np.empty((used[FLOAT], n_rows))
    kept: list[RowTokens] = []
    row, rest, line = 0, b"", 1
    for chunk in chunks:
        # Comments after the last row of a piece belong to the first row of the next.
        buffer, line = _buffer(rest + chunk.text if rest else chunk.text), chunk.first_line
        tokens, hard, (wrong, _) = _scan(buffer, kinds, places, n_rows - row, (slots, integers, floats, row))
        if wrong >= 0 or row + len(tokens.line_stops) > n_rows:
            break
        for at, column in hard.tolist():
            whole = kinds[column] == INTEGER
            value = _number(tokens.text, tokens.line_starts[at], column, len(columns), whole, path, line)
            (integers if kinds[column] == INTEGER else floats)[slots[column], row + at] = value
        for index, parts in texts.items():
            parts.append(text_of_values(tokens, int(places[index])))
        row += len(tokens.line_stops)
        rest = buffer[int(tokens.line_stops[-1]) if len(tokens.line_stops) else 0 :].tobytes()
        if placed:
            kept.append(tokens._replace(starts=tokens.starts[:, : len(placed)], stops=tokens.stops[:, : len(placed)]))
    else:
        wrong = -1
    if wrong >= 0 or row != n_rows:
        raise InputError(f"{path} changed since it was opened, after line {line}: {row} rows where there were {n_rows}")
    arrays = [
        pa.array((integers if types[index] == INTEGER else floats)[slots[index]])
        if types[index] <= FLOAT
        else _joined_text(texts[index], TYPES[types[index]], path)
        for index in index_of.values()
    ]
    if not names:
        return ReadRows(pa.table({"": pa.nulls(n_rows)}).select([]), tuple(kept))
    return ReadRows(pa.table(arrays, names=names), tuple(kept))


def text_of_values(tokens: RowTokens, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of a column one after another: where each begins, i32[n + 1], and their bytes."""
    starts, stops = tokens.starts[:, place], tokens.stops[:, place]
    offsets = np.empty(len(starts) + 1, np.int32)
    star_kernels.value_offsets(tokens.text, starts, stops, offsets)
    result = np.empty(offsets[-1], np.uint8)
    star_kernels.copy_values(tokens.text, starts, stops, offsets, result)
    return offsets, result


def value_of_row(lines: bytes, column: int, n_columns: int) -> bytes:
    """Return one value, without its quotes, of the first row of a text."""
    tokens = split_rows(lines, n_columns, path="", first_line=1)
    word = lines[tokens.starts[0, column] : tokens.stops[0, column]]
    quoted = len(word) >= 2 and word[0] == word[-1] and word[:1] in b"\"'"
    return word[1:-1] if quoted else word


def _scan(
    buffer: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    most: int,
    numbers: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None,
) -> tuple[RowTokens, np.ndarray, tuple[int, int]]:
    """Run `star_scan.read_rows`: positions, the numbers that are hard to read, and a line that is wrong (or -1)."""
    most = min(most, len(buffer) // (2 * len(kinds))) + 1
    n_places = int(places.max(initial=-1)) + 1
    starts, stops = np.empty((most, n_places), np.int32), np.empty((most, n_places), np.int32)
    row_stops, hard = np.empty(most, np.int32), np.empty((0, 2), np.int64)
    slots, integers, floats, row = numbers or (np.zeros_like(kinds), np.empty((0, most), np.int64), np.empty((0, most)), 0)
    while True:
        n_rows, line, count, n_hard = star_scan.read_rows(
            buffer, kinds, slots, places, integers, floats, row, starts, stops, row_stops, hard
        )
        if n_hard <= len(hard):
            break
        hard = np.empty((n_hard, 2), np.int64)
    row_stops = row_stops[:n_rows]
    row_starts = np.concatenate([[0], row_stops[:-1]]).astype(np.int32)[:n_rows]
    return RowTokens(buffer, starts[:n_rows], stops[:n_rows], row_starts, row_stops), hard[:n_hard], (line, count)


def _number(text: np.ndarray, start: int, column: int, n_columns: int, whole: bool, path: str, line: int) -> float:
    """Read a number that compiled loops leave alone, as Python does."""
    stop = int(start)
    words: list[bytes] = []
    while len(words) <= column:  # over blank lines and comments before the row
        end = stop + int(np.argmax(text[stop:] == star_kernels.NEWLINE)) + 1
        found = text[stop:end].tobytes()
        words = [] if found.lstrip().startswith(b"#") else found.split()
        stop = end
    word = value_of_row(found, column, n_columns)
    try:
        if whole or b"_" in word:
            raise ValueError
        return float(word)
    except ValueError:
        raise InputError(
            f"{path} changed since it was opened, after line {line}: {word[:80]!r} is no number"
        ) from None


def _joined_text(parts: list[tuple[np.ndarray, np.ndarray]], kind: pa.DataType, path: str) -> pa.Array:
    """One Arrow array of the text of several pieces, with no object per value."""
    lengths = [np.diff(offsets) for offsets, _ in parts]
    offsets = np.zeros(sum(map(len, lengths)) + 1, np.int32)
    if lengths:
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
    text = np.concatenate([text for _, text in parts]) if parts else np.empty(0, np.uint8)
    if kind == TYPES[STRING] and not _is_utf8(text):
        raise InputError(f"{path} changed since it was opened: a text is not UTF-8")
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def _buffer(text: bytes) -> np.ndarray:
    if text and not text.endswith(b"\n"):
        raise ValueError("the text must end with a newline")
    return np.frombuffer(text, dtype=np.uint8)


def _is_utf8(text: np.ndarray) -> bool:
    if not len(text) or int(text.max()) < 128:
        return True
    try:
        text.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
