"""The RELION side of the output, ``relion/``: star files that the next RELION job reads.

``regrouped_particles.star``        the grouped particles in input order; rlnClassNumber is superclass + 1
``particles_superclass_K.star``     those of superclass K (from 0), with the same class number
``remaining_particles.star``        all others, their rows untouched
``model.star``                      the superclass maps as a RELION model
``run_it000_classNNN.mrc``          the maps themselves, NNN being superclass + 1

Each star file has the header, optics groups and other blocks of the input as they are. Rows differ from the
input's in the class number and, where a class moved, in the pose; all other bytes are the input's.

How many bytes the rows of each class take is known from opening the file, and a new value is as wide as the field it
stands in: so the star files are laid out whole, and each task writes the rows of its fragment to their places. Where
values do not fit, a task writes a *part file* instead, and says how many bytes go to each star file; when all tasks are
done, files of the right size are laid out and everything is copied to its place, by tasks again (`place_fragment`).
A part file is pieces of a few megabytes, each sorted into sections: regrouped, superclass 0 .. K - 1, remaining; and at
its end the lengths of the sections of every piece and the number of pieces, as little-endian i64.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from regroup_dask.formats import storage
from regroup_dask.formats.regroup_plan import Assignment, RegroupPlan, SuperclassMaps, assigned_order
from regroup_dask.formats.relion.model import write_model
from regroup_dask.formats.relion.particles import RelionParticles, StarFragment
from regroup_dask.formats.relion.pose_update import check_poses_can_follow, new_columns, new_values
from regroup_dask.formats.relion.star_rewrite import RewrittenRows, rewrite_rows
from regroup_dask.formats.relion.star_text import RowTokens
from regroup_dask.formats.run_folder import WORK
from regroup_dask.formats.store_parts import JoinedFile, write_part

COPY_BYTES = 8 * 2**20


@dataclass(frozen=True)
class RelionOutputs:
    """Where the files of RELION's side go."""

    folder: str
    parts: str
    """folder of part files and of files laid out too small; gone when the output is finished"""
    starts: Mapping[int, np.ndarray]
    """i64[K + 2] for each fragment: where its rows begin in each star file"""
    section_bytes: Mapping[int, np.ndarray]
    """i64[K + 2] for each fragment: the bytes they take there when no row changes its length"""

    def of_fragment(self, index: int) -> RelionOutputs:
        """What the task of one fragment needs to know."""
        if index not in self.starts:
            return self
        return replace(self, starts={index: self.starts[index]}, section_bytes={index: self.section_bytes[index]})

    def files_to_join(self, source: RelionParticles, plan: RegroupPlan, counts: np.ndarray) -> list[JoinedFile]:
        """Files that are put together from parts when all of them are written, in an object store."""
        if not storage.is_remote(self.folder):
            return []
        totals = np.asarray(counts).sum(axis=0)
        rows = [totals[:-1].sum(), *totals]
        paths = _star_paths(self, plan)
        files = []
        for section, path in enumerate(paths):
            labels = () if section == len(paths) - 1 else new_columns(source, plan)
            around = _text_around_rows(source, labels, empty=not rows[section])
            files.append(JoinedFile(str(path), self.parts, len(counts), section, len(paths), *around))
        return files


def create_outputs(
    source: RelionParticles, plan: RegroupPlan, counts: np.ndarray, folder: str | os.PathLike[str]
) -> RelionOutputs:
    """Lay out the star files, after a check that the poses of this file can follow their classes.

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
    own = os.path.join(folder, "relion")
    section_bytes = np.array([_expected_bytes(fragment, plan) for fragment in source.fragments], np.int64)
    section_bytes = section_bytes.reshape(-1, plan.n_superclasses + 2)
    if storage.is_remote(folder):
        return RelionOutputs(own, os.path.join(folder, WORK, "parts", "relion"), {}, {})
    outputs = RelionOutputs(own, os.path.join(own, ".parts"), {}, dict(enumerate(section_bytes)))
    os.makedirs(outputs.parts, exist_ok=True)
    return replace(outputs, starts=dict(enumerate(_lay_out(source, plan, outputs, section_bytes, again=False))))


def write_fragment(
    source: RelionParticles,
    fragment: StarFragment,
    table: pa.Table,
    assignment: Assignment,
    plan: RegroupPlan,
    outputs: RelionOutputs,
    counts_before: np.ndarray,
    own: tuple[RowTokens, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Write the rows of one fragment to their places, or to a part file if they do not fit; may run twice.

    Parameters
    ----------
    own : tuple of RowTokens, optional
        The text, as `RelionParticles.read_for_writing` read it.

    Returns
    -------
    dict
        ``section_bytes`` i64[K + 2]: bytes of the fragment in each star file; ``fits``: they are in place.
    """
    placed = source.placed_columns
    if own is None:
        own = fragment.read_rows((), placed).chunks
    changes = new_values(source, table, assignment, plan)
    first_rows = np.cumsum([0, *(len(tokens.starts) for tokens in own)]).tolist()
    rewritten = [
        rewrite_rows(tokens, [change.rows(*rows) for change in changes], placed)
        for tokens, rows in zip(own, pairwise(first_rows), strict=True)
    ]
    sections = [np.flatnonzero(assignment.superclass >= 0), *assigned_order(assignment.superclass, plan.n_superclasses)]
    row_bytes = np.concatenate([np.diff(rows.offsets) for rows in rewritten])
    section_bytes = np.array([row_bytes[rows].sum() for rows in sections], np.int64)
    pieces = _sorted_pieces(rewritten, first_rows, sections)
    if storage.is_remote(outputs.folder):
        write_part(outputs.parts, fragment.index, pieces, len(sections))
        return {}
    fits = np.array_equal(section_bytes, outputs.section_bytes[fragment.index])
    if fits:
        _write_in_place(pieces, _star_paths(outputs, plan), outputs.starts[fragment.index])
    else:
        _write_part(pieces, _part_path(outputs, fragment.index), len(sections))
    return {"section_bytes": section_bytes, "fits": np.asarray(fits)}


def lay_out_again(
    source: RelionParticles, plan: RegroupPlan, outputs: RelionOutputs, results: Sequence[Mapping[str, np.ndarray]]
) -> list[np.ndarray]:
    """Lay the star files out anew where rows did not fit into those that `create_outputs` made.

    Parameters
    ----------
    results : sequence
        What `write_fragment` returned for each fragment.

    Returns
    -------
    list of i64[K + 2]
        Where the rows of each fragment begin in each file, for `place_fragment`; empty when all is in place.
    """
    misfits = [index for index, result in enumerate(results) if not result["fits"]]
    if not any(_part_path(outputs, index).exists() for index in misfits):
        return []
    for path in _star_paths(outputs, plan):
        if not _first_layout(outputs, path).exists():
            os.replace(path, _first_layout(outputs, path))
    section_bytes = np.array([result["section_bytes"] for result in results], np.int64)
    return list(_lay_out(source, plan, outputs, section_bytes, again=True))


def place_fragment(
    fragment: StarFragment, plan: RegroupPlan, outputs: RelionOutputs, starts: np.ndarray
) -> None:
    """Copy the rows of a fragment to where `lay_out_again` wants them; may run twice."""
    paths = _star_paths(outputs, plan)
    part_path = _part_path(outputs, fragment.index)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "r+b", buffering=0)).fileno() for path in paths]
        if not part_path.exists():
            for section, path in enumerate(paths):
                first = stack.enter_context(open(_first_layout(outputs, path), "rb", buffering=0)).fileno()
                size, begin = (int(of[fragment.index][section]) for of in (outputs.section_bytes, outputs.starts))
                _copy(first, files[section], size, begin, int(starts[section]))
            return
        part = stack.enter_context(open(part_path, "rb", buffering=0)).fileno()
        position, target = 0, [int(start) for start in starts]
        for lengths in _lengths(part_path, len(paths)).tolist():
            for section, length in enumerate(lengths):
                _copy(part, files[section], length, position, target[section])
                position += length
                target[section] += length


def finish_outputs(
    source: RelionParticles,
    plan: RegroupPlan,
    outputs: RelionOutputs,
    counts: np.ndarray,
    maps: SuperclassMaps | None,
) -> tuple[str, ...]:
    """Place the rows that did not fit and that no task has placed, write model.star, and return the paths of all files."""
    paths = _star_paths(outputs, plan)
    remote = storage.is_remote(outputs.folder)
    parts = [] if remote else [_part_path(outputs, fragment.index) for fragment in source.fragments]
    if any(part.exists() for part in parts) and not _first_layout(outputs, paths[0]).exists():
        results = [
            {"section_bytes": _lengths(part, len(paths)).sum(axis=0), "fits": np.asarray(False)}
            if part.exists()
            else {"section_bytes": outputs.section_bytes[index], "fits": np.asarray(True)}
            for index, part in enumerate(parts)
        ]
        for fragment, starts in zip(source.fragments, lay_out_again(source, plan, outputs, results), strict=True):
            place_fragment(fragment, plan, outputs, starts)
    if maps is not None:
        totals = np.asarray(counts).sum(axis=0)[: plan.n_superclasses]
        paths.extend(write_model(storage.location(outputs.folder), maps, totals, n_dimensions=_image_dimensions(source)))
    if not remote:
        shutil.rmtree(outputs.parts, ignore_errors=True)
    return tuple(str(path) for path in paths)


def _star_paths(outputs: RelionOutputs, plan: RegroupPlan) -> list[Path]:
    superclasses = [f"particles_superclass_{index}" for index in range(plan.n_superclasses)]
    names = ["regrouped_particles", *superclasses, "remaining_particles"]
    return [storage.location(outputs.folder) / f"{name}.star" for name in names]


def _expected_bytes(fragment: StarFragment, plan: RegroupPlan) -> list[int]:
    """Bytes of a fragment's rows in each star file when all of a class go where the class goes, at their length."""
    result = [0] * (plan.n_superclasses + 2)
    for class_id, _, n_bytes in fragment.class_counts:
        superclass = plan.superclass_of_class.get(class_id, -1) if class_id >= 0 else -1
        result[superclass + 1 if superclass >= 0 else -1] += n_bytes
        result[0] += n_bytes if superclass >= 0 else 0
    return result


def _lay_out(
    source: RelionParticles, plan: RegroupPlan, outputs: RelionOutputs, section_bytes: np.ndarray, *, again: bool
) -> np.ndarray:
    """Make the star files with everything but the rows; returns where those of each fragment begin, i64[n, K + 2].

    A file that is there stays: it belongs to this run, and rows may be in it already.
    """
    total = section_bytes.sum(axis=0)
    starts = []
    for section, path in enumerate(_star_paths(outputs, plan)):
        labels = () if section == len(total) - 1 else new_columns(source, plan)
        before, after = _text_around_rows(source, labels, empty=not total[section])
        starts.append(len(before))
        if path.exists() or (not again and _first_layout(outputs, path).exists()):
            continue
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with open(unfinished, "wb") as stream:
            stream.write(before)
            stream.seek(int(total[section]), os.SEEK_CUR)
            stream.write(after)
            stream.truncate()
        os.replace(unfinished, path)
    return np.array(starts) + np.cumsum(section_bytes, axis=0) - section_bytes


def _sorted_pieces(
    rewritten: Sequence[RewrittenRows], first_rows: Sequence[int], sections: Sequence[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """Yield the text of each section, piece by piece."""
    for rows, (first, last) in zip(rewritten, pairwise(first_rows), strict=True):
        ranges = [np.searchsorted(section, [first, last]) for section in sections]
        yield [rows.text(section[a:b] - first) for section, (a, b) in zip(sections, ranges, strict=True)]


def _write_in_place(pieces: Iterator[list[np.ndarray]], paths: Sequence[Path], starts: np.ndarray) -> None:
    places = [int(start) for start in starts]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "r+b", buffering=0)) for path in paths]
        for texts in pieces:
            for section, text in enumerate(texts):
                files[section].seek(places[section])
                _write_all(files[section], text)
                places[section] += len(text)


def _write_part(pieces: Iterator[list[np.ndarray]], path: Path, n_sections: int) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    lengths: list[list[int]] = []
    with open(unfinished, "wb", buffering=0) as stream:
        for texts in pieces:
            lengths.append([len(text) for text in texts])
            for text in texts:
                _write_all(stream, text)
        index = np.array(lengths, dtype="<i8").reshape(-1)
        _write_all(stream, np.append(index, len(lengths)).astype("<i8").view(np.uint8))
    os.replace(unfinished, path)


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


def _lengths(path: Path, n_sections: int) -> np.ndarray:
    """Bytes of each section of each piece of a part file, i64[n_pieces, n_sections]."""
    with open(path, "rb") as part:
        part.seek(-8, os.SEEK_END)
        n_pieces = int(np.frombuffer(part.read(8), dtype="<i8")[0])
        part.seek(-8 - 8 * n_pieces * n_sections, os.SEEK_END)
        return np.frombuffer(part.read(8 * n_pieces * n_sections), dtype="<i8").reshape(n_pieces, n_sections)


def _write_all(stream: io.FileIO, text: np.ndarray) -> None:
    data = memoryview(text.data)
    while data:
        data = data[stream.write(data) :]


def _first_layout(outputs: RelionOutputs, path: Path) -> Path:
    """Where a star file goes whose rows were laid out too small."""
    return Path(outputs.parts) / f"{path.name}.first"


def _copy(source: int, target: int, n_bytes: int, position: int, target_position: int) -> None:
    """Copy bytes from file to file, within the kernel where it can."""
    while n_bytes > 0:
        written = _copy_within_kernel(source, target, n_bytes, position, target_position)
        if not written:
            data = os.pread(source, min(n_bytes, COPY_BYTES), position)
            if not data:
                raise OSError("a part file of the RELION output is shorter than it says")
            written = os.pwrite(target, data, target_position)
        n_bytes, position, target_position = n_bytes - written, position + written, target_position + written


def _copy_within_kernel(source: int, target: int, n_bytes: int, position: int, target_position: int) -> int:
    """Copy without passing the bytes through this process; 0 where the system or file system cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, n_bytes, position, target_position)
    except OSError:
        return 0


def _image_dimensions(source: RelionParticles) -> int:
    return 2 if source.poses is None else source.poses.n_dimensions
