"""``regroup-dask demo``: a small realistic job, made here and regrouped by the very same run."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from regroup_dask.cli.stopping import says_how_to_resume
from regroup_dask.cli.teaching import TeachingCommand
from regroup_dask.cli.watching import Watching
from regroup_dask.errors import InputError, OutputExistsError
from regroup_dask.formats import storage


@click.command(
    "demo",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask demo", "makes the folder regroup_dask_demo here"),
        ("regroup-dask demo -o /tmp/demo --overwrite", "somewhere else, again"),
    ),
    short_help="Make a small realistic job and regroup it.",
)
@click.option("-o", "--output", type=click.Path(), default="regroup_dask_demo", show_default=True, metavar="DIR",
              help="The folder to make.")
@click.option("--overwrite", is_flag=True, help="Replace the folder of an earlier demo.")
@click.option("--workers", type=int, metavar="N", help="Worker processes.  [default: one per core]")
def command(output: str, overwrite: bool, workers: int | None) -> None:
    """Simulate a CryoSPARC job with a known truth, regroup it, and compare.

    No download: a synthetic complex of several subunits, its states, class maps that are rotated, shifted and
    unequally noisy, and particles with posteriors and poses.
    """
    from rich.console import Console

    from regroup_dask.cli.run_command import run_job
    from regroup_dask.demo import JOB_NAME, MINIMUM_CLASS_SIZE, N_SUPERCLASSES, compare_with_truth, simulate_job

    if storage.is_remote(output):
        raise InputError(f"The demo makes its job on disk: {output} is a URL; give a folder.")
    folder = Path(output)
    if folder.exists():
        if not overwrite:
            raise OutputExistsError(f"The folder {folder} exists: give another with -o, or --overwrite.")
        if not (folder / "truth.json").is_file():
            raise InputError(f"The folder {folder} was not made by the demo and is not overwritten: give another.")
        shutil.rmtree(folder)
    console = Console()
    console.print("Making a CryoSPARC job of a synthetic complex ...", highlight=False)
    truth = simulate_job(folder)
    job, result_folder = folder / JOB_NAME, folder / "regrouped"
    options = f"-k {N_SUPERCLASSES} --minimum-class-size {MINIMUM_CLASS_SIZE} --align-pairs"
    console.print(f"regroup-dask run {job} {options} -o {result_folder}", style="bold", highlight=False, soft_wrap=True)
    arguments = ["run", str(job), *options.split(), "-o", str(result_folder)]
    with says_how_to_resume(result_folder, arguments):
        run_job(
            str(job),
            output=str(result_folder),
            workers=workers,
            watching=Watching(),
            n_superclasses=N_SUPERCLASSES,
            minimum_class_size=MINIMUM_CLASS_SIZE,
            align=True,
        )
    comparison = compare_with_truth(result_folder, truth)
    console.print("\nCompared with the truth:", style="bold")
    for line in comparison.lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print("\nYour own job:", style="bold")
    console.print("  regroup-dask run PATH/TO/J42 -k 4 --align-pairs -o J42_regrouped", highlight=False, soft_wrap=True)
