"""``regroup-dask info``: what a file is, as the program understands it."""

from __future__ import annotations

import click

from regroup_dask.cli.options import storage_options
from regroup_dask.cli.teaching import TeachingCommand
from regroup_dask.errors import InputError


@click.command(
    "info",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask info J42", "a job: what `run J42` would take"),
        ("regroup-dask info J42/*_volume.mrc J42/*_particles.cs", "files"),
    ),
    short_help="What a file is, as the program understands it.",
)
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.pass_context
@storage_options
def command(context: click.Context, files: tuple[str, ...]) -> None:
    """Describe maps, particle files, groups, stores and job folders."""
    from rich.console import Console
    from rich.table import Table

    from regroup_dask.formats.describe import describe_file

    console = Console()
    failed = False
    for path in files:
        try:
            rows = describe_file(path)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            failed = True
            continue
        table = Table(title=path, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(str(name), str(value))
        console.print(table, highlight=False)
        console.print()
    if failed:
        context.exit(2)
