"""The group of commands, and what an error looks like to the person who typed one."""

from __future__ import annotations

import errno
import importlib
import logging
import sys
import traceback
from typing import Any

import click

from regroup_dask import __version__
from regroup_dask.errors import ClusterError, InputError, RegroupError

COMMANDS = {
    "demo": "regroup_dask.cli.demo_command",
    "run": "regroup_dask.cli.run_command",
    "group": "regroup_dask.cli.group_command",
    "align": "regroup_dask.cli.align_command",
    "export": "regroup_dask.cli.export_command",
    "info": "regroup_dask.cli.info_command",
    "report": "regroup_dask.cli.report_command",
}


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

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" The commands are {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", context)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run a command; 2 for wrong usage or input, 1 for anything else."""
        try:
            return super().invoke(context)
        except (InputError, ClusterError, RegroupError) as error:
            _say(f"Error: {error}")
            context.exit(2 if isinstance(error, InputError) else 1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            _say("Stopped. What is finished is kept: the same command with --resume goes on from there.")
            context.exit(1)
        except OSError as error:
            from regroup_dask.formats.store_errors import explained

            sentence = explained(error)
            if sentence is not None:
                _say(f"Error: {sentence}")
                context.exit(2 if isinstance(sentence, InputError) else 1)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _say(
                    "Error: The disk is full. What is finished is kept: make room, then give the same command with "
                    "--resume."
                )
            else:
                _unexpected(error, context)
            context.exit(1)
        except Exception as error:
            _unexpected(error, context)
            context.exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _unexpected(error: BaseException, context: click.Context) -> None:
    if (context.obj or {}).get("verbose"):
        traceback.print_exception(error, file=sys.stderr)
    _say(
        f"Error: {type(error).__name__}: {error}\nThis was not foreseen. `regroup-dask --verbose ...` shows where it "
        "happened; a run that had begun goes on with --resume."
    )


@click.group(
    "regroup",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Begin with: regroup-dask demo",
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
