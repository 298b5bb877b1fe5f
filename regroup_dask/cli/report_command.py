"""``regroup-dask report``: make the page of a finished run again."""

from __future__ import annotations

import click

from regroup_dask.cli.options import storage_options
from regroup_dask.formats import storage


@click.command("report", short_help="Make OUT/report.html again.")
@click.argument("output", metavar="OUT", type=click.Path())
@storage_options
def command(output: str) -> None:
    """Make the page of a finished run again, from what its folder holds."""
    from regroup_dask.formats.run_folder import read_run
    from regroup_dask.report.page import write_page

    folder = storage.location(output)
    read_run(folder)
    click.echo(write_page(folder))
