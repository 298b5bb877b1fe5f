"""What a person is shown before and after a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from regroup_dask.formats import storage

if TYPE_CHECKING:
    from regroup_dask.pipeline import Regrouped
    from regroup_dask.steps.inputs import Inputs

REASONS = {"too_small": "under the minimum class size", "excluded": "excluded by hand"}


def show_found(console: Console, inputs: Inputs) -> None:
    """Say what was found, before anything runs."""
    for line in inputs.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_result(console: Console, result: Regrouped) -> None:
    """Show the superclasses, what is left over and why, and where to look."""
    classes, superclasses = result.classes.to_pylist(), result.superclasses.to_pylist()
    has_particles = any(row["n_particles"] is not None for row in superclasses)
    total = sum(row["n_particles"] or 0 for row in superclasses) + result.n_remaining
    table = Table(title="Superclasses", title_justify="left")
    table.add_column("superclass", justify="right")
    table.add_column("classes")
    if has_particles:
        table.add_column("particles", justify="right")
        table.add_column("share", justify="right")
    table.add_column("similarity", justify="right")
    for row in superclasses:
        members = [entry for entry in classes if entry["superclass"] == row["superclass"]]
        similarity = min(entry["similarity_to_superclass"] for entry in members)
        cells = [str(row["superclass"]), ", ".join(_member(entry, row["reference_class"]) for entry in members)]
        if has_particles:
            cells += [f"{row['n_particles']:,}", f"{row['n_particles'] / max(total, 1):.1%}"]
        table.add_row(*cells, f"{similarity:.3f}" if len(members) > 1 else "-")
    console.print(table)
    for status, reason in REASONS.items():
        left_out = [entry for entry in classes if entry["status"] == status]
        if left_out:
            names = ", ".join(
                f"{entry['class_id']}" + (f" ({entry['n_particles']:,})" if entry["n_particles"] is not None else "")
                for entry in left_out
            )
            console.print(f"Left out, {reason}: class {names}", highlight=False, soft_wrap=True)
    if has_particles:
        console.print(f"Remaining particles: {result.n_remaining:,} of {total:,}", highlight=False)
    for sentence in result.warnings:
        console.print(f"Note: {sentence}", highlight=False, markup=False, soft_wrap=True)
    console.print("[dim]* the class whose frame the superclass has; ' a class of the opposite hand[/dim]")
    look = result.output / "report.html"
    console.print(
        f"Look at {look if storage.exists(look) else result.output}", highlight=False, markup=False, soft_wrap=True
    )


def _member(entry: dict, reference: int) -> str:
    return f"{entry['class_id']}" + ("*" if entry["class_id"] == reference else "") + ("'" if entry["mirrored"] else "")
