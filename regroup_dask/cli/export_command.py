"""``regroup-dask export``: another program's files from an output folder."""

from __future__ import annotations

from typing import Any

import click

from regroup_dask.cli.options import storage_options
from regroup_dask.formats import storage


@click.command("export", short_help="Another program's files from an output folder.")
@click.argument("output", metavar="OUT", type=click.Path())
@click.option("--to", "side", required=True, type=click.Choice(["relion", "cryosparc", "cryodrgn"]),
              help="The program that shall read them.")
@click.option("-o", "--output", "target", type=click.Path(), metavar="DIR",
              help="Folder to make; by default OUT/export_PROGRAM.")
@storage_options
def command(output: str, side: Any, target: str | None) -> None:
    """Write the regrouped particles for RELION, CryoSPARC or cryoDRGN, whatever they came from.

    Poses, pixel sizes, optics groups and defocus are converted.

    \b
    Examples:
      regroup-dask export OUT --to relion
      regroup-dask export OUT --to cryodrgn -o labels
    """
    from regroup_dask.steps.exporting import export

    target = target or f"{output.rstrip('/')}/export_{side}"
    done = export(storage.location(output), side, storage.location(target))
    click.echo(f"{len(done.files)} files in {done.folder}")
    for note in done.notes:
        click.echo(note)
