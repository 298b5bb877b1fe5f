"""Options that several commands share, and the ways their values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from regroup_dask.cli.teaching import TeachingCommand, titled
from regroup_dask.errors import InputError

INPUT = "Input"
SUPERCLASSES = "Superclasses"
CLASSES = "Classes that take part"
ALIGNMENT = "Comparing and aligning the maps"
PARTICLES = "Particles"
PLACE = "Where it runs"
OUTPUT = "Output"


class ManyValues(TeachingCommand):
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

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Say what to give."""
        return "Give the number of superclasses, as -k 4, or -k auto to choose it from the data."

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the one word."""
        return _offered(("auto",), incomplete)


class PairChoice(click.ParamType):
    """Which pairs are compared; the settings check it."""

    name = "all|nearest[:M]"

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the words."""
        return _offered(("all", "nearest"), incomplete)


def _offered(words: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


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


def class_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which classes take part."""
    for option in reversed(
        (
            titled(CLASSES, "--minimum-class-size", type=int, default=0, show_default=True, metavar="N",
                   help="Minimum class size (particles)."),
            titled(CLASSES, "--exclude-classes", type=ClassIds(), default=(),
                   help="Manually exclude classes, zero-indexed."),
        )
    ):
        function = option(function)
    return function


def alignment_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of comparing the maps."""
    for option in reversed(
        (
            titled(ALIGNMENT, "--align-pairs/--no-align-pairs", "align", default=False, show_default=True,
                   help="Align pairs of classes, over all rotations."),
            titled(ALIGNMENT, "--maximum-shift", "maximum_shift_angstrom", type=float, default=20.0, show_default=True,
                   metavar="A", help="Maximum shift (A) between two volumes in the pairwise alignment."),
            titled(ALIGNMENT, "--hand", type=click.Choice(["off", "detect"]), default="detect", show_default=True,
                   help="Look for classes of the opposite hand."),
            titled(ALIGNMENT, "--mask-inner-radius", type=float, metavar="F",
                   help="Spherical mask inner radius, as a proportion of half the box; none = no spherical mask."),
            titled(ALIGNMENT, "--mask", type=click.Path(), metavar="FILE",
                   help="Mask (MRC), in the frame of the largest kept class when classes are aligned."),
            titled(ALIGNMENT, "--pairs", type=PairChoice(), default="all", show_default=True, metavar="all|nearest[:M]",
                   help="Compare all pairs of classes, or, for thousands of them, each with its M nearest."),
        )
    ):
        function = option(function)
    return function


def superclasses_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the number of superclasses of a run."""
    return titled(SUPERCLASSES, "-k", "--superclasses", "n_superclasses", type=SuperclassNumber(), required=True,
                  metavar="K|auto",
                  help="Number of super classes: 1 to (classes kept - 1), or auto.")(function)


def grouping_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of everything that comes after comparing, but the number of superclasses."""
    for option in reversed(
        (
            titled(PARTICLES, "--posteriors", type=click.Choice(["argmax", "sum"]), default="argmax", show_default=True,
                         help="How a particle gets its superclass: its best class's, or the superclass with the "
                         "largest summed posterior."),
            titled(PARTICLES, "--minimum-posterior", type=float, metavar="P",
                         help="Particles less sure of their superclass than this go to remaining."),
            titled(PARTICLES, "--update-poses/--keep-poses", "update_poses", default=None,
                         help="Particle poses follow their class into the superclass frame.  [default: update when "
                         "aligned]"),
            titled(SUPERCLASSES, "--frame", type=click.Choice(["superclass", "common"]), default="superclass",
                         show_default=True, help="Each superclass in the frame of its largest class, or all in one."),
            titled(SUPERCLASSES, "--similarity", type=click.Choice(["structure", "correlation"]), default="structure",
                         show_default=True, help="Group by the noise-corrected similarity or by plain correlation."),
            titled(SUPERCLASSES, "--seed", type=int, default=0, show_default=True, help="Seed of the clustering."),
        )
    ):
        function = option(function)
    return function


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a run works."""
    for option in reversed(
        (
            titled(PLACE, "--scheduler", metavar="ADDRESS", envvar="DASK_SCHEDULER_ADDRESS",
                         help="Work on the Dask cluster of this scheduler."),
            titled(PLACE, "--scheduler-file", type=click.Path(), metavar="F", help="The same, by its scheduler file."),
            titled(PLACE, "--cluster", "cluster_file", type=click.Path(), metavar="FILE",
                         help="Start the cluster that this yaml file describes."),
            titled(PLACE, "--slurm", is_flag=True,
                         help="Submit workers to Slurm, as jobqueue.slurm in Dask's configuration says."),
            titled(PLACE, "--workers", type=int, metavar="N",
                         help="How many worker processes.  [default: one per core; 8 with --slurm]"),
        )
    ):
        function = option(function)
    return function


def moved_input_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the inputs of an earlier run are now."""
    for option in reversed(
        (
            titled(INPUT, "--job", "moved_job", type=click.Path(), metavar="FOLDER",
                         help="Where the job folder of that run is now, if it was moved."),
            titled(INPUT, "--inputs", "moved_inputs", multiple=True, metavar="OLD=NEW",
                         help="Where a folder or file that the run read is now; may be given several times."),
        )
    ):
        function = option(function)
    return function


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what to do with an output folder that exists."""
    for option in reversed(
        (
            titled(OUTPUT, "--resume", is_flag=True, help="Go on with an interrupted run."),
            titled(OUTPUT, "--overwrite", is_flag=True, help="Replace the output folder of an earlier run."),
        )
    ):
        function = option(function)
    return function


dry_run_option = titled(
    OUTPUT, "--dry-run", is_flag=True, help="Print what would be done and written; compute and write nothing."
)  # fmt: skip


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
    option = titled(
        INPUT, "--storage-options", type=StorageOptions(), multiple=True, expose_value=False, callback=_use,
        help="For s3:// and other URLs: keys, endpoint and the like, as fsspec takes them; best a file that only you "
        "can read. The usual environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL) counts too.",
    )  # fmt: skip
    return option(function)


def one_of(given: dict[str, Any], sentence: str) -> None:
    """Raise unless exactly one of the values is given."""
    if sum(bool(value) for value in given.values()) != 1:
        raise InputError(sentence)
