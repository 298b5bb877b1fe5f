"""The RELION side of the output, ``relion/``: star files that the next RELION job reads.

``regrouped_particles.star``        the grouped particles in input order; rlnClassNumber is superclass + 1
``particles_superclass_K.star``     those of superclass K (from 0), with the same class number
``remaining_particles.star``        all others, their rows untouched
``model.star``                      the superclass maps as a RELION model
``run_it000_classNNN.mrc``          the maps themselves, NNN being superclass + 1

Each star file has the header, optics groups and other blocks of the input as they are. Rows differ from the
input's in the class number and, where a class moved, in the pose; all other bytes are the input's.

A task writes the rows of its fragment into one file of its own, sorted into the files they go to; the driver
then only joins bytes. Sections of a part file: regrouped, superclass 0 .. K - 1, remaining; their lengths, as
little-endian i64, end the file.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from regroup_dask.formats import storage
from regroup_dask.formats.regroup_plan import Assignment, RegroupPlan, SuperclassMaps, assigned_order
from regroup_dask.formats.relion.model import write_model
from regroup_dask.formats.relion.particles import RelionParticles, StarFragment
from regroup_dask.formats.relion.pose_update import check_poses_can_follow, new_columns, new_values
from regroup_dask.formats.relion.star_rewrite import rewrite_rows
from regroup_dask.formats.relion.star_text import read_lines, split_rows

COPY_BYTES = 8 * 2**20


@dataclass(frozen=True)
class RelionOutputs:
    """Where the files of RELION's side go."""

    folder: str
    parts: str
    """folder of the tasks' part files; gone when the output is finished"""


def create_outputs(
    source: RelionParticles, plan: RegroupPlan, counts: np.ndarray, folder: str | os.PathLike[str]
) -> RelionOutputs:
    """Make the folders, after a check that the poses of this file can follow their classes.

    Parameters
    ----------
    source : RelionParticles
    plan : RegroupPlan
    counts : i64[n_fragments, K + 1]
    folder : path
        The whole output folder.

    Raises
    ------
    InputError
        Poses shall follow, and the file does not say the pixel size its origins are given in.
    """
    check_poses_can_follow(source, plan)
    outputs = RelionOutputs(os.path.join(folder, "relion"), os.path.join(folder, "relion", ".parts"))
    os.makedirs(outputs.parts, exist_ok=True)
    return outputs


def write_fragment(
    source: RelionParticles,
    fragment: StarFragment,
    table: pa.Table,
    assignment: Assignment,
    plan: RegroupPlan,
    outputs: RelionOutputs,
    counts_before: np.ndarray,
) -> None:
    """Write the part file of one fragment; may run twice."""
    groups = assigned_order(assignment.superclass, plan.n_superclasses)
    sections = [np.flatnonzero(assignment.superclass >= 0), *groups]
    changes = new_values(source, table, assignment, plan)
    texts: list[list[np.ndarray]] = [[] for _ in sections]
    first_row = 0
    leftover = b""  # comment lines between the last row of a chunk and the first of the next
    for chunk in read_lines(
        fragment.path, fragment.start, fragment.stop, first_line=fragment.first_line, count=False
    ):
        text = leftover + chunk.text
        tokens = split_rows(text, len(fragment.columns), path=fragment.path, first_line=chunk.first_line)
        n_rows = len(tokens.starts)
        leftover = text[int(tokens.line_stops[-1]) if n_rows else 0 :]
        if n_rows == 0:
            continue
        rewritten = rewrite_rows(tokens, [change.rows(first_row, first_row + n_rows) for change in changes])
        for rows, section in zip(sections, texts, strict=True):
            begin, end = np.searchsorted(rows, [first_row, first_row + n_rows])
            section.append(rewritten.text(rows[begin:end] - first_row))
        first_row += n_rows
    path = _part_path(outputs, fragment.index)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    lengths = [sum(len(text) for text in section) for section in texts]
    with open(unfinished, "wb") as stream:
        for section in texts:
            for piece in section:
                stream.write(piece.data)
        stream.write(np.array(lengths, dtype="<i8").tobytes())
    os.replace(unfinished, path)


def finish_outputs(
    source: RelionParticles,
    plan: RegroupPlan,
    outputs: RelionOutputs,
    counts: np.ndarray,
    maps: SuperclassMaps | None,
) -> tuple[str, ...]:
    """Join the part files to star files, write model.star, and return the paths of all.

    A second call finds the part files gone and leaves the star files as they are.
    """
    k = plan.n_superclasses
    names = [
        "regrouped_particles",
        *(f"particles_superclass_{index}" for index in range(k)),
        "remaining_particles",
    ]
    paths = [Path(outputs.folder) / f"{name}.star" for name in names]
    if os.path.isdir(outputs.parts):
        for section, path in enumerate(paths):
            labels = () if section == len(paths) - 1 else new_columns(source, plan)
            _join(source, outputs, section, len(paths), labels, path)
    if maps is not None:
        totals = np.asarray(counts).sum(axis=0)[:k]
        paths.extend(write_model(Path(outputs.folder), maps, totals, n_dimensions=_image_dimensions(source)))
    shutil.rmtree(outputs.parts, ignore_errors=True)
    return tuple(str(path) for path in paths)


def _part_path(outputs: RelionOutputs, index: int) -> Path:
    return Path(outputs.parts) / f"{index:06d}.rows"


def _text_around_rows(
    source: RelionParticles, labels: tuple[str, ...], *, empty: bool
) -> tuple[bytes, bytes]:
    """Everything before the first row and after the last, with labels of new columns added.

    A table without rows goes to the end of the file: other readers take a comment after it for its first row.
    """
    part = source.part
    with storage.open_reading(part.path) as stream:
        before = stream.read(part.rows_start)
        stream.seek(part.rows_stop)
        after = stream.read()
    header, rest = before[: part.labels_stop], before[part.labels_stop :]
    newline = b"\r\n" if header.endswith(b"\r\n") else b"\n"
    n_columns = len(source.schema.names)
    lines = [f"_{label} #{n_columns + 1 + index}".encode() + newline for index, label in enumerate(labels)]
    table = header[part.block_start :] + b"".join(lines)
    if empty:
        return header[: part.block_start] + after.rstrip() + newline * 2 + table + newline, b""
    return header[: part.block_start] + table + rest, after


def _join(
    source: RelionParticles,
    outputs: RelionOutputs,
    section: int,
    n_sections: int,
    labels: tuple[str, ...],
    path: Path,
) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    part_paths = [_part_path(outputs, fragment.index) for fragment in source.fragments]
    lengths = [_lengths(part_path, n_sections) for part_path in part_paths]
    empty = not any(length[section] for length in lengths)
    before, after = _text_around_rows(source, labels, empty=empty)
    with open(unfinished, "wb") as joined:
        joined.write(before)
        for part_path, length in zip(part_paths, lengths, strict=True):
            with open(part_path, "rb") as part:
                part.seek(int(length[:section].sum()))
                _copy(part, joined, int(length[section]))
        joined.write(after)
    os.replace(unfinished, path)


def _lengths(path: Path, n_sections: int) -> np.ndarray:
    with open(path, "rb") as part:
        part.seek(-8 * n_sections, os.SEEK_END)
        return np.frombuffer(part.read(8 * n_sections), dtype="<i8")


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    target.flush()  # what comes is written past the buffer
    while n_bytes > 0:
        written = _copy_within_kernel(source, target, n_bytes)
        if not written:
            text = source.read(min(n_bytes, COPY_BYTES))
            if not text:
                raise OSError("a part file of the RELION output is shorter than it says")
            target.write(text)
            target.flush()
            written = len(text)
        n_bytes -= written


def _copy_within_kernel(source: BinaryIO, target: BinaryIO, n_bytes: int) -> int:
    """Copy without passing the bytes through this process; 0 where the system or file system cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    start = source.tell()
    try:
        written = os.copy_file_range(source.fileno(), target.fileno(), n_bytes, start)
    except OSError:
        return 0
    source.seek(start + written)
    return written


def _image_dimensions(source: RelionParticles) -> int:
    return 2 if source.poses is None else source.poses.n_dimensions
