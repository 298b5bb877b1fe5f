"""What ``group`` shows: the superclasses of one grouping, and what several numbers of superclasses would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from regroup_dask.cli.summary import meaning_of_columns
from regroup_dask.hand_edits import describe_mapping
from regroup_dask.science.local_search import STRONG_EVIDENCE

if TYPE_CHECKING:
    import xarray as xr

_HAND = "'"
_MEANING_OF_EVIDENCE = (
    f" Evidence decides -k auto: the logarithm of how likely the maps are with K structures, less that of the best number; the "
    f"fewest superclasses within {STRONG_EVIDENCE:g} of it are taken."
)


def show_groups(console: Console, groups: xr.Dataset) -> None:
    """Show one grouping that was not written."""
    labels, ids = groups["superclass"].values, groups["class_id"].values
    count = groups.sizes["superclass_id"]
    stable = np.asarray(groups["superclass_stability"].values, np.float64)
    has_stability = bool(np.isfinite(stable).any())
    table = Table(title=f"{count} {'superclass' if count == 1 else 'superclasses'}", title_justify="left")
    table.add_column("superclass", justify="right")
    table.add_column("classes")
    if "n_particles" in groups.coords:
        table.add_column("particles", justify="right")
    table.add_column("similarity", justify="right")
    if has_stability:
        table.add_column("stability", justify="right")
    mirrored = dict(zip(ids.tolist(), groups["mirrored"].values.tolist(), strict=True))
    for label, reference in enumerate(groups["reference_class"].values.tolist()):
        inside = labels == label
        members = (f"{one}{'*' if one == reference else ''}{_HAND if mirrored[one] else ''}" for one in ids[inside].tolist())
        cells = [str(label), ", ".join(members)]
        if "n_particles" in groups.coords:
            cells.append(f"{int(groups['n_particles'].values[inside].sum()):,}")
        alike = groups["similarity_to_superclass"].values[inside]
        cells.append(f"{alike.min():.3f}" if len(alike) > 1 else "-")
        table.add_row(*cells, *([_number(stable[label])] if has_stability else []))
    console.print(table)
    words = meaning_of_columns(
        mirrored=any(mirrored.values()), similarity=count < len(ids), stability=has_stability
    )
    console.print(words, style="dim", highlight=False)


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
    evidence = [_evidence(groups) for groups in groupings]
    if any(value is not None for value in evidence):
        table.add_column("evidence", justify="right")
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
            *([] if all(value is None for value in evidence) else [_evidence_words(evidence[position])]),
        )
    console.print(table)
    console.print(
        "Stability is that of the least stable superclass with resampled data; similarity that of the class that is least "
        "like its company."
        + ("" if all(value is None for value in evidence) else _MEANING_OF_EVIDENCE)
        + ("" if marked is None else " * the number of that run."),
        style="dim",
        highlight=False,
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def _evidence(groups: xr.Dataset) -> float | None:
    """Log evidence of a grouping's number, less that of the best, where the maps were compared place by place."""
    numbers, values = groups.attrs.get("candidate_superclasses"), groups.attrs.get("evidence_curve")
    if numbers is None or values is None or groups.sizes["superclass_id"] not in list(numbers):
        return None
    value = dict(zip(numbers, values, strict=False)).get(groups.sizes["superclass_id"])
    return None if value is None or not np.isfinite(value) else float(value)


def _evidence_words(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:,.1f}" if value > -100 else f"{value:,.0f}"
