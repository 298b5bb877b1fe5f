"""CryoSPARC particles as fragments: ranges of rows of the primary files, passthrough columns joined by uid.

Memory: a fragment takes the bytes of its rows (about 64 MB by default) twice while it is read, plus the
parts of the passthrough files that hold its particles. Opening reads the files once, piece by piece: uids
into an index on disk, and text for whether it is UTF-8.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.cryosparc.arrow_columns import arrow_schema, to_arrow
from regroup_dask.formats.cryosparc.dataset_file import columns_of_records, open_dataset_file
from regroup_dask.formats.cryosparc.passthrough import Passthrough, join_passthrough
from regroup_dask.formats.cryosparc.posteriors import (
    COMMON,
    MULTI,
    PosteriorSlots,
    find_posteriors,
    present_prefixes,
)
from regroup_dask.formats.cryosparc.result_group import read_result_group
from regroup_dask.formats.cryosparc.slot_poses import slot_poses
from regroup_dask.formats.cryosparc.stacked_files import StackedFiles, StackRows, stack_files
from regroup_dask.formats.particle_source import FRAGMENT_BYTES, FragmentRows, ParticleSource
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.uid_index import build_uid_index, refuse_duplicates

CLASS_IN_NAME = re.compile(r"(?:^|_)class_(\d+)[_.]")


@dataclass(frozen=True)
class JoinedTable:
    """Primary files and their passthrough columns as one table."""

    primary: StackedFiles
    passthrough: tuple[Passthrough, ...]
    schema: pa.Schema

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a range of rows; the columns come in the order asked for."""
        names = self.schema.names if columns is None else list(columns)
        return to_arrow(self.read_values(start, stop, names), self.schema)

    def read_values(self, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read a range of rows as one array per column."""
        unknown = [name for name in names if name not in self.schema.names]
        if unknown:
            raise InputError(f"{self.primary.files[0].path} has no column {', '.join(unknown)}")
        own = set(self.primary.dtype.names or ())
        wanted = {name for name in names if name in own}
        beside = [(part, [name for name in names if name in part.columns]) for part in self.passthrough]
        values = self.primary.read(start, stop, sorted(wanted))
        for part, chosen in beside:
            if chosen:
                values.update(part.read(start, stop - start, chosen))
        return {name: values[name] for name in names}


@dataclass(frozen=True)
class CryosparcFragment:
    """Rows ``first_row : first_row + n_rows`` of a CryoSPARC table."""

    index: int
    first_row: int
    n_rows: int
    table: JoinedTable

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, in file order, with the passthrough columns of the same particles."""
        return self.table.read(self.first_row, self.first_row + self.n_rows, columns)


@dataclass(frozen=True, kw_only=True)
class CryosparcParticles(ParticleSource):
    """Particles of CryoSPARC files.

    Attributes
    ----------
    posterior_slots : PosteriorSlots
    dtype : numpy.dtype
        The record of one particle, passthrough columns last.
    """

    posterior_slots: PosteriorSlots
    dtype: np.dtype

    def class_posteriors(self, table: pa.Table) -> np.ndarray:
        """Return f32[n, n_classes] in the order of `class_ids`."""
        return self.posterior_slots.posteriors(table)

    def read_for_writing(self, fragment: CryosparcFragment) -> FragmentRows:
        """Read a fragment as a table, and as records where the files have them as they are written."""
        joined = fragment.table
        if joined.passthrough or not joined.primary.plain_records or joined.primary.dtype != self.dtype:
            return FragmentRows(fragment.read())
        records = joined.primary.records(fragment.first_row, fragment.first_row + fragment.n_rows)
        return FragmentRows(to_arrow(columns_of_records(records), joined.schema), records)

    def particle_poses(self, table: pa.Table, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the pose of each row against a class; see `ParticleSource.particle_poses`."""
        return slot_poses(table, self.posterior_slots, class_index)


def open_cryosparc_particles(
    paths: Sequence[str],
    *,
    passthrough: Sequence[str] = (),
    class_prefix: str = "auto",
    fragment_rows: int | None = None,
    scratch: str | None = None,
    run: RunPieces = in_this_process,
) -> CryosparcParticles:
    """Open ``.cs`` files or ``.csg`` groups of particles.

    Parameters
    ----------
    paths : sequence of str
        Several files are read one below the other, and need the same columns.
    passthrough : sequence of str
        Files with further columns of the same particles, in any row order.
    class_prefix, fragment_rows, scratch, run
        See `formats.particles.open_particles`.

    Raises
    ------
    InputError
        A file is damaged, has no class posteriors, repeats a uid, or a passthrough file lacks particles.
    """
    paths, passthrough = _expand_groups(paths, passthrough)
    remote = scratch is not None and storage.is_remote(scratch)
    folder = _scratch_folder(None if remote else scratch)
    if remote:
        # What is made of the files is made here and then sent: other machines do not see this one's disk.
        run = in_this_process
    primary = stack_files([open_dataset_file(path, scratch=folder) for path in paths])
    beside_files = [open_dataset_file(path, scratch=folder) for path in passthrough]
    uid_index = build_uid_index(primary.parts(), scratch=folder, run=run)
    refuse_duplicates(uid_index, primary.sizes)
    beside = join_passthrough(beside_files, primary, uid_index, scratch=folder, run=run)
    shutil.rmtree(uid_index.folder)
    binary = set(uid_index.notes)
    for part in beside:
        binary.update(part.binary)
    if remote:
        place = f"{scratch}/particles-{uuid.uuid4().hex[:12]}"
        primary, beside = _moved_stack(primary, folder, place), tuple(_moved_part(part, folder, place) for part in beside)
        storing.copy_folder(folder, place)

    dtype = _joined_dtype(primary, beside)
    hard = () if present_prefixes(dtype.names or ()) else _hard_classes(primary, beside, run)
    binary.intersection_update(dtype.names or ())
    schema = arrow_schema(dtype, binary=binary)
    table = JoinedTable(primary, beside, schema)
    has_rows = primary.n_rows > 0
    multi_class = f"{MULTI}/class"
    first = table.read(0, 1, [multi_class]) if has_rows and multi_class in schema.names else None
    slots = find_posteriors(
        dtype,
        class_prefix=class_prefix,
        path=paths[0],
        hard_classes=hard,
        multi_classes=np.array(first.column(0)[0].as_py()).reshape(-1) if first is not None else None,
    )
    step = fragment_rows or max(1, FRAGMENT_BYTES // dtype.itemsize)
    starts = range(0, primary.n_rows, step)
    fragments = tuple(
        CryosparcFragment(index, start, min(step, primary.n_rows - start), table) for index, start in enumerate(starts)
    )
    return CryosparcParticles(
        kind="cryosparc",
        files=(*paths, *passthrough),
        passthrough_files=tuple(passthrough),
        schema=schema,
        fragments=fragments,
        class_ids=slots.class_ids,
        posterior_columns=slots.columns,
        hard=slots.hard,
        voxel_size_angstrom=_first_pixel_size(table, slots) if has_rows else None,
        particle_columns=("uid",),
        lines=_describe(primary, beside, slots, binary),
        posterior_slots=slots,
        dtype=dtype,
    )


def _expand_groups(paths: Sequence[str], passthrough: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Replace groups by their files: the one with the posteriors is primary, the others passthrough."""
    primaries: list[str] = []
    beside: list[str] = []
    for path in paths:
        if not path.endswith(".csg"):
            primaries.append(path)
            continue
        group = read_result_group(path)
        if group.type != "particle":
            raise InputError(f"{path} is a group of type {group.type or 'unknown'}, but particles are needed here")
        preferred = [slot for slot in group.files_of_slot if slot == MULTI]
        preferred += [slot for slot in group.files_of_slot if slot.startswith("alignments_class")]
        preferred += [slot for slot in (COMMON, "blob") if slot in group.files_of_slot]
        primary = group.files_of_slot[preferred[0]] if preferred else group.files[0]
        primaries.append(primary)
        beside += [file for file in group.files if file != primary]
    for path in passthrough:
        beside += read_result_group(path).files if path.endswith(".csg") else [path]
    repeated = sorted({path for path in primaries if primaries.count(path) > 1})
    if repeated:
        raise InputError(f"{repeated[0]} was given twice")
    return tuple(primaries), tuple(path for path in dict.fromkeys(beside) if path not in primaries)


def _scratch_folder(scratch: str | None) -> str:
    if scratch is not None:
        os.makedirs(scratch, exist_ok=True)
        return tempfile.mkdtemp(prefix="particles-", dir=scratch)
    folder = tempfile.mkdtemp(prefix="regroup-dask-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _moved_stack(stack: StackedFiles, old: str, new: str) -> StackedFiles:
    """The same files with the columns that were unpacked in another folder."""
    files = [
        file if file.column_folder is None else replace(file, column_folder=file.column_folder.replace(old, new, 1))
        for file in stack.files
    ]
    return stack._replace(files=tuple(files))


def _moved_part(part: Passthrough, old: str, new: str) -> Passthrough:
    rows = part.rearranged
    rows = None if rows is None else rows._replace(folder=rows.folder.replace(old, new, 1))
    return replace(part, stack=_moved_stack(part.stack, old, new), rearranged=rows)


def _joined_dtype(primary: StackedFiles, beside: Sequence[Passthrough]) -> np.dtype:
    dtypes = [
        (primary.dtype, primary.dtype.names or ()),
        *((part.stack.dtype, part.columns) for part in beside),
    ]
    return np.dtype([(name, dtype[name]) for dtype, names in dtypes for name in names])


def common_classes(rows: StackRows) -> list[int]:
    """Distinct values of ``alignments3D/class``."""
    found: set[int] = set()
    for values in rows.chunks([f"{COMMON}/class"]):
        found.update(np.unique(values[f"{COMMON}/class"]).tolist())
    return sorted(found)


def _hard_classes(primary: StackedFiles, beside: Sequence[Passthrough], run: RunPieces) -> tuple[int, ...]:
    """Distinct classes of particles with one class each, and those that file names speak of."""
    name = f"{COMMON}/class"
    stack = next(
        (stack for stack in (primary, *(part.stack for part in beside)) if name in (stack.dtype.names or ())),
        None,
    )
    if stack is None or stack.dtype[name].subdtype is not None:
        return ()
    found: set[int] = set()
    for classes in run(common_classes, stack.parts()):
        found.update(classes)
    if len(primary.files) > 1:
        matches = [CLASS_IN_NAME.search(os.path.basename(file.path)) for file in primary.files]
        found.update(int(match[1]) for match in matches if match)
    return tuple(sorted(found))


def _first_pixel_size(table: JoinedTable, slots: PosteriorSlots) -> float | None:
    """Pixel of the shifts, from the first particle."""
    for slot in (slots.slots[0], COMMON):
        name = f"{slot}/psize_A"
        if name in table.schema.names:
            value = float(np.ravel(table.read(0, 1, [name]).column(0)[0].as_py())[0])
            if np.isfinite(value) and value > 0:
                return value
    return None


def _describe(
    primary: StackedFiles, beside: Sequence[Passthrough], slots: PosteriorSlots, binary: set[str]
) -> tuple[str, ...]:
    n_files = len(primary.files)
    files = primary.files[0].path if n_files == 1 else f"{n_files} files like {primary.files[0].path}"
    how = "one class per particle in alignments3D/class" if slots.hard else f"posteriors in {slots.prefix}"
    lines = [f"{primary.n_rows} particles in {files}, {how}, {len(slots.class_ids)} classes."]
    others = [prefix for prefix in present_prefixes(primary.dtype.names or ()) if prefix != slots.prefix]
    if others:
        lines.append(f"Older posteriors are there too and not used ({', '.join(others)}); --class-prefix chooses them.")
    for part in beside:
        order = "in the same order" if part.rearranged is None else "in another order, joined on uid"
        lines.append(f"{len(part.columns)} columns from {part.stack.files[0].path}, {order}.")
    if binary:
        lines.append(f"Text that is not UTF-8 is kept as bytes: {', '.join(sorted(binary))}.")
    return tuple(lines)
