"""Particles for another program, one task per fragment: looked at first, then written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.formats.cryodrgn_export import ArrayExport
from regroup_dask.formats.cryosparc.export import RecordExport
from regroup_dask.formats.export_plan import FragmentPlace, survey_facts
from regroup_dask.formats.particle_facts import columns_of_facts, particle_facts, poses_of_table
from regroup_dask.formats.regrouped_folder import RegroupedFragment
from regroup_dask.formats.relion.export import StarExport
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import kept_memory

OpticsGroups = Mapping[int, Mapping[str, str]]


class LookUnit(NamedTuple):
    """Learn what the particles of one fragment say of themselves."""

    name: str
    fragment: RegroupedFragment
    columns: tuple[str, ...]
    optics_groups: OpticsGroups
    flip_y: bool


class ExportUnit(NamedTuple):
    """Write the particles of one fragment."""

    name: str
    fragment: RegroupedFragment
    columns: tuple[str, ...]
    optics_groups: OpticsGroups
    flip_y: bool
    export: StarExport | RecordExport | ArrayExport
    counts_before: np.ndarray


@kept_memory()
def look_at_fragment(unit: LookUnit) -> Result:
    """Survey of one fragment."""
    table, _ = _read(unit.fragment, unit.columns)
    return survey_facts(particle_facts(table, unit.optics_groups, flip_y=unit.flip_y))


@kept_memory()
def write_fragment(unit: ExportUnit) -> Result:
    """Write the rows of one fragment to all files."""
    table, superclass = _read(unit.fragment, unit.columns)
    place = FragmentPlace(unit.fragment.index, unit.fragment.first_row, unit.counts_before)
    if isinstance(unit.export, ArrayExport):
        facts = None if unit.export.plan is None else particle_facts(table, unit.optics_groups, flip_y=unit.flip_y)
        poses = poses_of_table(table) if facts is None else (facts.rotation, facts.shift_angstrom)
        unit.export.write_fragment(facts, superclass, place, poses=poses)
    else:
        unit.export.write_fragment(particle_facts(table, unit.optics_groups, flip_y=unit.flip_y), superclass, place)
    return {"rows": np.asarray(table.num_rows)}


def _read(fragment: RegroupedFragment, columns: tuple[str, ...]) -> tuple[pa.Table, np.ndarray]:
    remaining = any(superclass < 0 for superclass, _, _ in fragment.parts)
    return fragment.read(columns_of_facts(columns, with_own_poses=remaining))
