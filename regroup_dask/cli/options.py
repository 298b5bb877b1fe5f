"""Options that several commands share, and the ways their values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from regroup_dask.errors import InputError


class ManyValues(click.Command):
    """A command some of whose options take several values: ``--volumes a.mrc b.mrc``."""

    many = ("--particles", "--volumes", "--passthrough")

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values, as click wants it."""
        spread: list[str] = []
        current: str | None = None
        for arg in args:
            if arg.startswith("-") and arg != "-":
                current = arg if arg in self.many else None
            elif current is not None and spread[-1] != current:
                spread.append(current)
            spread.append(arg)
        return super().parse_args(context, spread)


class SuperclassNumber(click.ParamType):
    """A whole number, or auto."""

    name = "K|auto"

    def convert(self, value: Any, parameter: Any, context: Any) -> int | str:
        """Read the value."""
        if value == "auto" or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto.", parameter, context)


class ClassIds(click.ParamType):
    """Class ids, separated by commas."""

    name = "0,3"

    def convert(self, value: Any, parameter: Any, context: Any) -> tuple[int, ...]:
        """Read the value."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(sorted({int(part) for part in value.replace(" ", "").split(",") if part}))
        except ValueError:
            self.fail(f"{value!r} is not a list of class numbers such as 0,3.", parameter, context)


def superclasses_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the number of superclasses of a run."""
    return click.option("-k", "--superclasses", "n_superclasses", type=SuperclassNumber(), required=True,
                        help="Number of super classes: 1 to (classes kept - 1), or auto.")(function)


def grouping_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of everything that comes after comparing, but the number of superclasses."""
    for option in reversed(
        (
            click.option("--posteriors", type=click.Choice(["argmax", "sum"]), default="argmax", show_default=True,
                         help="How a particle gets its superclass: its best class's, or the superclass with the "
                         "largest summed posterior."),
            click.option("--minimum-posterior", type=float, metavar="P",
                         help="Particles less sure of their superclass than this go to remaining."),
            click.option("--update-poses/--keep-poses", "update_poses", default=None,
                         help="Particle poses follow their class into the superclass frame.  [default: update when "
                         "aligned]"),
            click.option("--frame", type=click.Choice(["superclass", "common"]), default="superclass",
                         show_default=True, help="Each superclass in the frame of its largest class, or all in one."),
            click.option("--similarity", type=click.Choice(["structure", "correlation"]), default="structure",
                         show_default=True, help="Group by the noise-corrected similarity or by plain correlation."),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of the clustering."),
        )
    ):
        function = option(function)
    return function


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a run works."""
    for option in reversed(
        (
            click.option("--scheduler", metavar="ADDRESS", envvar="DASK_SCHEDULER_ADDRESS",
                         help="Work on the Dask cluster of this scheduler."),
            click.option("--scheduler-file", type=click.Path(), metavar="F", help="The same, by its scheduler file."),
            click.option("--cluster", "cluster_file", type=click.Path(), metavar="FILE",
                         help="Start the cluster that this yaml file describes."),
            click.option("--slurm", is_flag=True,
                         help="Submit workers to Slurm, as jobqueue.slurm in Dask's configuration says."),
            click.option("--workers", type=int, metavar="N",
                         help="How many worker processes.  [default: one per core; 8 with --slurm]"),
        )
    ):
        function = option(function)
    return function


def moved_input_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the inputs of an earlier run are now."""
    for option in reversed(
        (
            click.option("--job", "moved_job", type=click.Path(), metavar="FOLDER",
                         help="Where the job folder of that run is now, if it was moved."),
            click.option("--inputs", "moved_inputs", multiple=True, metavar="OLD=NEW",
                         help="Where a folder or file that the run read is now; may be given several times."),
        )
    ):
        function = option(function)
    return function


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what to do with an output folder that exists."""
    for option in reversed(
        (
            click.option("--resume", is_flag=True, help="Go on with an interrupted run."),
            click.option("--overwrite", is_flag=True, help="Replace the output folder of an earlier run."),
            click.option("--quiet", is_flag=True, help="No progress and no tables."),
        )
    ):
        function = option(function)
    return function


class StorageOptions(click.ParamType):
    """``NAME=VALUE``, or a JSON file."""

    name = "NAME=VALUE|FILE.json"

    def convert(self, value: Any, parameter: Any, context: Any) -> dict[str, Any]:
        """Read the value; what it holds is never shown."""
        import json
        from pathlib import Path

        if isinstance(value, dict):
            return value
        name, found, text = value.partition("=")
        if found and name.isidentifier():
            try:
                return {name: json.loads(text)}
            except ValueError:
                return {name: text}
        try:
            options = json.loads(Path(value).expanduser().read_text())
        except (OSError, ValueError):
            options = None
        if not isinstance(options, dict):
            self.fail("give NAME=VALUE, or a file that holds a JSON object.", parameter, context)
        return options


def _use(context: click.Context, parameter: click.Parameter, values: tuple[dict[str, Any], ...]) -> None:
    if values:
        from regroup_dask.formats import storage

        storage.use_storage_options({name: value for options in values for name, value in options.items()})


def storage_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says how URLs are opened."""
    option = click.option(
        "--storage-options", type=StorageOptions(), multiple=True, expose_value=False, callback=_use,
        help="For s3:// and other URLs: keys, endpoint and the like, as fsspec takes them; best a file that only you "
        "can read. The usual environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL) counts too.",
    )  # fmt: skip
    return option(function)


def one_of(given: dict[str, Any], sentence: str) -> None:
    """Raise unless exactly one of the values is given."""
    if sum(bool(value) for value in given.values()) != 1:
        raise InputError(sentence)
