"""The class maps as they were compared, from the run's own store to the one that is kept: a shard each task."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.formats.class_store import write_maps
from regroup_dask.tasks import map_store, prepare
from regroup_dask.tasks.execute import Result


class ClassMapsUnit(NamedTuple):
    """Rows of the two stores, from `first` to before `last`: one shard of the second."""

    name: str
    first: int
    last: int
    source: Path
    target: Path


def keep_maps(unit: ClassMapsUnit) -> Result:
    """Write one shard of working maps.

    Raises
    ------
    DamagedStoreError
        A working map is damaged or missing.
    """
    rows = range(unit.first, unit.last)
    write_maps(unit.target, unit.first, np.stack([map_store.read_field(unit.source, row, prepare.WORKING) for row in rows]))
    return {}
