"""What a run would do and write, found out without doing it; what the run would refuse is refused here too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from dask.utils import format_bytes

from regroup_dask.formats import storage
from regroup_dask.formats.run_folder import partial_folder
from regroup_dask.progress import Listener, StageClock, silent
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import Inputs, check_inputs
from regroup_dask.steps.plan import RunPlan, check_memory, plan_lines, plan_run
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection, survey_and_select
from regroup_dask.tasks.crew import WorkerResources

# Working maps and prepared maps of an unfinished run, per voxel of the working box; the small maps stay as classes.zarr.
WORK_BYTES_PER_VOXEL = 60
REPORT_BYTES = 2**21


class PlannedFile(NamedTuple):
    """A file or folder that would be written, how large it would be about, and what it is."""

    path: str
    n_bytes: int
    meaning: str


class Preview(NamedTuple):
    """What a run would do.

    Attributes
    ----------
    plan
        Its size and what it takes.
    selection
        Classes that would take part.
    files
        What would be in the output folder.
    scratch_bytes
        What the run needs besides while it works.
    free_bytes
        Free where it would be written.
    lines
        The plan in sentences.
    n_particles
        Of the input; None without particles.
    """

    plan: RunPlan
    selection: Selection
    files: tuple[PlannedFile, ...]
    scratch_bytes: int
    free_bytes: int | None
    lines: tuple[str, ...]
    n_particles: int | None

    @property
    def output_bytes(self) -> int:
        """About how large the output folder would be."""
        return sum(file.n_bytes for file in self.files)


def preview_run(
    inputs: Inputs,
    settings: Settings,
    output: Path,
    workers: tuple[WorkerResources, ...],
    *,
    scratch: Path,
    listener: Listener = silent,
) -> Preview:
    """Find out what a run would do; the particles of each class are counted, in this process.

    Parameters
    ----------
    inputs
        Maps and particles, found and checked.
    settings
        Every parameter.
    output
        The output folder, of which nothing is made.
    workers
        The workers that the run would get; none when they are not known.
    scratch
        A folder for what counting keeps.
    listener
        Told of every event.

    Raises
    ------
    InputError
        As the run itself would.
    """
    check_inputs(inputs, settings.exclude_classes)
    selection = survey_and_select(inputs, settings, RunContext(scratch, None, StageClock(listener)))
    plan = plan_run(len(selection.kept), inputs.series, inputs.source, settings)
    check_memory(plan, workers)
    files = planned_files(inputs, settings, plan)
    free = _free_bytes(output)
    needed = sum(file.n_bytes for file in files)
    scratch_bytes = WORK_BYTES_PER_VOXEL * plan.n_maps * min(plan.box, 64) ** 3
    lines = list(plan_lines(plan, workers))
    room = "" if free is None else f"; {format_bytes(free)} are free there"
    lines.append(
        f"It would write about {format_bytes(needed)} to {output} (and {format_bytes(scratch_bytes)} to "
        f"{partial_folder(output)} while it runs){room}."
    )
    if free is not None and free < needed + scratch_bytes:
        lines.append("That is more than is free: the run would stop when the disk is full, and could be resumed.")
    n_particles = None if inputs.source is None else inputs.source.count_rows()
    return Preview(plan, selection, files, scratch_bytes, free, tuple(lines), n_particles)


def planned_files(inputs: Inputs, settings: Settings, plan: RunPlan) -> tuple[PlannedFile, ...]:
    """Files that a run would leave, with their sizes about."""
    count = settings.n_superclasses
    n_superclasses = plan.n_maps if count == "auto" else count
    map_bytes = n_superclasses * 4 * plan.box**3
    at_most = "at most " if count == "auto" else ""
    last = "..." if count == "auto" or count > 2 else f"superclass_{count - 1:03d}.mrc" if count > 1 else ""
    maps = "volumes/superclass_000.mrc" + (f" {last}" if last else "")
    pair_bytes = 2 * plan.n_pairs * (16 + 8 * 12 + 4 * (min(plan.box, 64) // 2 + 1))
    files = [
        PlannedFile("report.html", REPORT_BYTES, "the page to look at first"),
        PlannedFile("run.json, classes.*, superclasses.*", 2**16, "settings, and a row per class and superclass"),
        PlannedFile(maps, map_bytes, f"{at_most}{n_superclasses} maps of box {plan.box}"),
        PlannedFile("volumes.zarr, series.zip", 2 * map_bytes, "the same maps"),
        PlannedFile(
            "pairs.zarr, classes.zarr",
            pair_bytes + 4 * plan.n_maps * min(plan.box, 64) ** 3,
            "every pair and every small map, for another K in seconds",
        ),
    ]
    source = inputs.source
    if source is not None:
        n_bytes = sum(_size(path) for path in {*source.files, *inputs.given["passthrough"]})
        rows = source.count_rows()
        files.append(PlannedFile("particles/, remaining/", n_bytes, f"{rows:,} particles once, parquet"))
        if source.kind == "cryosparc":
            files.append(PlannedFile("cryosparc/", 2 * n_bytes, ".cs and .csg for Import Result Group"))
        elif source.kind == "relion":
            files.append(PlannedFile("relion/", 2 * n_bytes, ".star files and model.star"))
    return tuple(files)


def _size(path: str) -> int:
    if storage.is_folder(path):
        return sum(storage.size_bytes(file) for file in storage.files_below(path))
    return storage.size_bytes(path) if storage.exists(path) else 0


def _free_bytes(output: Path) -> int | None:
    """Room where an output would lie; None for a store, which does not say."""
    if storage.is_remote(output):
        return None
    near = output.absolute().parent
    while not near.is_dir():
        near = near.parent
    return shutil.disk_usage(near).free
