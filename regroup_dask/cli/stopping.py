"""Ctrl-C and the signals by which batch systems end a job: stop cleanly, and say how to go on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

# A batch system's end of the time that a job was given, and a terminal that was closed, are asked for like Ctrl-C.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """The person or the system who runs the program asked it to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.text = "Stopped."
        self.resume: str | None = None

    @property
    def exit_code(self) -> int:
        """As a shell counts it: 128 and the number of the signal."""
        return 128 + int(self.args[0])


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first signal into `Stopped`; a second one ends the process at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for name in before:
            signal.signal(name, lambda second, _: os._exit(128 + second))
        with contextlib.suppress(OSError, ValueError):
            click.echo("\nStopping: the workers are ended; once more ends everything at once.", err=True)
        raise Stopped(number)

    before: dict[Any, Any] = {}
    try:
        for name in SIGNALS:
            # nohup has the end of the terminal ignored, and so it stays.
            if signal.getsignal(name) != signal.SIG_IGN:
                before[name] = signal.signal(name, stop)
    except ValueError:
        # Not the main thread, which alone gets signals: a program that has its own ways to stop runs this one.
        before.clear()
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def says_how_to_resume(output: Path, arguments: Sequence[str] | None = None) -> Iterator[None]:
    """Let a run that is stopped say what is kept of it and which command goes on.

    Parameters
    ----------
    output
        Its output folder.
    arguments
        The command, without the name of the program; by default the one that was typed.
    """
    from regroup_dask.formats import storage
    from regroup_dask.formats.run_folder import RUN_FILE, partial_folder
    from regroup_dask.formats.store_run_folder import COMPLETE, kept_record

    existed = storage.exists(output)
    try:
        yield
    except Stopped as error:
        remote = storage.is_remote(output)
        kept = output if remote else partial_folder(output)
        if storage.is_file(kept / RUN_FILE) and not (remote and (kept_record(output) or {}).get("status") == COMPLETE):
            error.resume = resuming_command(_typed() if arguments is None else arguments)
            error.text = f"Stopped. What is finished is kept in {kept}; this goes on from there:\n  {error.resume}"
        elif storage.is_file(output / RUN_FILE) and not existed:
            error.text = f"Stopped, but the run was complete: look at {output}."
        else:
            error.text = "Stopped before anything was computed: nothing was written."
        raise


def _typed() -> list[str]:
    from regroup_dask.pipeline import command_line

    return shlex.split(command_line())[1:]


def resuming_command(arguments: Sequence[str]) -> str:
    """Return the command that takes up an interrupted run, as it is typed."""
    kept = [word for word in arguments if word not in ("--resume", "--overwrite")]
    return shlex.join(["regroup-dask", *kept, "--resume"])
