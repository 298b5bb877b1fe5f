"""The CryoSPARC side of the output: particles and maps as the next CryoSPARC job takes them.

``cryosparc/`` holds regrouped_particles, particles_superclass_K and remaining_particles as ``.cs`` files of
NumPy records, with a ``.csg`` group for each and for the maps. Regrouped particles have superclasses in place
of classes (see `regrouped_slots`); the remaining ones are as they came. Passthrough columns are written with
the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regroup_dask.formats import storage, storing
from regroup_dask.formats.cryosparc.arrow_columns import fill_records
from regroup_dask.formats.cryosparc.particles import CryosparcFragment, CryosparcParticles
from regroup_dask.formats.cryosparc.record_file import RecordFile, create_record_file, record_header
from regroup_dask.formats.cryosparc.record_kernels import take_records
from regroup_dask.formats.cryosparc.regrouped_slots import RegroupedSlots, plan_slots
from regroup_dask.formats.cryosparc.result_group import ResultSlot, write_result_group
from regroup_dask.formats.cryosparc.volume_groups import write_volume_groups
from regroup_dask.formats.regroup_plan import Assignment, RegroupPlan, SuperclassMaps, assigned_order
from regroup_dask.formats.run_folder import WORK
from regroup_dask.formats.store_parts import JoinedFile, write_part

REGROUPED = "regrouped_particles"
REMAINING = "remaining_particles"
BLOCK_BYTES = 2 * 2**20
"""Records made at a time while a fragment is written; bounds the memory beside the table itself."""


@dataclass(frozen=True)
class CryosparcOutputs:
    """Files of the CryoSPARC side, laid out and ready for their rows."""

    folder: str
    slots: RegroupedSlots
    files: Mapping[str, RecordFile]
    """by name: regrouped_particles, particles_superclass_K, remaining_particles"""
    parts: str | None = None
    """folder of the tasks' parts, in an object store"""

    def files_to_join(self, n_fragments: int) -> list[JoinedFile]:
        """Files that are put together from parts when all of them are written."""
        if self.parts is None:
            return []
        return [
            JoinedFile(file.path, self.parts, n_fragments, section, len(self.files), record_header(file.dtype, file.n_rows), b"")
            for section, file in enumerate(self.files.values())
        ]


def create_outputs(source: CryosparcParticles, plan: RegroupPlan, counts: np.ndarray, folder: str) -> CryosparcOutputs:
    """Lay out the particle files under ``folder/cryosparc``, each of its final size.

    Parameters
    ----------
    source : CryosparcParticles
    plan : RegroupPlan
    counts : i64[n_fragments, K + 1]
        Rows of each fragment per superclass, remaining ones last.
    folder : str
        The whole output folder.
    """
    own = os.path.join(folder, "cryosparc")
    storing.make_folder(own)
    slots = plan_slots(source.dtype, source.posterior_slots, plan, path=source.files[0])
    total = np.asarray(counts, dtype=np.int64).reshape(-1, plan.n_superclasses + 1).sum(axis=0)
    sizes = {REGROUPED: (slots.dtype, int(total[:-1].sum()))}
    sizes |= {_superclass_name(k): (slots.dtype, int(total[k])) for k in range(plan.n_superclasses)}
    sizes[REMAINING] = (source.dtype, int(total[-1]))
    files = {
        name: create_record_file(os.path.join(own, f"{name}.cs"), dtype, n_rows)
        for name, (dtype, n_rows) in sizes.items()
    }
    parts = os.path.join(folder, WORK, "parts", "cryosparc") if storage.is_remote(folder) else None
    return CryosparcOutputs(own, slots, files, parts)


def write_fragment(
    source: CryosparcParticles,
    fragment: CryosparcFragment,
    table: pa.Table,
    assignment: Assignment,
    plan: RegroupPlan,
    outputs: CryosparcOutputs,
    counts_before: np.ndarray,
    own: np.ndarray | None = None,
) -> None:
    """Write the rows of one fragment to their places in all files, in input order; may run again.

    Parameters
    ----------
    table : pyarrow.Table
        ``fragment.read()``, all columns.
    assignment : Assignment
        For the rows of the table.
    counts_before : i64[K + 1]
        Rows of earlier fragments per superclass, remaining ones last.
    own : records, optional
        The rows as `CryosparcParticles.read_for_writing` read them.
    """
    if len(assignment.superclass) != table.num_rows:
        raise ValueError(f"{len(assignment.superclass)} assignments for {table.num_rows} particles")
    names = [_superclass_name(k) for k in range(plan.n_superclasses)]
    before = np.asarray(counts_before, dtype=np.int64)
    place = {name: int(count) for name, count in zip([*names, REMAINING], before, strict=True)}
    place[REGROUPED] = int(before[:-1].sum())
    block = max(1, BLOCK_BYTES // source.dtype.itemsize)
    kept: list[list[np.ndarray]] = []
    with contextlib.ExitStack() as stack:
        remote = outputs.parts is not None
        write = {} if remote else {name: stack.enter_context(file.opened()) for name, file in outputs.files.items()}
        for start in range(0, table.num_rows, block):
            stop = min(start + block, table.num_rows)
            records = _records(source, table, start, stop) if own is None else own[start:stop]
            chosen = Assignment(*(values[start : start + block] for values in assignment))
            regrouped = outputs.slots.records(records, chosen, plan)
            rows = assigned_order(chosen.superclass[chosen.superclass >= 0], plan.n_superclasses)
            pieces = {REGROUPED: regrouped, REMAINING: take_records(records, np.flatnonzero(chosen.superclass < 0))}
            pieces |= {name: take_records(regrouped, rows[k]) for k, name in enumerate(names)}
            if remote:
                # A copy: records that are their own fragment's would go on changing.
                kept.append([pieces[name].copy() for name in outputs.files])
                continue
            for name, piece in pieces.items():
                write[name](place[name], piece)
                place[name] += len(piece)
    if outputs.parts is not None:
        write_part(outputs.parts, fragment.index, kept, len(outputs.files))


def _records(source: CryosparcParticles, table: pa.Table, start: int, stop: int) -> np.ndarray:
    """Some rows of a table as records."""
    records = np.empty(stop - start, source.dtype)
    fill_records(records, table.slice(start, stop - start))
    return records


def finish_outputs(
    source: CryosparcParticles,
    plan: RegroupPlan,
    outputs: CryosparcOutputs,
    counts: np.ndarray,
    maps: SuperclassMaps | None,
) -> tuple[str, ...]:
    """Write the groups of particles and maps; return all files of the CryoSPARC side."""
    made = []
    for name, file in outputs.files.items():
        group = os.path.join(outputs.folder, f"{name}.csg")
        prefixes = dict.fromkeys(field.split("/")[0] for field in file.dtype.names or () if "/" in field)
        slots = {prefix: ResultSlot(f"{name}.cs", file.n_rows, _slot_type(prefix)) for prefix in prefixes}
        title = name.replace("_", " ").capitalize()
        write_result_group(group, name=name, title=title, description="", type="particle", slots=slots)
        made += [file.path, group]
    if maps is not None:
        made += write_volume_groups(outputs.folder, maps)
    return tuple(made)


def _superclass_name(superclass: int) -> str:
    return f"particles_superclass_{superclass}"


def _slot_type(prefix: str) -> str:
    """Type of a slot: those of single classes are of the type alignments3D."""
    return "particle.alignments3D" if prefix.startswith("alignments_class") else f"particle.{prefix}"
