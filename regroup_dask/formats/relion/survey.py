"""One pass over a star file of particles: types that hold every row, classes, and where fragments begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.particle_source import FRAGMENT_BYTES
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.relion.star_columns import FLOAT, INTEGER, SurveyedRows, survey_rows, value_of_row
from regroup_dask.formats.relion.star_text import (
    LONGEST_LINE_BYTES,
    StarBlock,
    blocks_before_rows,
    locate_blocks,
    read_lines,
    read_small_block,
)

ClassRows = tuple[tuple[float, int, int], ...]
LARGEST_CLASS = 2**31
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
    class_counts: ClassRows
    """distinct values of rlnClassNumber, how many rows have each, and how many bytes these take"""


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
    stop_line: int
    """line after the last of the block, from 1"""


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
    stop: int
    """byte where another block begins, or the piece ends"""
    cuts: tuple[tuple[int, int, int, ClassRows], ...]
    """end of a fragment: byte, lines of the piece before it, rows, and rows and bytes per class"""
    problem: str = ""
    """why the piece cannot be read; it may lie behind the particles, where that does not matter"""


def survey_file(path: str, *, fragment_rows: int | None, run: RunPieces = in_this_process) -> StarSurvey:
    """Read a file once, in pieces of about 64 MB, and decide types and fragments.

    Parameters
    ----------
    path : str
    fragment_rows : int, optional
        Rows of a fragment; by default as many as take about 64 MB of text.
    run : RunPieces
        Runs `survey_piece` over the pieces, wherever.

    Raises
    ------
    InputError
        There is no block of particles, no class column, no row, or a row with a wrong number of values.
    """
    blocks = blocks_before_rows(path, PARTICLE_BLOCKS, CLASS_COLUMN)
    if blocks is None:
        return _survey_block(path, locate_blocks(path), None, fragment_rows, run)
    size = storage.size_bytes(path)
    found = _survey_block(path, blocks, size, fragment_rows, run)
    behind = locate_blocks(path, start=found.block.stop, first_line=found.stop_line) if found.block.stop < size else ()
    if _particle_block(path, (*found.blocks, *behind)) == found.block:
        return replace(found, blocks=(*found.blocks, *behind))
    return _survey_block(path, locate_blocks(path), None, fragment_rows, run)


def _survey_block(
    path: str, blocks: tuple[StarBlock, ...], size: int | None, fragment_rows: int | None, run: RunPieces
) -> StarSurvey:
    """Survey the block of particles; with ``size`` it is the last of those known, and its end is looked for as well."""
    block = _particle_block(path, blocks)
    stop = block.stop if size is None else size
    edges = [block.labels_stop, stop]
    if fragment_rows is None:
        edges = _cut_at_lines(path, block.labels_stop, stop)
    pieces = [StarPiece(path, begin, end, block.columns, fragment_rows) for begin, end in pairwise(edges)]
    ranges: list[StarRange] = []
    types = [INTEGER] * len(block.columns)
    rows_start = begin = -1
    line = begin_line = block.labels_stop_line
    for piece, found in zip(pieces, run(survey_piece, pieces), strict=True):
        if found.problem:
            raise InputError(found.problem)
        types = [max(pair) for pair in zip(types, found.types, strict=True)]
        if found.rows_start >= 0 and rows_start < 0:
            rows_start = begin = found.rows_start
            begin_line = line + found.lines_before
        for cut, lines, n_rows, class_counts in found.cuts:
            ranges.append(StarRange(begin, cut, begin_line, n_rows, class_counts))
            begin, begin_line = cut, line + lines
        line += found.n_lines
        if found.stop < piece.stop:
            stop = found.stop
            break
    if not ranges:
        raise InputError(f"{path}: the block data_{block.name} has no particles")
    whole = block._replace(stop=stop)
    part = StarPart(path, block.start, block.labels_stop, rows_start, ranges[-1].stop)
    known = tuple(whole if other is block else other for other in blocks)
    return StarSurvey(path, whole, part, known, tuple(types), tuple(ranges), line)


def survey_piece(piece: StarPiece) -> PieceSurvey:
    """Find types, rows and classes of a piece."""
    try:
        return _survey_piece(piece, 1)
    except InputError:
        # Only now is it worth the time to find which lines these are.
        lines = (chunk.text.count(b"\n") for chunk in read_lines(piece.path, 0, piece.start))
        try:
            return _survey_piece(piece, 1 + sum(lines))
        except InputError as error:
            return PieceSurvey((INTEGER,) * len(piece.columns), -1, 0, 0, piece.stop, (), str(error))


def _survey_piece(piece: StarPiece, first_line: int) -> PieceSurvey:
    class_column = piece.columns.index(CLASS_COLUMN)
    types: tuple[int, ...] = (INTEGER,) * len(piece.columns)
    cuts: list[tuple[int, int, int, ClassRows]] = []
    counts: Counter[float] = Counter()
    sizes: Counter[float] = Counter()
    begin = -1  # of the row that comes next; comments before it belong to it
    rows_start, lines_before, n_lines, n_rows, last_stop, last_line = -1, 0, 0, 0, piece.start, 0
    stop = piece.stop
    for chunk in read_lines(piece.path, piece.start, piece.stop, first_line=first_line, count=False):
        line = first_line + n_lines
        found = survey_rows(chunk.text, types, class_column, path=piece.path, first_line=line)
        types, classes = found.types, found.classes
        if len(classes):
            _check_classes(found, chunk.text, piece, line)
            if rows_start < 0:
                rows_start, lines_before = chunk.start + found.first, n_lines + chunk.text.count(b"\n", 0, found.first)
                begin = rows_start
            stops = found.row_stops.astype(np.int64) + chunk.start
            n_bytes = np.diff(stops, prepend=begin)
            begin = int(stops[-1])
            row = 0
            while row < len(classes):
                taken = len(classes) - row
                if piece.fragment_rows is not None:
                    taken = min(taken, piece.fragment_rows - n_rows)
                for number, n, size in _by_class(classes[row : row + taken], n_bytes[row : row + taken]):
                    counts[number] += n
                    sizes[number] += size
                row += taken
                n_rows += taken
                last_stop = min(chunk.start + int(found.row_stops[row - 1]), piece.stop)
                last_line = n_lines + int(found.row_lines[row - 1]) + 1
                if n_rows == piece.fragment_rows:
                    cuts.append((last_stop, last_line, n_rows, _class_rows(counts, sizes)))
                    n_rows = 0
                    counts.clear()
                    sizes.clear()
        n_lines += found.n_lines
        if found.stop < len(chunk.text):
            stop = chunk.start + found.stop
            break
    if n_rows:
        cuts.append((last_stop, last_line, n_rows, _class_rows(counts, sizes)))
    return PieceSurvey(types, rows_start, lines_before, n_lines, stop, tuple(cuts))


def _check_classes(found: SurveyedRows, text: bytes, piece: StarPiece, line: int) -> None:
    """Refuse classes that are no whole numbers."""
    numbers = found.classes
    broken = np.flatnonzero(~(numbers == np.round(numbers)) | (np.abs(numbers) >= LARGEST_CLASS))
    if not len(broken):
        return
    row = int(broken[0])
    start = int(found.row_stops[row - 1]) if row else found.first
    place = piece.columns.index(CLASS_COLUMN)
    word = value_of_row(text[start : int(found.row_stops[row])], place, len(piece.columns))
    if found.types[place] > FLOAT:
        example = repr(word.decode("utf-8", "replace"))
        raise InputError(
            f"{piece.path}, near line {line + int(found.row_lines[row])}: _{CLASS_COLUMN} holds text, not numbers, for "
            f"example {example}"
        )
    raise InputError(f"{piece.path}: _{CLASS_COLUMN} holds {float(word)}, which is no class number")


def _by_class(classes: np.ndarray, n_bytes: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """Yield each class, how many rows have it, and the bytes of these."""
    values, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    sizes = np.bincount(inverse, weights=n_bytes).astype(np.int64)
    yield from zip(values.tolist(), counts.tolist(), sizes.tolist(), strict=True)


def _class_rows(counts: Counter[float], sizes: Counter[float]) -> ClassRows:
    return tuple((number, counts[number], sizes[number]) for number in sorted(counts))


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
