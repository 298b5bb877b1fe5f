"""``regroup-dask completion``: the script with which a shell completes commands, options and values."""

from __future__ import annotations

import click

from regroup_dask.cli.teaching import TeachingCommand

PROGRAM = "regroup-dask"
VARIABLE = "_REGROUP_DASK_COMPLETE"


@click.command(
    "completion",
    cls=TeachingCommand,
    short_help="Let the shell complete commands and options.",
    examples=(
        ('eval "$(regroup-dask completion bash)"', "bash: this line in ~/.bashrc (version 4.4 or newer)"),
        ('eval "$(regroup-dask completion zsh)"', "zsh: this line in ~/.zshrc"),
        ("regroup-dask completion fish > ~/.config/fish/completions/regroup-dask.fish", "fish: once"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete regroup-dask when you press the tab key.

    Nothing is installed or changed: a line in the shell's own settings reads the script when a shell starts.
    """
    from click.shell_completion import get_completion_class

    from regroup_dask.cli.program import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, PROGRAM, VARIABLE).source())
