"""Make the relative poses of all pairs agree: find pairs that the others contradict and align them again."""

from __future__ import annotations

from pathlib import Path

from regroup_dask.science import align
from regroup_dask.settings import Settings
from regroup_dask.steps.pair_table import PairTable
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection


def agree_on_poses(
    table: PairTable,
    selection: Selection,
    plan: align.AlignmentPlan,
    settings: Settings,
    store: Path,
    run: RunContext,
) -> tuple[PairTable, tuple[str, ...]]:
    """Return the pairs as they stand."""
    return table, ()
