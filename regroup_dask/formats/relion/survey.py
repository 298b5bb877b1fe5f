"""One pass over a star file of particles: types that hold every row, classes, and where fragments begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.particles import FRAGMENT_BYTES
from regroup_dask.formats.relion.star_columns import INTEGER, survey_rows
from regroup_dask.formats.relion.star_text import (
    CHUNK_BYTES,
    StarBlock,
    locate_blocks,
    read_lines,
    read_small_block,
    split_rows,
)

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
class StarSurvey:
    """What a pass over one file found."""

    path: str
    block: StarBlock
    part: StarPart
    blocks: tuple[StarBlock, ...]
    """all blocks of the file"""
    types: tuple[int, ...]
    """index into `star_columns.TYPES` for each column"""
    ranges: tuple[tuple[int, int, int, int], ...]
    """start, stop, first line, rows of each fragment"""
    class_numbers: np.ndarray
    """i64[n], the distinct values of rlnClassNumber, sorted"""


def survey_file(path: str, *, fragment_rows: int | None) -> StarSurvey:
    """Read a file once, a few megabytes at a time, and decide types and fragments.

    Raises
    ------
    InputError
        There is no block of particles, no class column, no row, or a row with a wrong number of values.
    """
    blocks = locate_blocks(path)
    block = _particle_block(path, blocks)
    n_columns = len(block.columns)
    types: tuple[int, ...] = (INTEGER,) * n_columns
    ranges: list[tuple[int, int, int, int]] = []
    numbers: list[np.ndarray] = []
    begin: tuple[int, int] | None = None  # byte and line where the fragment at hand begins
    n_rows = 0
    rows_start = rows_stop = -1
    next_line = 0
    for chunk in read_lines(path, block.labels_stop, block.stop, first_line=block.labels_stop_line):
        tokens = split_rows(chunk.text, n_columns, path=path, first_line=chunk.first_line)
        if not len(tokens.starts):
            continue
        try:
            types, found = survey_rows(tokens, block.columns, types, CLASS_COLUMN)
        except InputError as error:
            raise InputError(f"{path}, near line {chunk.first_line}: {error}") from None
        numbers.append(found)
        if rows_start < 0:
            first = int(tokens.line_starts[0])
            rows_start = rows_stop = chunk.start + first
            next_line = chunk.first_line + chunk.text.count(b"\n", 0, first)
        row = 0
        while row < len(tokens.starts):
            if begin is None:  # a comment between two fragments belongs to the later one
                begin, n_rows = (rows_stop, next_line), 0
            rest = len(tokens.starts) - row
            taken = rest if fragment_rows is None else min(rest, fragment_rows - n_rows)
            row += taken
            n_rows += taken
            row_stop = int(tokens.line_stops[row - 1])
            rows_stop = min(chunk.start + row_stop, block.stop)
            large = rows_stop - begin[0] > FRAGMENT_BYTES - CHUNK_BYTES
            if large if fragment_rows is None else n_rows == fragment_rows:
                next_line = chunk.first_line + chunk.text.count(b"\n", 0, row_stop)
                ranges.append((begin[0], rows_stop, begin[1], n_rows))
                begin = None
    if begin is not None:
        ranges.append((begin[0], rows_stop, begin[1], n_rows))
    if not ranges:
        raise InputError(f"{path}: the block data_{block.name} has no particles")
    class_numbers = np.unique(np.concatenate(numbers))
    broken = class_numbers[class_numbers != np.round(class_numbers)]
    if len(broken):
        raise InputError(f"{path}: _{CLASS_COLUMN} holds {broken[0]}, which is no class number")
    part = StarPart(path, block.start, block.labels_stop, rows_start, rows_stop)
    return StarSurvey(
        path,
        block,
        part,
        blocks,
        types,
        tuple(ranges),
        class_numbers.astype(np.int64),
    )


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
    with open(path, "rb") as stream:
        stream.seek(block.start)
        lines = stream.read(block.stop - block.start).splitlines()
    words = (line.split() for line in lines if not line.lstrip().startswith(b"#"))
    return b"\n".join(b" ".join(line) for line in words if line)
