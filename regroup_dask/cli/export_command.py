"""``regroup-dask export``: another program's files from an output folder."""

from __future__ import annotations

import re
from typing import Any

import click

from regroup_dask.cli.options import OUTPUT, cluster_options, dry_run_option, storage_options
from regroup_dask.cli.teaching import TeachingCommand, titled
from regroup_dask.cli.watching import WATCHING
from regroup_dask.errors import InputError
from regroup_dask.formats import storage

PLACES = "Places on micrographs"


@click.command(
    "export",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask export OUT --to relion", "makes OUT/export_relion"),
        ("regroup-dask export OUT --to cryosparc --micrograph-size 5760x4092", "places on micrographs as fractions"),
        ("regroup-dask export OUT --to cryodrgn -o labels", "somewhere else"),
    ),
    short_help="Another program's files from an output folder.",
)
@click.argument("output", metavar="OUT", type=click.Path())
@titled(OUTPUT, "--to", "side", required=True, type=click.Choice(["relion", "cryosparc", "cryodrgn"]),
              help="The program that shall read them.")
@titled(OUTPUT, "-o", "--output", "target", type=click.Path(), metavar="DIR",
              help="Folder to make; by default OUT/export_PROGRAM.")
@titled(PLACES, "--micrograph-size", metavar="WxH",
              help="Width and height of the micrographs in pixels, for places on them, which CryoSPARC wants as fractions.")
@titled(PLACES, "--flip-y/--keep-y", default=True, show_default=True,
              help="CryoSPARC counts places in y from the other edge than RELION; keep them where the micrographs themselves "
              "were flipped between the programs, as by another motion correction.")
@dry_run_option
@cluster_options
@titled(WATCHING, "--quiet", is_flag=True, help="No progress.")
@storage_options
def command(
    output: str,
    side: Any,
    target: str | None,
    micrograph_size: str | None,
    flip_y: bool,
    dry_run: bool,
    quiet: bool,
    **where: Any,
) -> None:
    """Write the regrouped particles for RELION, CryoSPARC or cryoDRGN, whatever they came from.

    Poses, half-sets, pixel sizes, optics groups, defocus, beam tilt, magnification and places are converted. One task
    writes one fragment of the particles, on the workers that are asked for; a single fragment is written at once.
    """
    import contextlib

    from rich.console import Console

    from regroup_dask.formats.regrouped_folder import open_regrouped
    from regroup_dask.progress import StageClock, listener_for
    from regroup_dask.steps.exporting import export, plan_of_export
    from regroup_dask.tasks.connect import Where, connected

    size = _size(micrograph_size)
    asked = Where(where["scheduler"], where["scheduler_file"], where["cluster_file"], where["workers"], where["slurm"])
    folder = storage.location(target) if target else storage.location(output) / f"export_{side}"
    if dry_run:
        for line in plan_of_export(storage.location(output), side, folder):
            click.echo(line)
        click.echo("Nothing was written: the same command without --dry-run does it.")
        return
    one_fragment = asked == Where() and len(open_regrouped(storage.location(output)).fragments) == 1
    with contextlib.ExitStack() as stack:
        client = None if one_fragment else stack.enter_context(connected(asked))
        listener = stack.enter_context(listener_for(Console(stderr=True), quiet=quiet))
        clock = StageClock(listener)
        done = export(storage.location(output), side, folder, client=client, clock=clock, micrograph_size=size, flip_y=flip_y)
    click.echo(f"{len(done.files)} files in {done.folder}")
    for note in done.notes:
        click.echo(note)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})[x,](\d{1,6})", text.strip())
    if match is None or not (int(match[1]) and int(match[2])):
        raise InputError(f"--micrograph-size is {text!r}: give width and height in pixels, such as 5760x4092.")
    return int(match[1]), int(match[2])
