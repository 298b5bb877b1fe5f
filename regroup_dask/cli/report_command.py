"""``regroup-dask report``: make the page of a finished run again."""

from __future__ import annotations

from pathlib import Path

import click

from regroup_dask.cli.teaching import TeachingCommand


@click.command(
    "report",
    cls=TeachingCommand,
    examples=(("regroup-dask report J42_regrouped", "after an update of this program, for instance"),),
    short_help="Make OUT/report.html again.",
)
@click.argument("output", metavar="OUT", type=click.Path())
def command(output: str) -> None:
    """Make the page of a finished run again, from what its folder holds."""
    from regroup_dask.formats.run_folder import read_run
    from regroup_dask.report.page import write_page

    folder = Path(output)
    read_run(folder)
    click.echo(write_page(folder))
