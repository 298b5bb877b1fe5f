"""The group of commands, and what an error looks like to the person who typed one."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from typing import Any

import click

from regroup_dask import __version__
from regroup_dask.cli.stopping import Stopped, stoppable
from regroup_dask.cli.watching import hush_log, show_log
from regroup_dask.errors import InputError, RegroupError

COMMANDS = {
    "demo": "regroup_dask.cli.demo_command",
    "run": "regroup_dask.cli.run_command",
    "group": "regroup_dask.cli.group_command",
    "align": "regroup_dask.cli.align_command",
    "export": "regroup_dask.cli.export_command",
    "info": "regroup_dask.cli.info_command",
    "report": "regroup_dask.cli.report_command",
    "compare": "regroup_dask.cli.compare_command",
    "cryosparc": "regroup_dask.cli.cryosparc_command",
    "completion": "regroup_dask.cli.completion_command",
}

WRONG_INPUT, FAILED = 2, 1


class Program(click.Group):
    """Imports a command when it is used, and turns errors into sentences and exit codes."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Name the commands in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import and return one command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[name]).command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for one that does not exist."""
        import difflib

        unknown = args and not args[0].startswith("-") and args[0] not in COMMANDS
        if unknown and not context.resilient_parsing:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" The commands are {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", context)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run a command; 2 for wrong usage or input, 128 + N when signal N stopped it, 1 for anything else."""
        try:
            with stoppable():
                return super().invoke(context)
        except RegroupError as error:
            _end(context, f"Error: {error}", WRONG_INPUT if isinstance(error, InputError) else FAILED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Stopped as error:
            _stop(context, error)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            from regroup_dask.formats.full_disk import is_full_disk
            from regroup_dask.formats.store_errors import explained

            sentence = explained(error)
            if sentence is not None:
                _end(context, f"Error: {sentence}", WRONG_INPUT if isinstance(sentence, InputError) else FAILED)
            if is_full_disk(error):
                _end(
                    context,
                    "Error: The disk is full. What is finished is kept: make room, then give the same command with "
                    "--resume.",
                    FAILED,
                )
            _unforeseen(context, error)
        except Exception as error:
            _unforeseen(context, error)


def _end(context: click.Context, text: str, exit_code: int) -> None:
    if (context.obj or {}).get("as_json"):
        from regroup_dask.cli.json_events import emit

        emit("error", text=text.removeprefix("Error: "), exit_code=exit_code)
    click.echo(text, err=True)
    context.exit(exit_code)


def _stop(context: click.Context, error: Stopped) -> None:
    if (context.obj or {}).get("as_json"):
        from regroup_dask.cli.json_events import emit

        emit("stopped", text=error.text.partition("\n")[0], exit_code=error.exit_code, resume=error.resume)
    click.echo(error.text, err=True)
    context.exit(error.exit_code)


def _unforeseen(context: click.Context, error: BaseException) -> None:
    if (context.obj or {}).get("verbose"):
        traceback.print_exception(error, file=sys.stderr)
    _end(
        context,
        f"Error: {type(error).__name__}: {error}\nThis was not foreseen. `regroup-dask --verbose ...` shows where it "
        "happened; a run that had begun goes on with --resume.",
        FAILED,
    )


@click.group(
    "regroup",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Begin with: regroup-dask demo. Every command has examples: regroup-dask run --help.",
)
@click.version_option(__version__, prog_name="regroup-dask")
@click.option("--verbose", is_flag=True, help="Show the log, and where an unforeseen error happened.")
@click.pass_context
def main(context: click.Context, verbose: bool) -> None:
    """Regroup the classes of a cryo-EM 3D classification.

    Takes the N class maps and the particles of a 3D classification, heterogeneous refinement or ab-initio run,
    finds which classes are the same structure, and hands back K superclasses of particles and maps.
    """
    context.obj = {"verbose": verbose}
    hush_log()
    if verbose:
        show_log()
