"""Events of a run and the two listeners that show them: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageStarted:
    """A stage begins; `total` units of work are ahead of it."""

    stage: str
    total: int


@dataclass(frozen=True)
class UnitsDone:
    """Some units of a stage are done; `restored` of them came from an earlier, interrupted run."""

    stage: str
    count: int = 1
    restored: int = 0


@dataclass(frozen=True)
class StageFinished:
    """A stage is over, after `seconds`."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Message:
    """A sentence for the person who watches; a note is worth saying even to one who wants quiet."""

    text: str
    is_note: bool = False


Event = StageStarted | UnitsDone | StageFinished | Message
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen to nothing."""


@dataclass
class StageClock:
    """Sends the events of stages to a listener and keeps how long each took."""

    listener: Listener = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[..., None]]:
        """Time one stage; yields a function that reports finished units."""
        began = time.perf_counter()
        self.listener(StageStarted(name, total))

        def advance(count: int = 1, *, restored: int = 0) -> None:
            self.listener(UnitsDone(name, count, restored))

        yield advance
        elapsed = time.perf_counter() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + elapsed, 3)
        self.listener(StageFinished(name, elapsed))

    def say(self, text: str, *, is_note: bool = False) -> None:
        """Pass on a sentence."""
        self.listener(Message(text, is_note))


class PlainLines:
    """One line when a stage ends (and at every tenth of a long one): for logs and batch jobs."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write the line that an event asks for."""
        if isinstance(event, StageStarted):
            self._total[event.stage], self._done[event.stage] = event.total, 0
            self._said[event.stage] = time.monotonic()
        elif isinstance(event, UnitsDone):
            self._done[event.stage] += event.count
            if event.restored:
                self._write(
                    f"{event.stage}: {event.restored} of {self._total[event.stage]} were finished before; not run again"
                )
            if time.monotonic() - self._said[event.stage] > 10:
                self._said[event.stage] = time.monotonic()
                self._write(f"{event.stage}: {self._done[event.stage]} of {self._total[event.stage]}")
        elif isinstance(event, StageFinished):
            self._write(f"{event.stage}: done in {event.seconds:.1f} s")
        else:
            self._write(event.text)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class RichBars:
    """A bar for every stage with the remaining time; use as a context manager."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> RichBars:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move the bar that an event speaks of."""
        if isinstance(event, StageStarted):
            self._tasks[event.stage] = self._progress.add_task(event.stage, total=max(event.total, 1))
        elif isinstance(event, UnitsDone):
            self._progress.advance(self._tasks[event.stage], event.count)
        elif isinstance(event, StageFinished):
            task = self._tasks[event.stage]
            total = next(entry.total for entry in self._progress.tasks if entry.id == task)
            self._progress.update(task, completed=total)
        else:
            self._progress.console.print(event.text, highlight=False, markup=False)


@contextlib.contextmanager
def listener_for(console: Any, *, quiet: bool = False) -> Iterator[Listener]:
    """Choose bars for a terminal, plain lines for anything else, nothing but notes when quiet."""
    if quiet:
        lines = PlainLines(console.file)
        yield lambda event: lines(event) if isinstance(event, Message) and event.is_note else None
    elif console.is_terminal:
        with RichBars(console) as bars:
            yield bars
    else:
        yield PlainLines(console.file)
