"""Where things are in a star file: its data blocks, and the values of the rows of a loop, as byte positions.

A star file of particles is a few lines of header and then gigabytes of rows, so nothing here makes an object
per value. `locate_blocks` passes over the file once and finds the blocks; `split_rows` finds the values of a
few megabytes of rows with a handful of array operations. Both keep to what RELION and its neighbours write:
a row is a line, a value with spaces stands in quotes, a line that begins with ``#`` is a comment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from regroup_dask.errors import InputError

CHUNK_BYTES = 4 * 2**20
"""Rows are taken apart in pieces of this size: large enough for array operations, small for the cache."""

LONGEST_LINE_BYTES = 64 * 2**20

NEWLINE = 10
SPACE = 32


class StarBlock(NamedTuple):
    """One data block of a star file; positions are byte offsets in the file."""

    name: str
    """without the leading ``data_``; may be empty"""
    kind: Literal["loop", "pairs", "empty"]
    columns: tuple[str, ...]
    """labels without the leading underscore"""
    start: int
    """begin of the ``data_`` line"""
    labels_stop: int
    """end of the last label's line (of a loop)"""
    stop: int
    """begin of the next block, or end of the file"""
    labels_stop_line: int
    """number of the first line after the labels, from 1"""


class RowTokens(NamedTuple):
    """Values of consecutive rows of a loop, as positions in their text."""

    text: np.ndarray
    """u8[n_bytes]"""
    starts: np.ndarray
    """i64[n_rows, n_columns]"""
    stops: np.ndarray
    """i64[n_rows, n_columns]; quotes around a value belong to it"""
    line_starts: np.ndarray
    """i64[n_rows], begin of the line of each row"""
    line_stops: np.ndarray
    """i64[n_rows], just after the newline of each row"""
    quotes: np.ndarray
    """i64[n], the bytes that are quotes around a value"""
    inside: np.ndarray
    """bool[n_bytes], the bytes that belong to values"""


class Chunk(NamedTuple):
    """Whole lines of a file."""

    text: bytes
    start: int
    """byte offset in the file"""
    first_line: int
    """number of the first line, from 1"""


def locate_blocks(path: str) -> tuple[StarBlock, ...]:
    """Find the data blocks of a star file in one pass.

    Raises
    ------
    InputError
        The file cannot be read, or has no data block.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            headers = [
                (chunk.start + position, chunk.first_line + chunk.text.count(b"\n", 0, position), name)
                for chunk in read_lines(path, 0, size)
                for position, name in _block_lines(chunk.text, at_file_start=chunk.start == 0)
            ]
            if not headers:
                raise InputError(f"{path} is not a star file: it has no line that begins with data_")
            stops = [start for start, _, _ in headers[1:]] + [size]
            return tuple(
                _read_header(stream, path, name, start, stop, line)
                for (start, line, name), stop in zip(headers, stops, strict=True)
            )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_lines(path: str, start: int, stop: int, *, first_line: int = 1) -> Iterator[Chunk]:
    """Read a byte range that begins at a line in chunks of whole lines of about `CHUNK_BYTES`.

    The text of the last chunk gets a newline where the file has none at its end.
    """
    with open(path, "rb", buffering=0) as stream:
        position, line = start, first_line
        wanted = CHUNK_BYTES
        while position < stop:
            stream.seek(position)
            text = _read_exactly(stream, min(wanted, stop - position))
            if not text:
                raise InputError(f"{path} became shorter while it was read: it ends at byte {position}")
            if position + len(text) < stop:
                cut = text.rfind(b"\n") + 1
                if cut == 0:
                    wanted *= 2
                    if wanted > LONGEST_LINE_BYTES:
                        raise InputError(f"{path}, line {line}: a line of over 64 MB; is it a text file?")
                    continue
                text = text[:cut]
            length = len(text)
            if not text.endswith(b"\n"):
                text += b"\n"
            yield Chunk(text, position, line)
            position += length
            line += text.count(b"\n")
            wanted = CHUNK_BYTES


def split_rows(text: bytes, n_columns: int, *, path: str, first_line: int) -> RowTokens:
    """Find the values in whole lines of a loop.

    Parameters
    ----------
    text : bytes
        Lines, the last one with its newline. Blank and comment lines are passed over.
    n_columns : int
    path, first_line
        For error messages.

    Raises
    ------
    InputError
        A line has another number of values than the loop has columns.
    """
    buffer = np.frombuffer(text, dtype=np.uint8)
    inside = np.zeros(len(buffer) + 1, dtype=bool)  # one leading False, so that every edge is a change
    np.greater(buffer, SPACE, out=inside[1:])
    quotes = np.empty(0, dtype=np.int64)
    if b"#" in text:
        _blank_comments(text, inside)
    if b'"' in text or b"'" in text:
        quotes = _join_quoted(text, inside)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[0::2], edges[1::2]
    newlines = np.flatnonzero(buffer == NEWLINE)
    if len(starts) % n_columns:
        raise _wrong_count(starts, newlines, n_columns, path, first_line)
    starts, stops = starts.reshape(-1, n_columns), stops.reshape(-1, n_columns)
    lines = np.searchsorted(newlines, starts[:, 0])
    last_lines = np.searchsorted(newlines, starts[:, -1])
    if (lines != last_lines).any() or (np.diff(lines) <= 0).any():
        raise _wrong_count(starts.ravel(), newlines, n_columns, path, first_line)
    line_stops = newlines[lines] + 1
    line_starts = np.where(lines > 0, newlines[lines - 1] + 1, 0)
    return RowTokens(buffer, starts, stops, line_starts, line_stops, quotes, inside[1:])


def read_small_block(path: str, block: StarBlock) -> list[dict[str, str]]:
    """Read a small block, such as the optics groups, as one dictionary of text per row.

    A block of label and value pairs gives one dictionary.
    """
    with open(path, "rb") as stream:
        if block.kind == "pairs":
            stream.seek(block.start)
            lines = stream.read(block.stop - block.start).decode("utf-8", "replace").splitlines()[1:]
            pairs = [line.split(None, 1) for line in lines if line.strip().startswith("_")]
            return [{pair[0][1:]: pair[1].strip().strip("\"'") if len(pair) > 1 else "" for pair in pairs}]
        stream.seek(block.labels_stop)
        text = stream.read(block.stop - block.labels_stop)
    if not text.strip() or not block.columns:
        return []
    text = text if text.endswith(b"\n") else text + b"\n"
    tokens = split_rows(text, len(block.columns), path=path, first_line=block.labels_stop_line)
    values = [
        [
            text[a:b].decode("utf-8", "replace").strip("\"'")
            for a, b in zip(row_starts, row_stops, strict=True)
        ]
        for row_starts, row_stops in zip(tokens.starts, tokens.stops, strict=True)
    ]
    return [dict(zip(block.columns, row, strict=True)) for row in values]


def _read_exactly(stream: object, size: int) -> bytes:
    parts = []
    while size > 0:
        part = stream.read(size)  # type: ignore[attr-defined]
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _block_lines(text: bytes, *, at_file_start: bool) -> Iterator[tuple[int, str]]:
    """Yield (position of the line, name) of the lines that open a block.

    Only a line with nothing else on it opens one: a row may begin with a file name like data_2/stack.mrcs.
    """
    position = text.find(b"data_")
    while position >= 0:
        line_start = text.rfind(b"\n", 0, position) + 1
        before = text[line_start:position]
        if at_file_start and line_start == 0:
            before = before.removeprefix(b"\xef\xbb\xbf")
        if not before.strip():
            line_stop = text.find(b"\n", position)
            words = text[position : line_stop if line_stop >= 0 else len(text)].split(b"#", 1)[0].split()
            if len(words) == 1:
                yield line_start, words[0][5:].decode("utf-8", "replace")
        position = text.find(b"data_", position + 5)


def _read_header(stream: object, path: str, name: str, start: int, stop: int, line: int) -> StarBlock:
    """Read the labels of a block."""
    stream.seek(start)  # type: ignore[attr-defined]
    kind: Literal["loop", "pairs", "empty"] = "empty"
    columns: list[str] = []
    position, labels_stop, labels_line = start, stop, line + 1
    while position < stop:
        text = stream.readline(LONGEST_LINE_BYTES)  # type: ignore[attr-defined]
        position += len(text)
        line += 1
        words = text.split(None, 1)
        if position - len(text) == start or not words or words[0].startswith(b"#"):
            continue
        if kind == "empty" and words[0].lower() == b"loop_":
            kind, labels_stop, labels_line = "loop", position, line
        elif words[0].startswith(b"_") and kind != "empty":
            columns.append(words[0][1:].decode("utf-8", "replace"))
            labels_stop, labels_line = position, line
        elif words[0].startswith(b"_"):
            kind = "pairs"
            columns.append(words[0][1:].decode("utf-8", "replace"))
        else:
            break
    if kind == "loop" and len(set(columns)) != len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise InputError(f"{path}: the block data_{name} has the column _{twice} twice")
    return StarBlock(name, kind, tuple(columns), start, labels_stop, stop, labels_line)


def _blank_comments(text: bytes, inside: np.ndarray) -> None:
    """Make lines that begin with # blank, in place."""
    position = text.find(b"#")
    while position >= 0:
        line_start = text.rfind(b"\n", 0, position) + 1
        line_stop = text.find(b"\n", position)
        line_stop = line_stop if line_stop >= 0 else len(text)
        if not text[line_start:position].strip():
            inside[position + 1 : line_stop + 1] = False
            position = text.find(b"#", line_stop)
        else:
            position = text.find(b"#", position + 1)


def _join_quoted(text: bytes, inside: np.ndarray) -> np.ndarray:
    """Make the spaces within quotes part of their value, in place; return the positions of the quotes.

    A quote opens a value only at its begin, and closes it only before white space: ``5'-end`` is a word.
    """
    buffer = np.frombuffer(text, dtype=np.uint8)
    opening = inside[1:] & ~inside[:-1] & ((buffer == ord('"')) | (buffer == ord("'")))
    positions = []
    done = 0
    for start in np.flatnonzero(opening).tolist():
        if start < done:
            continue
        quote = text[start : start + 1]
        line_stop = text.find(b"\n", start)
        close = text.find(quote, start + 1, line_stop)
        while close >= 0 and text[close + 1] > SPACE:
            close = text.find(quote, close + 1, line_stop)
        if close >= 0:
            inside[start + 1 : close + 2] = True
            positions += [start, close]
            done = close + 1
    return np.array(positions, dtype=np.int64)


def _wrong_count(
    starts: np.ndarray, newlines: np.ndarray, n_columns: int, path: str, first_line: int
) -> InputError:
    counts = np.bincount(np.searchsorted(newlines, starts), minlength=1)
    line = int(np.flatnonzero((counts != 0) & (counts != n_columns))[0])
    return InputError(
        f"{path}, line {first_line + line}: {counts[line]} values where the table has {n_columns} columns"
    )
