"""``regroup-dask group``: another number of superclasses, nothing realigned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from regroup_dask.cli.options import cluster_options, grouping_options, output_options, storage_options
from regroup_dask.formats import storage


@click.command("group", short_help="Regroup a finished run with another K, nothing realigned.")
@click.argument("earlier", metavar="OUT", type=click.Path())
@click.option("-o", "--output", type=click.Path(), metavar="OUT2",
              help="Write a complete output folder; without it the groups are only shown.")
@grouping_options
@cluster_options
@output_options
@storage_options
@click.pass_context
def command(context: click.Context, earlier: str, output: str | None, **options: Any) -> None:
    """Group the classes of a finished run again, from its pairs.zarr.

    \b
    Examples:
      regroup-dask group OUT -k 6
      regroup-dask group OUT -k 6 -o OUT_6
    """
    from rich.console import Console

    from regroup_dask import pipeline
    from regroup_dask.cli.summary import show_result
    from regroup_dask.formats.run_folder import check_output
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.progress import listener_for
    from regroup_dask.steps.inputs import inputs_of_record
    from regroup_dask.tasks.connect import Where, connected

    record, before = pipeline.settings_of_run(storage.location(earlier))
    chosen = ("n_superclasses", "posteriors", "minimum_posterior", "update_poses", "frame", "similarity", "seed")
    from_command_line = click.core.ParameterSource.COMMANDLINE
    changes = {name: options[name] for name in chosen if context.get_parameter_source(name) == from_command_line}
    settings = dataclasses.replace(before, **changes)
    if output is None:
        _show_groups(Console(), storage.location(earlier), settings)
        return
    target = storage.location(output)
    check_output(target, resume=options["resume"], overwrite=options["overwrite"])
    where = Where(
        options["scheduler"],
        options["scheduler_file"],
        options["cluster_file"],
        options["workers"],
        options["slurm"],
    )
    with scratch_folder(target) as scratch:
        inputs = inputs_of_record(record, settings.class_prefix, scratch)
        with (
            connected(where) as client,
            listener_for(Console(stderr=True), quiet=options["quiet"]) as listener,
        ):
            result = pipeline.regroup_inputs(
                inputs,
                settings,
                target,
                client=client,
                listener=listener,
                resume=options["resume"],
                overwrite=options["overwrite"],
                command=pipeline.command_line(),
                earlier=storage.location(earlier),
            )
    if not options["quiet"]:
        show_result(Console(), result)


def _show_groups(console: Any, earlier: Path, settings: Any) -> None:
    from rich.table import Table

    from regroup_dask.formats.pairs_store import read_pairs
    from regroup_dask.grouping import group_pairs

    groups = group_pairs(
        read_pairs(earlier / "pairs.zarr"),
        settings.n_superclasses,
        similarity=settings.similarity,
        frame=settings.frame,
        seed=settings.seed,
    )
    labels, ids = groups["superclass"].values, groups["class_id"].values
    table = Table(title=f"{groups.sizes['superclass_id']} superclasses", title_justify="left")
    table.add_column("superclass", justify="right")
    table.add_column("classes")
    if "n_particles" in groups.coords:
        table.add_column("particles", justify="right")
    for label in range(groups.sizes["superclass_id"]):
        inside = labels == label
        cells = [str(label), ", ".join(str(value) for value in ids[inside])]
        if "n_particles" in groups.coords:
            cells.append(f"{int(groups['n_particles'].values[inside].sum()):,}")
        table.add_row(*cells)
    console.print(table)
    console.print("Nothing was written; -o OUT2 writes particles and maps of this grouping.", highlight=False)
