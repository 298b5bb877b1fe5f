"""RELION particles as a source of fragments: byte ranges of rows, each parsed alone.

Opening a file surveys every byte of it once, a few megabytes at a time: a column's type is decided by all of
its rows, and a fragment begins where a row begins. Reading a fragment needs nothing but its byte range.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats.particles import FRAGMENT_BYTES, ParticleSource
from regroup_dask.formats.relion.poses import (
    PixelSize,
    PoseColumns,
    find_pixel_size,
    find_pose_columns,
    poses_of_rows,
)
from regroup_dask.formats.relion.star_columns import INTEGER, TYPES, rows_to_table, survey_rows
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
class StarFragment:
    """Some rows of a star file, as a byte range cut at line ends."""

    index: int
    first_row: int
    n_rows: int
    path: str
    start: int
    stop: int
    first_line: int
    columns: tuple[str, ...] = field(repr=False)
    types: tuple[int, ...] = field(repr=False)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, in file order; ``columns=None`` means all."""
        missing = [name for name in columns or () if name not in self.columns]
        if missing:
            raise InputError(f"{self.path} has no column _{missing[0]}; it has: {', '.join(self.columns)}")
        tables = []
        for chunk in read_lines(self.path, self.start, self.stop, first_line=self.first_line):
            tokens = split_rows(chunk.text, len(self.columns), path=self.path, first_line=chunk.first_line)
            try:
                tables.append(rows_to_table(tokens, self.columns, self.types, wanted=columns))
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.path} changed since it was opened, near line {chunk.first_line}: {error}"
                ) from None
        table = pa.concat_tables(tables)
        if table.num_rows != self.n_rows and table.num_columns:
            raise InputError(
                f"{self.path} changed since it was opened: {table.num_rows} rows from line "
                f"{self.first_line} on, where there were {self.n_rows}"
            )
        return table


@dataclass(frozen=True)
class StarPart:
    """The text around the rows of one star file: where its particles stand."""

    path: str
    block_start: int
    labels_stop: int
    rows_start: int
    rows_stop: int


@dataclass(frozen=True, kw_only=True)
class RelionParticles(ParticleSource):
    """Particles of RELION star files.

    Attributes
    ----------
    part : StarPart
        The file whose header and other blocks the files written will have.
    poses : PoseColumns or None
        The columns of the poses, where the file has them.
    pixel_size : PixelSize or None
        Where the pixel size of a row's image is found.
    """

    part: StarPart
    poses: PoseColumns | None = None
    pixel_size: PixelSize | None = None

    def class_posteriors(self, table: pa.Table) -> np.ndarray:
        """One-hot posteriors, f32[n, n_classes]; a class number below 1 says nothing, and is all zero."""
        ids = class_ids_of_rows(table)
        index = np.searchsorted(self.class_ids, ids)
        index = np.minimum(index, max(len(self.class_ids) - 1, 0))
        posteriors = np.zeros((len(ids), len(self.class_ids)), dtype=np.float32)
        if self.class_ids:
            known = np.flatnonzero(np.asarray(self.class_ids)[index] == ids)
            posteriors[known, index[known]] = 1
        return posteriors

    def particle_poses(
        self, table: pa.Table, class_index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation f64[n, 3, 3] (particle to volume) and shift f64[n, 2|3] in angstrom, or None.

        The particle's frame is that of its image or subtomogram box. Where there are columns
        rlnTomoSubtomogramRot/Tilt/Psi, which turned the box in the tomogram, they apply after the pose, are
        the same before and after a class moves, and are left to the reader.
        """
        if self.poses is None:
            return None
        if self.poses.in_pixels and self.pixel_size is None:
            return None
        return poses_of_rows(self.poses, table, self.pixel_size)


def class_ids_of_rows(table: pa.Table) -> np.ndarray:
    """Zero-based class of each row, i64[n]; negative where RELION says none."""
    return table.column(CLASS_COLUMN).to_numpy().astype(np.int64) - 1


def open_relion_particles(
    paths: Sequence[str], *, fragment_rows: int | None = None, scratch: str | None = None
) -> RelionParticles:
    """Open RELION star files (3.0 to 5, subtomograms too) as particles.

    Parameters
    ----------
    paths : sequence of str
        Files with the same columns and the same other blocks, such as the optics groups.
    fragment_rows : int, optional
        Rows of a fragment; by default as many as take about 64 MB of text.
    scratch
        Not needed: fragments read the files themselves.

    Raises
    ------
    InputError
        There is no block of particles, no class column, no row, or a row with a wrong number of values.
    """
    surveys = [_survey_file(path, fragment_rows) for path in paths]
    first = surveys[0]
    for survey in surveys[1:]:
        if survey.block.columns != first.block.columns or survey.other_blocks != first.other_blocks:
            same_columns = survey.block.columns == first.block.columns
            what = "optics groups or other blocks" if same_columns else "columns"
            raise InputError(
                f"{first.path} and {survey.path} have different {what}: join them with RELION first"
            )
    columns = first.block.columns
    types = tuple(max(survey.types[i] for survey in surveys) for i in range(len(columns)))
    fragments: list[StarFragment] = []
    row = 0
    for survey in surveys:
        for start, stop, line, n_rows in survey.ranges:
            fragments.append(
                StarFragment(len(fragments), row, n_rows, survey.path, start, stop, line, columns, types)
            )
            row += n_rows
    numbers = np.unique(np.concatenate([survey.class_numbers for survey in surveys]))
    optics = next((rows for name, rows in first.small_blocks if name == "optics"), [])
    poses = find_pose_columns(first.part.path, columns, types)
    pixel_size = find_pixel_size(first.part.path, columns, optics)
    pixel = pixel_size.single() if pixel_size is not None else None
    if pixel_size is not None and pixel_size.columns:
        pixels = pixel_size.of_rows(fragments[0].read(pixel_size.columns))
        pixel = float(pixels[0]) if (pixels == pixels[0]).all() else pixel
    names = ("rlnImageName", "rlnTomoParticleName")
    return RelionParticles(
        kind="relion",
        files=tuple(paths),
        schema=pa.schema([(name, TYPES[kind]) for name, kind in zip(columns, types, strict=True)]),
        fragments=tuple(fragments),
        class_ids=tuple(int(number) - 1 for number in numbers if number >= 1),
        posterior_columns=(CLASS_COLUMN,),
        hard=True,
        voxel_size_angstrom=pixel,
        particle_columns=tuple(name for name in names if name in columns)[:1],
        lines=tuple(_describe(first, len(paths), row, numbers, poses, pixel)),
        part=first.part,
        poses=poses,
        pixel_size=pixel_size,
    )


@dataclass
class _Survey:
    path: str
    block: StarBlock
    part: StarPart
    other_blocks: tuple[bytes, ...]
    small_blocks: tuple[tuple[str, list[dict[str, str]]], ...]
    types: tuple[int, ...]
    ranges: list[tuple[int, int, int, int]]
    """start, stop, first line, rows of each fragment"""
    class_numbers: np.ndarray


def _survey_file(path: str, fragment_rows: int | None) -> _Survey:
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
    others = [other for other in blocks if other is not block]
    return _Survey(
        path,
        block,
        part,
        tuple(_text_of_block(path, other) for other in others),
        tuple((other.name, read_small_block(path, other)) for other in others if other.name == "optics"),
        types,
        ranges,
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


def _text_of_block(path: str, block: StarBlock) -> bytes:
    if block.stop - block.start > FRAGMENT_BYTES:
        raise InputError(f"{path}: the block data_{block.name} is larger than 64 MB")
    with open(path, "rb") as stream:
        stream.seek(block.start)
        lines = stream.read(block.stop - block.start).splitlines()
    words = (line.split() for line in lines if not line.lstrip().startswith(b"#"))
    return b"\n".join(b" ".join(line) for line in words if line)


def _describe(
    first: _Survey,
    n_files: int,
    n_rows: int,
    numbers: np.ndarray,
    poses: PoseColumns | None,
    pixel: float | None,
) -> list[str]:
    name = os.path.basename(first.path) + (f" and {n_files - 1} more" if n_files > 1 else "")
    real = [int(number) for number in numbers if number >= 1]
    lines = [f"{name}: {n_rows} RELION particles, {len(first.block.columns)} columns, {len(real)} classes"]
    if any(number < 1 for number in numbers):
        lines.append(f"{name}: particles with a class number below 1 have no class and remain")
    if poses is None:
        lines.append(f"{name}: without rlnAngleRot, rlnAngleTilt and rlnAnglePsi no pose is updated")
    elif pixel is not None:
        lines.append(f"{name}: pixel size of the particles {pixel:.4f} A")
    return lines
