"""Where things are in a star file: its data blocks, and the values of the rows of a loop, as byte positions.

A star file of particles is a few lines of header and then gigabytes of rows, so nothing here makes an object
per value. `locate_blocks` passes over the file once and finds the blocks; `split_rows` finds the values of a
few megabytes of rows in one compiled loop. Both keep to what RELION and its neighbours write:
a row is a line, a value with spaces stands in quotes, a line that begins with ``#`` is a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.relion.star_kernels import NEWLINE, find_values

CHUNK_BYTES = 4 * 2**20
"""Rows are taken apart in pieces of this size: large beside the cost of a call, small beside memory."""

LONGEST_LINE_BYTES = 64 * 2**20


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
    """i32[n_rows, n_columns]"""
    stops: np.ndarray
    """i32[n_rows, n_columns]; quotes around a value belong to it"""
    line_starts: np.ndarray
    """i32[n_rows], begin of the line of each row"""
    line_stops: np.ndarray
    """i32[n_rows], just after the newline of each row"""


class Chunk(NamedTuple):
    """Whole lines of a file."""

    text: bytes
    start: int
    """byte offset in the file"""
    first_line: int
    """number of the first line, from 1"""


def locate_blocks(path: str, *, start: int = 0, first_line: int = 1) -> tuple[StarBlock, ...]:
    """Find the data blocks of a star file in one pass, from a line on.

    Raises
    ------
    InputError
        The file cannot be read, or has no data block.
    """
    try:
        size = storage.size_bytes(path)
        with storage.open_reading(path) as stream:
            found = [
                (chunk.start + position, name)
                for chunk in read_lines(path, start, size, count=False)
                for position, name in _block_lines(chunk.text, at_file_start=chunk.start == 0)
            ]
            lines = _line_numbers(path, [begin for begin, _ in found], start, first_line)
            headers = [(begin, line, name) for (begin, name), line in zip(found, lines, strict=True)]
            if not headers:
                raise InputError(f"{path} is not a star file: it has no line that begins with data_")
            stops = [begin for begin, _, _ in headers[1:]] + [size]
            return tuple(
                _read_header(stream, path, name, begin, stop, line)
                for (begin, line, name), stop in zip(headers, stops, strict=True)
            )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def blocks_before_rows(path: str, names: Sequence[str], column: str) -> tuple[StarBlock, ...] | None:
    """Find the blocks up to the first loop of one of these names that has a column, without reading its rows.

    The last block's ``stop`` is that of the file, wherever its rows end. None where no such loop begins within the
    first piece of the file, so that `locate_blocks` has to find it.
    """
    try:
        size = storage.size_bytes(path)
        with storage.open_reading(path) as stream:
            text = next(iter(read_lines(path, 0, size, count=False)), Chunk(b"", 0, 1)).text
            places = list(_block_lines(text, at_file_start=True))
            lines = _line_numbers(path, [begin for begin, _ in places], 0, 1)
            stops = ([begin for begin, _ in places] + [size])[1:]
            blocks: list[StarBlock] = []
            for (begin, name), line, stop in zip(places, lines, stops, strict=True):
                block = _read_header(stream, path, name, begin, stop, line)
                if block.kind == "loop" and name in names and column in block.columns:
                    return (*blocks, block._replace(stop=size))
                blocks.append(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return None


def _line_numbers(path: str, positions: list[int], start: int, first_line: int) -> list[int]:
    """Count the lines before some increasing positions, from the line that begins at ``start``."""
    numbers, line, before = [], first_line, start
    for position in positions:
        line += sum(chunk.text.count(b"\n") for chunk in read_lines(path, before, position, count=False))
        numbers.append(line)
        before = position
    return numbers


def read_lines(path: str, start: int, stop: int, *, first_line: int = 1, count: bool = True) -> Iterator[Chunk]:
    """Read a byte range that begins at a line in chunks of whole lines of about `CHUNK_BYTES`.

    Lines are counted only if asked: all chunks have the number ``first_line`` otherwise.

    The text of the last chunk gets a newline where the file has none at its end.
    """
    with storage.open_reading(path, buffering=0) as stream:
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
            line += text.count(b"\n") if count else 0
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
    if len(buffer) and buffer[-1] != NEWLINE:
        raise ValueError("the text must end with a newline")
    most = len(buffer) // (2 * n_columns) + 1
    starts, stops = np.empty((most, n_columns), np.int32), np.empty((most, n_columns), np.int32)
    line_starts, line_stops = np.empty(most, np.int32), np.empty(most, np.int32)
    n_rows, line, count = find_values(buffer, n_columns, starts, stops, line_starts, line_stops)
    if line >= 0:
        raise wrong_number_of_values(path, first_line + line, count, n_columns)
    return RowTokens(buffer, starts[:n_rows], stops[:n_rows], line_starts[:n_rows], line_stops[:n_rows])


def wrong_number_of_values(path: str, line: int, n_values: int, n_columns: int) -> InputError:
    """Say that a row does not fit its table."""
    return InputError(f"{path}, line {line}: {n_values} values where the table has {n_columns} columns")


def read_small_block(path: str, block: StarBlock) -> list[dict[str, str]]:
    """Read a small block, such as the optics groups, as one dictionary of text per row.

    A block of label and value pairs gives one dictionary.
    """
    with storage.open_reading(path) as stream:
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
