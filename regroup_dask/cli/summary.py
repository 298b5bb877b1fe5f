"""What a person is shown before and after a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from regroup_dask.formats import storage
from regroup_dask.report.answer import doubts_in_words
from regroup_dask.report.next_steps import next_steps

if TYPE_CHECKING:
    from regroup_dask.pipeline import Regrouped
    from regroup_dask.steps.inputs import Inputs
    from regroup_dask.steps.preview import Preview
    from regroup_dask.tasks.profile import RunProfile

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
    stable = [row["stability"] for row in superclasses]
    has_stability = any(value is not None and math.isfinite(value) for value in stable)
    count = len(superclasses)
    table = Table(title=f"{count} {'superclass' if count == 1 else 'superclasses'}", title_justify="left")
    table.add_column("superclass", justify="right")
    table.add_column("classes")
    if has_particles:
        table.add_column("particles", justify="right")
        table.add_column("share", justify="right")
    table.add_column("similarity", justify="right")
    if has_stability:
        table.add_column("stability", justify="right")
    for row in superclasses:
        members = [entry for entry in classes if entry["superclass"] == row["superclass"]]
        similarity = min(entry["similarity_to_superclass"] for entry in members)
        cells = [str(row["superclass"]), ", ".join(_member(entry, row["reference_class"]) for entry in members)]
        if has_particles:
            cells += [f"{row['n_particles']:,}", f"{row['n_particles'] / max(total, 1):.1%}"]
        cells.append(f"{similarity:.3f}" if len(members) > 1 else "-")
        if has_stability:
            cells.append("-" if row["stability"] is None else f"{row['stability']:.2f}")
        table.add_row(*cells)
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
    for sentence in (*result.warnings, *doubts_in_words(classes)):
        console.print(f"Note: {sentence}", highlight=False, markup=False, soft_wrap=True)
    words = meaning_of_columns(
        mirrored=any(entry["mirrored"] for entry in classes),
        similarity=any(row["n_classes"] > 1 for row in superclasses),
        stability=has_stability,
    )
    console.print(words, style="dim", highlight=False)
    look = result.output / "report.html"
    console.print(
        f"Look at {look if storage.exists(look) else result.output}", highlight=False, markup=False, soft_wrap=True
    )
    grouped = sum(row["n_classes"] for row in superclasses)
    steps = next_steps(result.output, n_superclasses=len(superclasses), n_classes=grouped, shown=str(result.output))
    for step in steps:
        console.print(f"{step.purpose}: {step.text}", highlight=False, markup=False, soft_wrap=True)


def meaning_of_columns(*, mirrored: bool, similarity: bool, stability: bool) -> str:
    """Say what a table of superclasses means by its marks and numbers."""
    words = ["* the class whose frame (orientation and centre) the superclass has"]
    if mirrored:
        words.append("' a class of the opposite hand")
    if similarity:
        words.append("similarity: of the class least like the rest of its superclass, 1 is the same structure")
    if stability:
        words.append("stability: 1 where resampled data give the same superclass")
    return "; ".join(words)


def show_preview(preview: Preview, place: str, *, as_json: bool = False) -> None:
    """Show what a run would do."""
    plan = preview.plan
    lines = (*preview.lines, place)
    if as_json:
        from regroup_dask.cli.json_events import emit

        emit(
            "plan",
            maps=plan.n_maps,
            box=plan.box,
            pairs=plan.n_pairs,
            tiles=plan.n_tiles,
            particles=preview.n_particles,
            seconds=round(plan.seconds, 1),
            memory_bytes=plan.worker_bytes(1),
            output_bytes=preview.output_bytes,
            files=[file._asdict() for file in preview.files],
            lines=list(lines),
        )
        return
    from dask.utils import format_bytes

    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table(title="What would be written", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("in the output folder", overflow="fold")
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for file in preview.files:
        table.add_row(file.path, format_bytes(file.n_bytes), file.meaning)
    console.print()
    console.print(table, highlight=False)
    console.print("\nNothing was computed or written: the same command without --dry-run does it.", highlight=False)


def show_profile(console: Console, profile: RunProfile) -> None:
    """Show where the time of a run went."""
    from dask.utils import format_bytes

    table = Table(title="\nWhere the time went", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("stage", "s", "tasks", "in tasks", "busy", "CPU", "here", "read"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=name != "stage")
    table.add_row("Before the first stage", f"{profile.before_seconds:.1f}", *[""] * 6)
    for stage in profile.stages:
        busy = stage.busy_share
        table.add_row(
            stage.stage,
            f"{stage.wall_seconds:.1f}",
            f"{stage.tasks}" if stage.tasks else "",
            f"{stage.task_seconds:.1f}" if stage.tasks else "",
            "" if busy is None else f"{busy:.0%}",
            f"{stage.cpu_seconds:.1f}" if stage.tasks else "",
            f"{stage.driver_cpu_seconds:.1f}",
            "" if not stage.tasks or stage.read_bytes is None else format_bytes(stage.read_bytes),
        )
    total = profile.before_seconds + sum(stage.wall_seconds for stage in profile.stages)
    table.add_row("All", f"{total:.1f}", *[""] * 6, style="bold")
    console.print(table)
    console.print(
        "Seconds. busy: the share of the workers' time inside tasks; the rest is waiting and Dask's own work. CPU: processor "
        "time of the workers; here: of this process.",
        style="dim",
        highlight=False,
    )
    if profile.functions:
        console.print("\nWhere the workers were found most often:", highlight=False)
        for name, seconds in profile.functions:
            console.print(f"{seconds:8.1f} s  {name}", highlight=False, markup=False, soft_wrap=True)


def _member(entry: dict, reference: int) -> str:
    return f"{entry['class_id']}" + ("*" if entry["class_id"] == reference else "") + ("'" if entry["mirrored"] else "")
