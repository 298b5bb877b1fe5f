"""One pass over a star file of particles: types that hold every row, classes, and where fragments begin."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.particles import FRAGMENT_BYTES
from regroup_dask.formats.relion.star_columns import FLOAT, INTEGER, rows_to_table, types_of_rows
from regroup_dask.formats.relion.star_text import (
    LONGEST_LINE_BYTES,
    RowTokens,
    StarBlock,
    locate_blocks,
    read_lines,
    read_small_block,
    split_rows,
)

MOST_THREADS = 8
CLASS_COLUMN = "rlnClassNumber"
PARTICLE_BLOCKS = ("particles", "images", "")
"""Names that RELION gave the block of particles, from 3.1 on and before."""


@dataclass(frozen=True)
class StarPart:
    """The text around the rows of one star file: where its particles stand."""

    path: str
    block_start: int
    labels_stop: int
    rows_start: int
    rows_stop: int


@dataclass(frozen=True)
class StarRange:
    """Rows of a fragment."""

    start: int
    """byte where it begins; comments before its first row belong to it"""
    stop: int
    """byte just after its last row"""
    first_line: int
    n_rows: int
    class_counts: tuple[tuple[float, int], ...]
    """distinct values of rlnClassNumber, and how many rows have each"""


@dataclass(frozen=True)
class StarSurvey:
    """What a pass over one file found."""

    path: str
    block: StarBlock
    part: StarPart
    blocks: tuple[StarBlock, ...]
    """all blocks of the file"""
    types: tuple[int, ...]
    """index into `star_columns.TYPES` for each column"""
    ranges: tuple[StarRange, ...]


@dataclass(frozen=True)
class StarPiece:
    """A byte range of a file, cut at line ends, to be surveyed alone."""

    path: str
    start: int
    stop: int
    columns: tuple[str, ...]
    fragment_rows: int | None


class PieceSurvey(NamedTuple):
    """What is in a piece."""

    types: tuple[int, ...]
    rows_start: int
    """byte of the first row; -1 when there is none"""
    lines_before: int
    """lines of the piece before its first row"""
    n_lines: int
    cuts: tuple[tuple[int, int, int, tuple[tuple[float, int], ...]], ...]
    """end of a fragment: byte, lines of the piece before it, rows, and rows per class"""


def survey_file(path: str, *, fragment_rows: int | None) -> StarSurvey:
    """Read a file once, a few megabytes at a time, and decide types and fragments.

    Parameters
    ----------
    path : str
    fragment_rows : int, optional
        Rows of a fragment; by default as many as take about 64 MB of text.

    Raises
    ------
    InputError
        There is no block of particles, no class column, no row, or a row with a wrong number of values.
    """
    blocks = locate_blocks(path)
    block = _particle_block(path, blocks)
    edges = [block.labels_stop, block.stop]
    if fragment_rows is None:
        edges = _cut_at_lines(path, block.labels_stop, block.stop)
    pieces = [StarPiece(path, start, stop, block.columns, fragment_rows) for start, stop in pairwise(edges)]
    ranges: list[StarRange] = []
    types = [INTEGER] * len(block.columns)
    rows_start = begin = -1
    line = begin_line = block.labels_stop_line
    # The loops over bytes let go of the interpreter, so that threads read as fast as processes would.
    threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)), len(pieces)))
    with ThreadPoolExecutor(threads) as pool:
        surveys = list(pool.map(survey_piece, pieces))
    for found in surveys:
        types = [max(pair) for pair in zip(types, found.types, strict=True)]
        if found.rows_start >= 0 and rows_start < 0:
            rows_start = begin = found.rows_start
            begin_line = line + found.lines_before
        for stop, lines, n_rows, class_counts in found.cuts:
            ranges.append(StarRange(begin, stop, begin_line, n_rows, class_counts))
            begin, begin_line = stop, line + lines
        line += found.n_lines
    if not ranges:
        raise InputError(f"{path}: the block data_{block.name} has no particles")
    part = StarPart(path, block.start, block.labels_stop, rows_start, ranges[-1].stop)
    return StarSurvey(path, block, part, blocks, tuple(types), tuple(ranges))


def survey_piece(piece: StarPiece) -> PieceSurvey:
    """Find types, rows and classes of a piece.

    Raises
    ------
    InputError
        A row has a wrong number of values, or a class is no number.
    """
    try:
        return _survey_piece(piece, 1)
    except InputError:
        # Only now is it worth the time to find which lines these are.
        lines = (chunk.text.count(b"\n") for chunk in read_lines(piece.path, 0, piece.start))
        return _survey_piece(piece, 1 + sum(lines))


def _survey_piece(piece: StarPiece, first_line: int) -> PieceSurvey:
    class_column = piece.columns.index(CLASS_COLUMN)
    types: tuple[int, ...] = (INTEGER,) * len(piece.columns)
    cuts: list[tuple[int, int, int, tuple[tuple[float, int], ...]]] = []
    counts: Counter[float] = Counter()
    rows_start, lines_before, n_lines, n_rows, last_stop, last_line = -1, 0, 0, 0, piece.start, 0
    for chunk in read_lines(piece.path, piece.start, piece.stop, first_line=first_line):
        tokens = split_rows(chunk.text, len(piece.columns), path=piece.path, first_line=chunk.first_line)
        if len(tokens.starts):
            types = types_of_rows(tokens, types)
            classes = _classes(tokens, piece, types[class_column], chunk.first_line)
            if rows_start < 0:
                first = int(tokens.line_starts[0])
                rows_start = chunk.start + first
                lines_before = n_lines + chunk.text.count(b"\n", 0, first)
            row = 0
            while row < len(classes):
                taken = len(classes) - row
                if piece.fragment_rows is not None:
                    taken = min(taken, piece.fragment_rows - n_rows)
                counts.update(dict(zip(*_unique(classes[row : row + taken]), strict=True)))
                row += taken
                n_rows += taken
                row_stop = int(tokens.line_stops[row - 1])
                last_stop = min(chunk.start + row_stop, piece.stop)
                last_line = n_lines + chunk.text.count(b"\n", 0, row_stop)
                if n_rows == piece.fragment_rows:
                    cuts.append((last_stop, last_line, n_rows, tuple(sorted(counts.items()))))
                    n_rows = 0
                    counts.clear()
        n_lines += chunk.text.count(b"\n")
    if n_rows:
        cuts.append((last_stop, last_line, n_rows, tuple(sorted(counts.items()))))
    return PieceSurvey(types, rows_start, lines_before, n_lines, tuple(cuts))


def _classes(tokens: RowTokens, piece: StarPiece, kind: int, line: int) -> np.ndarray:
    place = piece.columns.index(CLASS_COLUMN)
    types = [kind if index == place else INTEGER for index in range(len(piece.columns))]
    values = rows_to_table(tokens, piece.columns, types, wanted=[CLASS_COLUMN]).column(0)
    if kind > FLOAT:
        example = next(value for value in values.to_pylist() if not _is_number(value))
        raise InputError(
            f"{piece.path}, near line {line}: _{CLASS_COLUMN} holds text, not numbers, for example {example!r}"
        )
    numbers = values.to_numpy()
    broken = numbers[numbers != np.round(numbers)]
    if len(broken):
        raise InputError(f"{piece.path}: _{CLASS_COLUMN} holds {broken[0]}, which is no class number")
    return numbers


def _unique(classes: np.ndarray) -> tuple[list[float], list[int]]:
    values, counts = np.unique(classes, return_counts=True)
    return values.tolist(), counts.tolist()


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cut_at_lines(path: str, start: int, stop: int) -> list[int]:
    """Cut a byte range at line ends into pieces of about `FRAGMENT_BYTES`."""
    edges = [start]
    with storage.open_reading(path) as stream:
        while stop - edges[-1] > FRAGMENT_BYTES:
            stream.seek(edges[-1] + FRAGMENT_BYTES)
            stream.readline(LONGEST_LINE_BYTES)
            edges.append(min(stream.tell(), stop))
    return edges if edges[-1] == stop else [*edges, stop]


def _particle_block(path: str, blocks: Sequence[StarBlock]) -> StarBlock:
    loops = [block for block in blocks if block.kind == "loop"]
    named = [block for name in PARTICLE_BLOCKS for block in loops if block.name == name]
    found = next((block for block in named if CLASS_COLUMN in block.columns), None)
    if found is not None:
        return found
    if named:
        raise InputError(
            f"{path} has no column _{CLASS_COLUMN}, so it says no class for its particles and there "
            "is nothing to regroup: give the run_itNNN_data.star of a 3D classification"
        )
    names = ", ".join(f"data_{block.name}" for block in blocks)
    raise InputError(
        f"{path} has no table of particles: expected a loop named data_particles, data_images or data_, "
        f"found {names}"
    )


def optics_groups(survey: StarSurvey) -> list[dict[str, str]]:
    """Optics groups of a file, none before RELION 3.1."""
    block = next((block for block in survey.blocks if block.name == "optics"), None)
    return [] if block is None else read_small_block(survey.path, block)


def other_blocks(survey: StarSurvey) -> list[bytes]:
    """Text of all blocks but the particles', without comments and layout: what two files must share."""
    return [_text_of_block(survey.path, block) for block in survey.blocks if block is not survey.block]


def _text_of_block(path: str, block: StarBlock) -> bytes:
    if block.stop - block.start > FRAGMENT_BYTES:
        raise InputError(f"{path}: the block data_{block.name} is larger than 64 MB")
    with storage.open_reading(path) as stream:
        stream.seek(block.start)
        lines = stream.read(block.stop - block.start).splitlines()
    words = (line.split() for line in lines if not line.lstrip().startswith(b"#"))
    return b"\n".join(b" ".join(line) for line in words if line)
