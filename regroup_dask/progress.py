"""Events of a run, how long a stage will go on, and the listeners that show it: bars on a terminal, lines elsewhere."""

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


class RemainingTime:
    """How long the rest of a stage will take, judged by what was computed in it lately.

    What an earlier run had finished says nothing of the speed, and neither do the first units, which wait for workers
    and compile: the rate is that of the latter half of the units computed so far, up to now, so that it falls while
    nothing comes.

    Parameters
    ----------
    total
        Units of the stage.
    now
        Time of its beginning, in seconds of a clock that goes on steadily.
    """

    KEPT = 256

    def __init__(self, total: int, now: float) -> None:
        self.total = total
        self.done = 0
        self._restored = 0
        self._marks = [(now, 0)]

    def add(self, count: int, restored: int, now: float) -> None:
        """Note that units are done."""
        self.done += count
        self._restored += restored
        computed = self.done - self._restored
        if computed > self._marks[-1][1]:
            self._marks.append((now, computed))
        if len(self._marks) > self.KEPT:
            self._marks = self._marks[::2]

    def seconds(self, now: float) -> float | None:
        """Seconds left, or None while too little is done to tell."""
        left = self.total - self.done
        computed = self.done - self._restored
        if left <= 0:
            return 0.0
        if computed < 2:
            return None
        since, then = next(mark for mark in reversed(self._marks) if mark[1] <= computed / 2)
        return left * max(now - since, 0.0) / (computed - then)


def words_of_time(seconds: float) -> str:
    """Say a length of time as exactly as an estimate deserves: 7 s, 35 s, 12 min, 3 h 20 min."""
    if seconds < 9.5:
        return f"{max(round(seconds), 1)} s"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5)} s"
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    return f"{hours} h" + (f" {rest} min" if rest else "")


class PlainLines:
    """One line when a stage ends, and every ten seconds of a long one: for logs and batch jobs."""

    def __init__(self, stream: Any = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._now = now
        self._left: dict[str, RemainingTime] = {}
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write the line that an event asks for."""
        if isinstance(event, StageStarted):
            self._left[event.stage] = RemainingTime(event.total, self._now())
            self._said[event.stage] = self._now()
        elif isinstance(event, UnitsDone):
            self._advance(event)
        elif isinstance(event, StageFinished):
            self._write(f"{event.stage}: done in {event.seconds:.1f} s")
        else:
            self._write(event.text)

    def _advance(self, event: UnitsDone) -> None:
        now, left = self._now(), self._left[event.stage]
        left.add(event.count, event.restored, now)
        if event.restored:
            self._write(f"{event.stage}: {event.restored} of {left.total} were finished before; not run again")
        if now - self._said[event.stage] > 10:
            self._said[event.stage] = now
            seconds = left.seconds(now)
            ahead = "" if not seconds else f", about {words_of_time(seconds)} left"
            self._write(f"{event.stage}: {left.done} of {left.total}{ahead}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


NARROW_COLUMNS = 72


class RichBars:
    """A bar for every stage with the remaining time; use as a context manager. A narrow terminal has no room for bars."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
        from rich.table import Column

        def remaining(task: Task) -> str:
            seconds = None if task.finished else self._left[task.description].seconds(time.monotonic())
            about = "about " if wide else ""
            return "" if seconds is None else f"{about}{words_of_time(seconds)} left"

        class Remaining(TextColumn):
            def render(self, task: Task) -> Any:
                from rich.text import Text

                return Text(remaining(task))

        wide = console.width >= NARROW_COLUMNS
        room = 22 if wide else max(8, min(22, console.width - 30))
        name = TextColumn("{task.description}", table_column=Column(width=room, no_wrap=True))
        bar = [BarColumn(bar_width=min(32, console.width - 58))] if wide else []
        elapsed = [TimeElapsedColumn()] if wide else []
        self._progress = Progress(name, *bar, MofNCompleteColumn(), *elapsed, Remaining(""), console=console)
        self._tasks: dict[str, Any] = {}
        self._left: dict[str, RemainingTime] = {}

    def __enter__(self) -> RichBars:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Move the bar that an event speaks of."""
        if isinstance(event, StageStarted):
            self._left[event.stage] = RemainingTime(event.total, time.monotonic())
            self._tasks[event.stage] = self._progress.add_task(event.stage, total=max(event.total, 1))
        elif isinstance(event, UnitsDone):
            self._left[event.stage].add(event.count, event.restored, time.monotonic())
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
