"""``regroup-dask export``: another program's files from an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from regroup_dask.cli.teaching import TeachingCommand


@click.command(
    "export",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask export OUT --to relion", "makes OUT/export_relion"),
        ("regroup-dask export OUT --to cryodrgn -o labels", "somewhere else"),
    ),
    short_help="Another program's files from an output folder.",
)
@click.argument("output", metavar="OUT", type=click.Path())
@click.option("--to", "side", required=True, type=click.Choice(["relion", "cryosparc", "cryodrgn"]),
              help="The program that shall read them.")
@click.option("-o", "--output", "target", type=click.Path(), metavar="DIR",
              help="Folder to make; by default OUT/export_PROGRAM.")
def command(output: str, side: Any, target: str | None) -> None:
    """Write the regrouped particles for RELION, CryoSPARC or cryoDRGN, whatever they came from.

    Poses, pixel sizes, optics groups and defocus are converted.
    """
    from regroup_dask.steps.exporting import export

    done = export(Path(output), side, Path(target) if target else Path(output) / f"export_{side}")
    click.echo(f"{len(done.files)} files in {done.folder}")
    for note in done.notes:
        click.echo(note)
