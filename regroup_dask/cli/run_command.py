"""``regroup-dask run``: the main job."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from regroup_dask.cli.options import (
    ClassIds,
    ManyValues,
    cluster_options,
    grouping_options,
    output_options,
    storage_options,
    superclasses_option,
)
from regroup_dask.errors import InputError
from regroup_dask.formats import storage

EXAMPLES = """
\b
Examples:
  regroup-dask run J42 -k 4 --align-pairs -o J42_regrouped
  regroup-dask run Class3D/job016 -k auto --align-pairs -o regrouped
  regroup-dask run s3://bucket/J42 -k 4 -o s3://bucket/J42_regrouped
  regroup-dask run --particles J42/*_particles.cs --volumes 'J42/*_volume.mrc' -k 3 -o OUT
"""


@click.command("run", cls=ManyValues, epilog=EXAMPLES, short_help="Regroup a job folder, or particles and maps.")
@click.argument("job_folder", required=False, type=click.Path())
@click.option("--particles", multiple=True, metavar="P...", help="Particles: .cs, .csg, .star or parquet files.")
@click.option("--volumes", multiple=True, metavar="V...", help="Class maps: MRC files, globs, or a zarr store.")
@click.option("--passthrough", multiple=True, metavar="P...", help="CryoSPARC passthrough files of the particles.")
@click.option("-o", "--output", required=True, type=click.Path(), metavar="OUT", help="The folder to make.")
@superclasses_option
@grouping_options
@click.option("--minimum-class-size", type=int, default=0, show_default=True, metavar="N",
              help="Minimum class size (particles).")
@click.option("--exclude-classes", type=ClassIds(), default=(), help="Manually exclude classes, zero-indexed.")
@click.option("--align-pairs/--no-align-pairs", "align", default=False, show_default=True,
              help="Align pairs of classes, over all rotations.")
@click.option("--maximum-shift", "maximum_shift_angstrom", type=float, default=20.0, show_default=True, metavar="A",
              help="Maximum shift (A) between two volumes in the pairwise alignment.")
@click.option("--mask-inner-radius", type=float, metavar="F",
              help="Spherical mask inner radius, as a proportion of half the box; none = no spherical mask.")
@click.option("--mask", type=click.Path(), metavar="FILE",
              help="Mask (MRC), in the frame of the largest kept class when classes are aligned.")
@click.option("--class-prefix", default="auto", show_default=True, metavar="P|auto",
              help="[Legacy] Class alignment3D prefix: alignments_class3D_, alignments_class_ or alignments3D_multi.")
@click.option("--hand", type=click.Choice(["off", "detect"]), default="detect", show_default=True,
              help="Look for classes of the opposite hand.")
@click.option("--pairs", default="all", show_default=True, metavar="all|nearest[:M]",
              help="Compare all pairs of classes, or, for thousands of them, each with its M nearest.")
@click.option("--voxel-size", "voxel_size_angstrom", type=float, metavar="A",
              help="Voxel size of the maps, where their headers do not say it.")
@cluster_options
@output_options
@storage_options
def command(job_folder: str | None, **options: Any) -> None:
    """Find which classes are the same structure and write K superclasses of particles and maps.

    JOB_FOLDER is a CryoSPARC job (3D Classification, Heterogeneous Refinement, Ab-Initio) or a RELION Class3D job:
    the newest iteration is found by itself. Or name --particles and --volumes; without particles only the maps are
    grouped.
    """
    if (job_folder is None) == (not options["volumes"]):
        raise InputError(
            "Give a job folder, or --volumes (and --particles): "
            + ("both were given." if job_folder else "neither was given.")
        )
    if job_folder is not None and (options["particles"] or options["passthrough"]):
        raise InputError("A job folder names its own particles: leave out --particles and --passthrough.")
    run_job(job_folder, **options)


def run_job(
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
    slurm: bool = False,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    voxel_size_angstrom: float | None,
    **settings_values: Any,
) -> Any:
    """Do what the command line says; returns the result of the run."""
    from rich.console import Console

    from regroup_dask import pipeline
    from regroup_dask.cli.summary import show_found, show_result
    from regroup_dask.formats.run_folder import check_output
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.progress import StageClock, listener_for
    from regroup_dask.settings import Settings
    from regroup_dask.steps.inputs import inputs_of_files, inputs_of_job
    from regroup_dask.tasks.connect import Where, connected

    settings = Settings(**settings_values)
    where = Where(scheduler, scheduler_file, cluster_file, workers, slurm)
    target = storage.location(output)
    check_output(target, resume=resume, overwrite=overwrite)
    console = Console(stderr=True)
    found: dict[str, Any] = {
        "mask": settings.mask,
        "class_prefix": settings.class_prefix,
        "voxel_size_angstrom": voxel_size_angstrom,
    }
    with scratch_folder(target) as scratch:
        with listener_for(console, quiet=quiet) as listener, pipeline.heard_warnings(StageClock(listener)) as heard:
            if job_folder is not None:
                inputs = inputs_of_job(job_folder, scratch=scratch, **found)
            else:
                inputs = inputs_of_files(
                    list(volumes), list(particles) or None, passthrough=passthrough, scratch=scratch, **found
                )
        if not quiet:
            show_found(console, inputs)
        with contextlib.ExitStack() as cluster:
            with listener_for(console, quiet=quiet) as listener, pipeline.heard_warnings(StageClock(listener)) as of_cluster:
                client = cluster.enter_context(connected(where))
            with listener_for(console, quiet=quiet) as listener:
                result = pipeline.regroup_inputs(
                    inputs,
                    settings,
                    target,
                    client=client,
                    listener=listener,
                    resume=resume,
                    overwrite=overwrite,
                    command=pipeline.command_line(),
                    heard_before=[*heard, *of_cluster],
                )
    if not quiet:
        show_result(Console(), result)
    return result
