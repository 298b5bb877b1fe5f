"""``regroup-dask group``: another number of superclasses, or changes by hand, nothing realigned."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import click

from regroup_dask.cli.group_values import MergeValue, MoveValue, SplitValue, SuperclassCounts
from regroup_dask.cli.options import (
    OUTPUT,
    SUPERCLASSES,
    cluster_options,
    dry_run_option,
    grouping_options,
    moved_input_options,
    output_options,
    storage_options,
)
from regroup_dask.cli.stopping import says_how_to_resume
from regroup_dask.cli.teaching import TeachingCommand, titled
from regroup_dask.cli.watching import Watching, watching_options
from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.hand_edits import Edits, ToldGroups
from regroup_dask.settings import Settings

EXAMPLES = (
    ("regroup-dask group OUT -k 6", "show six superclasses, write nothing"),
    ("regroup-dask group OUT -k 6 -o OUT_6", "write them: particles, maps and report"),
    ("regroup-dask group OUT -k 6 -o OUT_6 --dry-run", "show them and check that they could be written"),
    ("regroup-dask group OUT -k 2-8", "several numbers beside each other"),
    ("regroup-dask group OUT --merge 0,3 --move class=5:superclass=1 -o OUT_by_hand", "who knows better says so"),
)


QUICK_CLASSES, QUICK_BOX, QUICK_PARTICLES = 24, 128, 300_000


class Wanted(NamedTuple):
    """One grouping that was asked for, and the folder it goes to."""

    settings: Settings
    told: ToldGroups | None
    target: Path | None


@click.command(
    "group",
    cls=TeachingCommand,
    examples=EXAMPLES,
    short_help="Regroup a finished run: another K, or by hand; nothing realigned.",
)
@click.argument("earlier", metavar="OUT", type=click.Path())
@titled(OUTPUT, "-o", "--output", type=click.Path(), metavar="OUT2",
              help="Write a complete output folder (with several K: OUT2/k2, OUT2/k3, ...); without it the groups are only "
              "shown.")
@titled(SUPERCLASSES, "-k", "--superclasses", "counts", type=SuperclassCounts(), metavar="K|K-K|auto",
              help="Number of super classes: 1 to (classes kept - 1), several (2-8, or 3,5), or auto.")
@titled(SUPERCLASSES, "--merge", "merges", type=MergeValue(), multiple=True, metavar="S,S",
        help="Make one superclass of these.")
@titled(SUPERCLASSES, "--split", "splits", type=SplitValue(), multiple=True, metavar="S[=PARTS]",
              help="Split a superclass into 2, or into PARTS.")
@titled(SUPERCLASSES, "--move", "moves", type=MoveValue(), multiple=True, metavar="class=C:superclass=S",
              help="Put a class into another superclass, into a `new` one, or into none (`remaining`).")
@grouping_options
@moved_input_options
@cluster_options
@output_options
@dry_run_option
@watching_options
@click.pass_context
@storage_options
def command(
    context: click.Context, earlier: str, output: str | None, watching: Watching, **options: Any
) -> None:
    """Group the classes of a finished run again, from what it stored.

    With -k from the beginning; with --merge, --split and --move from the superclasses that OUT has, whose numbers
    they mean: moves come first, then splits, then merges. The superclasses of the result are numbered by their
    particles, as always.
    """
    from rich.console import Console

    from regroup_dask.cli.group_tables import show_counts, show_groups, show_mapping

    folder = storage.location(earlier)
    edits = Edits(options.pop("moves"), options.pop("splits"), options.pop("merges"))
    dry_run = options.pop("dry_run")
    wanted = _wanted(context, folder, storage.location(output) if output else None, options.pop("counts"), edits)
    console = Console()
    if dry_run and output is not None:
        _check_targets(folder, wanted, options)
    if output is None or dry_run:
        groupings = [_grouping(folder, one) for one in wanted]
        if len(groupings) > 1:
            show_counts(console, groupings, now=_grouping_of_run(folder))
            console.print(_nothing_written(wanted, "-o FOLDER writes particles and maps of each."), highlight=False)
            return
        show_groups(console, groupings[0])
        if wanted[0].told is not None:
            show_mapping(console, wanted[0].told.before, groupings[0])
        console.print(_nothing_written(wanted, "-o OUT2 writes particles and maps of this grouping."), highlight=False)
        return
    results = _write(folder, wanted, options, watching)
    if not watching.talks:
        for result in results:
            watching.show(result)
        return
    if len(results) == 1:
        watching.show(results[0])
        if wanted[0].told is not None:
            show_mapping(console, wanted[0].told.before, results[0].groups)
        return
    show_counts(console, [result.groups for result in results], now=_grouping_of_run(folder))
    for result in results:
        console.print(f"Look at {result.output / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


def _nothing_written(wanted: list[Wanted], remedy: str) -> str:
    targets = [str(one.target) for one in wanted if one.target is not None]
    if not targets:
        return f"Nothing was written; {remedy}"
    return f"Nothing was written: the same command without --dry-run makes {', '.join(targets)}."


def _check_targets(folder: Path, wanted: list[Wanted], options: dict[str, Any]) -> None:
    """Refuse what the same command without --dry-run would refuse: an output that exists, inputs that are not there."""
    from regroup_dask.formats.run_folder import check_output, read_run
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.steps.inputs import inputs_of_record
    from regroup_dask.steps.moved_inputs import moved_record, moves_of_inputs

    record = read_run(folder)
    moves = moves_of_inputs(record, options["moved_job"], options["moved_inputs"])
    targets = [one.target for one in wanted if one.target is not None]
    for target in targets:
        check_output(target, resume=options["resume"], overwrite=options["overwrite"])
    with scratch_folder(targets[0], beside=False) as scratch:
        inputs_of_record(moved_record(record, moves) if moves else record, wanted[0].settings.class_prefix, scratch)


def _wanted(
    context: click.Context, folder: Path, output: Path | None, counts: tuple[int | str, ...] | None, edits: Edits
) -> list[Wanted]:
    """What was asked for: a grouping by hand, or one for each number of superclasses."""
    from regroup_dask.pipeline import settings_of_run

    record, before = settings_of_run(folder)
    chosen = ("posteriors", "minimum_posterior", "update_poses", "frame", "similarity", "seed")
    from_command_line = click.core.ParameterSource.COMMANDLINE
    changes = {name: context.params[name] for name in chosen if context.get_parameter_source(name) == from_command_line}
    if edits and counts:
        raise InputError(
            "--merge, --split and --move change the superclasses that OUT has, and -k makes others: give one or the other."
        )
    if edits:
        told = _told(folder, edits, dataclasses.replace(before, **changes))
        excluded = tuple(sorted({*before.exclude_classes, *told.removed}))
        settings = dataclasses.replace(
            before, **changes, n_superclasses=told.n_superclasses, exclude_classes=excluded
        )
        return [Wanted(settings, told, output)]
    if not counts:
        raise InputError("Give a number of superclasses with -k, or what to change with --merge, --split or --move.")
    most = int(record.get("n_classes_kept") or 0) - 1
    beyond = [count for count in counts if count != "auto" and not 1 <= int(count) <= most]
    if beyond:
        raise InputError(
            f"The number of superclasses (-k) is {beyond[0]}, but it must be from 1 to {most}, one less than the {most + 1} "
            "classes that took part in that run."
        )
    several = len(counts) > 1
    if several and output is not None and (output / "run.json").exists():
        raise InputError(f"{output} is the output of a run: with several numbers of superclasses give a folder for all.")
    return [
        Wanted(
            dataclasses.replace(before, **changes, n_superclasses=count),  # type: ignore[arg-type]
            None,
            output / f"k{count}" if several and output is not None else output,
        )
        for count in counts
    ]


def _told(folder: Path, edits: Edits, settings: Settings) -> ToldGroups:
    from regroup_dask.formats.pairs_store import read_pairs
    from regroup_dask.formats.result_tables import read_table
    from regroup_dask.told_groups import tell_groups

    return tell_groups(
        edits,
        read_table(folder, "classes").to_pylist(),
        read_pairs(folder / "pairs.zarr"),
        similarity=settings.similarity,
        seed=settings.seed,
    )


def _grouping(folder: Path, wanted: Wanted) -> Any:
    """Group as asked for, without writing anything."""
    from regroup_dask.formats.pairs_store import read_pairs
    from regroup_dask.grouping import group_pairs
    from regroup_dask.told_groups import group_as_told

    pairs, settings = read_pairs(folder / "pairs.zarr"), wanted.settings
    if wanted.told is None:
        return group_pairs(
            pairs,
            settings.n_superclasses,
            similarity=settings.similarity,
            frame=settings.frame,
            seed=settings.seed,
        )
    kept = list(wanted.told.superclass_of_class)
    pairs = pairs.sel(class_i=kept, class_j=kept)
    sizes = pairs["n_particles"].values if "n_particles" in pairs.coords else None
    return group_as_told(
        pairs, wanted.told, n_particles=sizes, similarity=settings.similarity, frame=settings.frame
    )


def _grouping_of_run(folder: Path) -> Any:
    from regroup_dask.report.output_contents import read_output

    return read_output(folder).groups


def _write(folder: Path, wanted: list[Wanted], options: dict[str, Any], watching: Watching) -> list[Any]:
    """Write an output folder for each grouping, with the same workers."""
    from rich.console import Console

    from regroup_dask import pipeline
    from regroup_dask.cli.run_command import keep_profile
    from regroup_dask.formats.run_folder import check_output, read_run
    from regroup_dask.formats.scratch_folder import scratch_folder
    from regroup_dask.steps.inputs import inputs_of_record
    from regroup_dask.steps.moved_inputs import moved_record, moves_of_inputs
    from regroup_dask.tasks.connect import Where, connected
    from regroup_dask.tasks.particles import on_cluster

    record = read_run(folder)
    moves = moves_of_inputs(record, options["moved_job"], options["moved_inputs"])
    if moves:
        record = moved_record(record, moves)
    targets = [one.target for one in wanted if one.target is not None]
    for target in targets:
        check_output(target, resume=options["resume"], overwrite=options["overwrite"])
    where = Where(
        options["scheduler"],
        options["scheduler_file"],
        options["cluster_file"],
        options["workers"],
        options["slurm"],
    )
    results = []
    with scratch_folder(targets[0]) as scratch, contextlib.ExitStack() as stack:
        connect = functools.cache(lambda: stack.enter_context(connected(where)))
        inputs = inputs_of_record(record, wanted[0].settings.class_prefix, scratch, on_cluster(connect))
        client = None if _is_quick(record, inputs, wanted, where, watching) else connect()
        known: dict[tuple[str, bytes], Any] = {}
        for one, target in zip(wanted, targets, strict=True):
            with says_how_to_resume(target), watching.listener(Console(stderr=True)) as listener:
                profiler = watching.profiler(client, listener)
                result = pipeline.regroup_inputs(
                    inputs,
                    one.settings,
                    target,
                    client=client,
                    listener=profiler or listener,
                    resume=options["resume"],
                    overwrite=options["overwrite"],
                    command=pipeline.command_line(),
                    earlier=folder,
                    told=one.told,
                    known=known,
                )
                if profiler is not None:
                    keep_profile(result.output, profiler.finish())
            results.append(result)
    return results


def _is_quick(record: dict[str, Any], inputs: Any, wanted: list[Wanted], where: Any, watching: Watching) -> bool:
    """Whether this process is done before a cluster of its own would have started."""
    from regroup_dask.tasks.connect import Where

    return (
        len(wanted) == 1
        and where == Where()
        and not watching.profile
        and int(record.get("n_classes_kept") or 0) <= QUICK_CLASSES
        and inputs.series.box <= QUICK_BOX
        and int(record.get("n_particles") or 0) <= QUICK_PARTICLES
    )
