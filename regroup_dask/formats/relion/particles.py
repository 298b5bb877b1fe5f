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
from regroup_dask.formats.particle_source import FragmentRows, ParticleSource
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.relion.poses import (
    ANGLES,
    PixelSize,
    PoseColumns,
    find_pixel_size,
    find_pose_columns,
    poses_of_rows,
)
from regroup_dask.formats.relion.star_columns import TYPES, ReadRows, read_rows
from regroup_dask.formats.relion.star_text import read_lines
from regroup_dask.formats.relion.survey import (
    CLASS_COLUMN,
    StarPart,
    StarSurvey,
    optics_groups,
    other_blocks,
    survey_file,
)


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
    class_counts: tuple[tuple[int, int, int], ...]
    """classes (zero-based; negative: none), how many rows have each, and how many bytes these take"""
    columns: tuple[str, ...] = field(repr=False)
    types: tuple[int, ...] = field(repr=False)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, in file order; ``columns=None`` means all."""
        missing = [name for name in columns or () if name not in self.columns]
        if missing:
            raise InputError(f"{self.path} has no column _{missing[0]}; it has: {', '.join(self.columns)}")
        return self.read_rows(columns).table

    def read_rows(self, columns: Sequence[str] | None = None, placed: Sequence[int] = ()) -> ReadRows:
        """Read the rows, and with them the text and the positions of the values of some columns."""
        chunks = read_lines(self.path, self.start, self.stop, first_line=self.first_line, count=False)
        return read_rows(
            chunks, self.columns, self.types, n_rows=self.n_rows, path=self.path, wanted=columns, placed=placed
        )


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

    def class_counts(self, fragment: StarFragment) -> np.ndarray:
        """Rows of a fragment per class, and without one; i64[n_classes + 1]."""
        counts = np.zeros(len(self.class_ids) + 1, np.int64)
        for class_id, n_rows, _ in fragment.class_counts:
            counts[self.class_ids.index(class_id) if class_id in self.class_ids else -1] += n_rows
        return counts

    @property
    def placed_columns(self) -> tuple[int, ...]:
        """Columns whose values may be written anew, and the last one, after which others are written."""
        poses = self.poses
        names = {CLASS_COLUMN, self.schema.names[-1]}
        if poses is not None:
            names |= {*ANGLES, *poses.origins, *poses.angle_priors, *poses.origin_priors}
        return tuple(index for index, name in enumerate(self.schema.names) if name in names)

    def read_for_writing(self, fragment: StarFragment) -> FragmentRows:
        """Read a fragment with its text, so that rows can be written without reading it again."""
        rows = fragment.read_rows(placed=self.placed_columns)
        return FragmentRows(rows.table, rows.chunks)

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
    paths: Sequence[str],
    *,
    fragment_rows: int | None = None,
    scratch: str | None = None,
    run: RunPieces = in_this_process,
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
    run : RunPieces
        Where the files are surveyed.

    Raises
    ------
    InputError
        There is no block of particles, no class column, no row, or a row with a wrong number of values.
    """
    surveys = [survey_file(path, fragment_rows=fragment_rows, run=run) for path in paths]
    first = surveys[0]
    for survey in surveys[1:]:
        same_columns = survey.block.columns == first.block.columns
        if not same_columns or other_blocks(survey) != other_blocks(first):
            what = "optics groups or other blocks" if same_columns else "columns"
            raise InputError(
                f"{first.path} and {survey.path} have different {what}: join them with RELION first"
            )
    columns = first.block.columns
    types = tuple(max(survey.types[i] for survey in surveys) for i in range(len(columns)))
    fragments: list[StarFragment] = []
    row = 0
    for survey in surveys:
        for found in survey.ranges:
            place = (found.start, found.stop, found.first_line)
            counts = tuple((int(number) - 1, n, size) for number, n, size in found.class_counts)
            fragments.append(
                StarFragment(len(fragments), row, found.n_rows, survey.path, *place, counts, columns, types)
            )
            row += found.n_rows
    numbers = np.array(sorted({class_id + 1 for fragment in fragments for class_id, _, _ in fragment.class_counts}))
    if numbers[-1] < 1:
        raise InputError(f"{first.path}: no particle has a class: all values of _{CLASS_COLUMN} are below 1")
    poses = find_pose_columns(first.part.path, columns, types)
    pixel_size = find_pixel_size(first.path, columns, types, optics_groups(first))
    pixel = None if pixel_size is None else pixel_size.single()
    if pixel_size is not None and not pixel_size.by_group:
        pixels = pixel_size.of_rows(fragments[0].read(pixel_size.columns))
        pixel = float(pixels[0]) if (pixels == pixels[0]).all() and 0 < pixels[0] < np.inf else None
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


def _describe(
    first: StarSurvey,
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
