"""``regroup-dask run``: the main job."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regroup_dask.cli.options import (
    INPUT,
    OUTPUT,
    ManyValues,
    alignment_options,
    class_options,
    cluster_options,
    dry_run_option,
    grouping_options,
    output_options,
    storage_options,
    superclasses_option,
)
from regroup_dask.cli.stopping import says_how_to_resume
from regroup_dask.cli.teaching import titled
from regroup_dask.cli.watching import Watching, watching_options
from regroup_dask.errors import InputError
from regroup_dask.formats import storage

if TYPE_CHECKING:
    from rich.console import Console

    from regroup_dask.formats.pieces import RunPieces
    from regroup_dask.pipeline import Regrouped
    from regroup_dask.settings import Settings
    from regroup_dask.steps.inputs import Inputs
    from regroup_dask.tasks.profile import RunProfile

EXAMPLES = (
    ("regroup-dask run J42 -k 4 --align-pairs -o J42_regrouped", "a CryoSPARC job, four superclasses, maps aligned first"),
    (
        "regroup-dask run Class3D/job016 -k auto --align-pairs --minimum-class-size 500 -o regrouped",
        "a RELION job without its small classes, the number chosen from the data",
    ),
    (
        "regroup-dask run --particles J42/*_particles.cs --volumes 'J42/*_volume.mrc' -k 3 -o OUT",
        "files by name; without --particles only the maps are grouped",
    ),
    ("regroup-dask run J42 -k 4 --align-pairs -o OUT --dry-run", "what it would take and write, before anything runs"),
    ("regroup-dask run J42 -k 4 --align-pairs -o OUT --resume", "go on where an interrupted run was stopped"),
)

LOOKING = "Looking at the input"

ORIGINAL = """
\b
The parameters of the job Regroup 3D Classes:
  Number of super classes             -k, --superclasses
  Minimum class size (particles)      --minimum-class-size
  Manually exclude classes            --exclude-classes
  Align pairs of classes              --align-pairs
  Maximum shift (A)                   --maximum-shift
  Spherical mask inner radius         --mask-inner-radius
  Mask                                --mask
  [Legacy] Class alignment3D prefix   --class-prefix
"""


@click.command(
    "run",
    cls=ManyValues,
    epilog=ORIGINAL,
    examples=EXAMPLES,
    short_help="Regroup a job folder, or particles and maps.",
)
@click.argument("job_folder", required=False, type=click.Path())
@titled(INPUT, "--particles", multiple=True, metavar="P...", help="Particles: .cs, .csg, .star or parquet files.",
        type=click.Path())
@titled(INPUT, "--volumes", multiple=True, metavar="V...", help="Class maps: MRC files, globs, or a zarr store.",
        type=click.Path())
@titled(INPUT, "--passthrough", multiple=True, metavar="P...", help="CryoSPARC passthrough files of the particles.",
        type=click.Path())
@titled(INPUT, "--class-prefix", default="auto", show_default=True, metavar="P|auto",
        help="[Legacy] Class alignment3D prefix: alignments_class3D_, alignments_class_ or alignments3D_multi.")
@titled(INPUT, "--voxel-size", "voxel_size_angstrom", type=float, metavar="A",
        help="Voxel size of the maps, where their headers do not say it.")
@class_options
@alignment_options
@superclasses_option
@grouping_options
@titled(OUTPUT, "-o", "--output", required=True, type=click.Path(), metavar="OUT", help="The folder to make.")
@output_options
@dry_run_option
@cluster_options
@watching_options
@storage_options
def command(job_folder: str | None, **options: Any) -> None:
    """Find which classes are the same structure and write K superclasses of particles and maps.

    JOB_FOLDER is a CryoSPARC job (3D Classification, Heterogeneous Refinement, Ab-Initio), a RELION Class3D job or an
    analysis of cryoDRGN: the newest iteration is found by itself. Or name --particles and --volumes; without particles
    only the maps are grouped. Where the maps do not lie in one frame already, as after ab-initio, say --align-pairs.
    """
    if (job_folder is None) == (not options["volumes"]):
        raise InputError(
            "Give a job folder, or --volumes (and --particles): "
            + ("both were given." if job_folder else "neither was given.")
        )
    if job_folder is not None and (options["particles"] or options["passthrough"]):
        raise InputError("A job folder names its own particles: leave out --particles and --passthrough.")
    dry_run = options.pop("dry_run")
    with says_how_to_resume(storage.location(options["output"])):
        if dry_run:
            preview_job(job_folder, **options)
        else:
            run_job(job_folder, **options)


def run_job(
    job_folder: str | None,
    *,
    particles: tuple[str, ...] = (),
    volumes: tuple[str, ...] = (),
    passthrough: tuple[str, ...] = (),
    output: str,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    cluster_file: str | None = None,
    workers: int | None = None,
    slurm: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    watching: Watching,
    voxel_size_angstrom: float | None = None,
    **settings_values: Any,
) -> Regrouped:
    """Do what the command line says; returns the result of the run."""
    from rich.console import Console

    from regroup_dask.formats.run_folder import check_output
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.progress import StageClock
    from regroup_dask.settings import Settings
    from regroup_dask.tasks.connect import Where, connected
    from regroup_dask.tasks.particles import on_cluster

    settings = Settings(**settings_values)
    where = Where(scheduler, scheduler_file, cluster_file, workers, slurm)
    target = storage.location(output)
    check_output(target, resume=resume, overwrite=overwrite)
    console = Console(stderr=True)
    with scratch_folder(target) as scratch, contextlib.ExitStack() as cluster:
        # Connected when a large file is opened, or else afterwards: a wrong input is refused before a cluster starts.
        connect = functools.cache(lambda: cluster.enter_context(connected(where)))
        given = (job_folder, particles, volumes, passthrough)
        inputs, heard = find_inputs(given, settings, voxel_size_angstrom, scratch, watching, console, on_cluster(connect))
        from regroup_dask import pipeline

        with watching.listener(console) as listener, pipeline.heard_warnings(StageClock(listener)) as of_cluster:
            client = connect()
        with watching.listener(console) as listener:
            profiler = watching.profiler(client, listener)
            result = pipeline.regroup_inputs(
                inputs,
                settings,
                target,
                client=client,
                listener=profiler or listener,
                resume=resume,
                overwrite=overwrite,
                command=pipeline.command_line(),
                heard_before=[*heard, *of_cluster],
            )
            if profiler is not None:
                keep_profile(result.output, profiler.finish())
        watching.show(result, profiler)  # before the workers are ended, which takes seconds
    return result


def preview_job(
    job_folder: str | None,
    *,
    particles: tuple[str, ...],
    volumes: tuple[str, ...],
    passthrough: tuple[str, ...],
    output: str,
    scheduler: str | None,
    scheduler_file: str | None,
    cluster_file: str | None,
    workers: int | None,
    slurm: bool,
    resume: bool,
    overwrite: bool,
    watching: Watching,
    voxel_size_angstrom: float | None,
    **settings_values: Any,
) -> None:
    """Say what the same command would do and write, and refuse what it would refuse."""
    from rich.console import Console

    from regroup_dask.cli.summary import show_preview
    from regroup_dask.formats.run_folder import check_output
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.settings import Settings
    from regroup_dask.steps.preview import preview_run
    from regroup_dask.tasks.connect import Where
    from regroup_dask.tasks.expected_workers import expected_workers

    settings = Settings(**settings_values)
    where = Where(scheduler, scheduler_file, cluster_file, workers, slurm)
    target = storage.location(output)
    check_output(target, resume=resume, overwrite=overwrite)
    console = Console(stderr=True)
    # In the system's temporary folder: nothing is written beside the output, not even for a moment.
    with scratch_folder(target, beside=False) as scratch:
        given = (job_folder, particles, volumes, passthrough)
        inputs, _ = find_inputs(given, settings, voxel_size_angstrom, scratch, watching, console)
        crew, sentence = expected_workers(where)
        with watching.listener(console) as listener:
            preview = preview_run(inputs, settings, target, crew, scratch=scratch, listener=listener)
    show_preview(preview, sentence, as_json=watching.as_json)


def find_inputs(
    given: tuple[str | None, tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    settings: Settings,
    voxel_size_angstrom: float | None,
    scratch: Path,
    watching: Watching,
    console: Console,
    run: RunPieces | None = None,
) -> tuple[Inputs, list[str]]:
    """Find the maps and particles, say what was found, and return the warnings that came with it."""
    from regroup_dask.progress import StageClock, silent

    job_folder, particles, volumes, passthrough = given
    found: dict[str, Any] = {
        "mask": settings.mask,
        "class_prefix": settings.class_prefix,
        "voxel_size_angstrom": voxel_size_angstrom,
    }
    with watching.listener(console) as listener, contextlib.ExitStack() as stack:
        # Shown before anything large is imported, which takes seconds; to a program what was found comes first.
        shown = StageClock(silent if watching.as_json else listener)
        advance = stack.enter_context(shown.stage(LOOKING, 1))
        from regroup_dask import pipeline
        from regroup_dask.formats.pieces import in_this_process
        from regroup_dask.steps.inputs import inputs_of_files, inputs_of_job

        with pipeline.heard_warnings(StageClock(listener)) as heard:
            if job_folder is not None:
                inputs = inputs_of_job(job_folder, scratch=scratch, run=run or in_this_process, **found)
            else:
                inputs = inputs_of_files(
                    list(volumes),
                    list(particles) or None,
                    passthrough=passthrough,
                    scratch=scratch,
                    run=run or in_this_process,
                    **found,
                )
        advance()
    from regroup_dask.cli.summary import show_found

    if watching.as_json:
        from regroup_dask.cli.json_events import emit

        emit("found", lines=list(inputs.lines))
    elif watching.talks:
        show_found(console, inputs)
    return inputs, heard


def keep_profile(output: Path, profile: RunProfile) -> None:
    """Add to the record of a finished run where its time went."""
    from regroup_dask.formats.run_folder import read_run, write_run

    write_run(output, {**read_run(output), "profile": profile.as_dict()})
