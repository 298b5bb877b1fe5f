"""How a person or a program watches a command: bars, lines, nothing or JSON; the log; where the time went."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from regroup_dask.cli.teaching import titled

if TYPE_CHECKING:
    from rich.console import Console

    from regroup_dask.pipeline import Regrouped
    from regroup_dask.progress import Event, Listener
    from regroup_dask.tasks.profile import Profiler

WATCHING = "What you see"


@dataclass(frozen=True)
class Watching:
    """What was asked for.

    Attributes
    ----------
    quiet
        Errors and notes only.
    as_json
        An event a line on standard output, nothing else.
    profile
        Say at the end where the time went.
    also
        Another listener, told of every event too.
    """

    quiet: bool = False
    as_json: bool = False
    profile: bool = False
    also: Listener | None = None

    @property
    def talks(self) -> bool:
        """Whether tables and sentences are shown."""
        return not (self.quiet or self.as_json)

    @contextlib.contextmanager
    def listener(self, console: Console) -> Iterator[Listener]:
        """Yield who is told of the events of a run."""
        from regroup_dask.progress import listener_for

        if self.as_json:
            from regroup_dask.cli.json_events import JsonLines

            yield self._both(JsonLines())
        else:
            with listener_for(console, quiet=self.quiet) as listener:
                yield self._both(listener)

    def _both(self, listener: Listener) -> Listener:
        also = self.also
        if also is None:
            return listener

        def tell(event: Event) -> None:
            listener(event)
            also(event)

        return tell

    def profiler(self, client: Any, listener: Listener) -> Profiler | None:
        """Return a listener that also measures, if that was asked for."""
        if not self.profile:
            return None
        from regroup_dask.tasks.profile import Profiler

        return Profiler(client, listener)

    def show(self, result: Regrouped, profiler: Profiler | None = None) -> None:
        """Show how a run ended; where its time went is kept in run.json too."""
        from rich.console import Console

        if self.as_json:
            from regroup_dask.cli.json_events import emit, emit_result

            emit_result(result)
            if profiler is not None:
                emit("profile", **profiler.profile.as_dict())
            return
        if not self.quiet:
            from regroup_dask.cli.summary import show_result

            show_result(Console(), result)
        if profiler is not None:
            from regroup_dask.cli.summary import show_profile

            show_profile(Console(stderr=True), profiler.profile)


def watching_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of watching; the function gets them as `watching`."""

    @functools.wraps(function)
    def watched(*given: Any, quiet: bool, as_json: bool, profile: bool, verbose: bool, **options: Any) -> Any:
        watching = Watching(quiet, as_json, profile)
        known = click.get_current_context().find_root().ensure_object(dict)
        known["as_json"] = as_json
        if verbose:
            known["verbose"] = True
            show_log()
        return function(*given, watching=watching, **options)

    decorated: Callable[..., Any] = watched
    for option in reversed(
        (
            titled(WATCHING, "--quiet", is_flag=True, help="No progress and no tables; only notes and errors."),
            titled(WATCHING, "--json", "as_json", is_flag=True,
                   help="An event a line on standard output, in JSON, for programs; nothing else there."),
            titled(WATCHING, "-v", "--verbose", is_flag=True, help="Show the log, on standard error."),
            titled(WATCHING, "--profile", is_flag=True,
                   help="Say at the end where the time went; run.json keeps it."),
        )
    ):
        decorated = option(decorated)
    return decorated


class _StandardError(logging.Handler):
    """Writes to whatever standard error is now: a live display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except (OSError, ValueError):
            self.handleError(record)


class _Ours(logging.Filter):
    """Everything that this package logs, and the warnings of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return record.name.startswith("regroup_dask") or record.levelno >= logging.WARNING


def hush_log() -> None:
    """Show no log: warnings meant for a person come as notes."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


def show_log() -> None:
    """Show the log on standard error, with times, levels and names."""
    root = logging.getLogger()
    if any(isinstance(handler, _StandardError) for handler in root.handlers):
        return
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    handler.addFilter(_Ours())
    root.addHandler(handler)
    ours = logging.getLogger("regroup_dask")
    before = ours.level
    ours.setLevel(logging.DEBUG)
    context = click.get_current_context(silent=True)
    if context is not None:
        # A process that calls several commands, as tests do, does not go on logging after this one.
        context.find_root().call_on_close(lambda: root.removeHandler(handler))
        context.find_root().call_on_close(lambda: ours.setLevel(before))
