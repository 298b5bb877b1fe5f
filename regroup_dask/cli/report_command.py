"""``regroup-dask report``: make the page of a finished run again."""

from __future__ import annotations

import click

from regroup_dask.cli.options import moved_input_options, storage_options
from regroup_dask.cli.teaching import TeachingCommand
from regroup_dask.formats import storage


@click.command(
    "report",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask report J42_regrouped", "after an update of this program, for instance"),
        ("regroup-dask report J42_regrouped --job /new/place/J42", "after the job it was made from has moved"),
    ),
    short_help="Make OUT/report.html again.",
)
@click.argument("output", metavar="OUT", type=click.Path())
@moved_input_options
@storage_options
def command(output: str, moved_job: str | None, moved_inputs: tuple[str, ...]) -> None:
    """Make the page of a finished run again, from what its folder holds.

    With --job or --inputs OUT remembers where the files that it was made from are now.
    """
    from regroup_dask.formats.run_folder import read_run
    from regroup_dask.report.chimerax import write_view
    from regroup_dask.report.page import write_page
    from regroup_dask.steps.moved_inputs import moves_of_inputs, remember_places

    folder = storage.location(output)
    moves = moves_of_inputs(read_run(folder), moved_job, moved_inputs)
    if moves:
        remember_places(folder, moves)
    write_view(folder)
    click.echo(write_page(folder))
