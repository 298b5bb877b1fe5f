"""What ``group`` shows: the superclasses of one grouping, and what several numbers of superclasses would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from regroup_dask.hand_edits import describe_mapping

if TYPE_CHECKING:
    import xarray as xr


def show_groups(console: Console, groups: xr.Dataset) -> None:
    """Show one grouping that was not written."""
    labels, ids = groups["superclass"].values, groups["class_id"].values
    table = Table(title=f"{groups.sizes['superclass_id']} superclasses", title_justify="left")
    table.add_column("superclass", justify="right")
    table.add_column("classes")
    if "n_particles" in groups.coords:
        table.add_column("particles", justify="right")
    table.add_column("similarity", justify="right")
    for label in range(groups.sizes["superclass_id"]):
        inside = labels == label
        cells = [str(label), ", ".join(str(value) for value in ids[inside])]
        if "n_particles" in groups.coords:
            cells.append(f"{int(groups['n_particles'].values[inside].sum()):,}")
        alike = groups["similarity_to_superclass"].values[inside]
        table.add_row(*cells, f"{alike.min():.3f}" if len(alike) > 1 else "-")
    console.print(table)


def show_mapping(console: Console, before: Mapping[int, int], groups: xr.Dataset) -> None:
    """Say what became of the superclasses that were there before."""
    after = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    console.print("Superclasses before → now, by particles:", highlight=False)
    for line in describe_mapping(before, after):
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def show_counts(console: Console, groupings: Sequence[xr.Dataset], *, now: xr.Dataset | None = None) -> None:
    """Show what each of several numbers of superclasses would do, from the fewest on.

    Parameters
    ----------
    console
        Where to.
    groupings
        As of `grouping.group_pairs`, by increasing number.
    now
        The grouping of the run; its number is marked.
    """
    from regroup_dask.report.stability import describe_change

    table = Table(title="Number of superclasses", title_justify="left", show_lines=True)
    table.add_column("K", justify="right")
    table.add_column("classes of each superclass", ratio=3, overflow="fold")
    table.add_column("from the row above", ratio=2, overflow="fold")
    table.add_column("stability", justify="right")
    table.add_column("similarity", justify="right")
    marked = None if now is None else now.sizes["superclass_id"]
    for position, groups in enumerate(groupings):
        labels, ids = groups["superclass"].values, groups["class_id"].values
        count = groups.sizes["superclass_id"]
        members = " | ".join(", ".join(str(value) for value in ids[labels == label]) for label in range(count))
        change = "" if position == 0 else "; ".join(describe_change(groupings[position - 1], groups))
        alike = groups["similarity_to_superclass"].values
        shared = np.array([(labels == label).sum() > 1 for label in labels])
        table.add_row(
            f"{count}{'*' if count == marked else ''}",
            members,
            change,
            _number(np.nanmin(groups["superclass_stability"].values)),
            _number(np.nanmin(alike[shared])) if shared.any() else "-",
        )
    console.print(table)
    console.print(
        "Stability is that of the least stable superclass when noise is added; similarity that of the class that is least "
        "like its company." + ("" if marked is None else " * the number of that run."),
        style="dim",
        highlight=False,
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
