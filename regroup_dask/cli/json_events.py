"""``--json``: what happens in a run, an event a line on standard output, for programs that start this one.

Every line is a JSON object with ``event`` and ``time`` (UTC, ISO 8601), and with these fields by kind of event:

===============  ====================================================================================================
found            ``lines``: what was found, a sentence each
plan             ``--dry-run`` only: ``maps``, ``box``, ``pairs``, ``tiles``, ``particles``, ``seconds``,
                 ``memory_bytes``, ``output_bytes``, ``files``, ``lines``
stage_started    ``stage``, ``total``: units of work ahead
progress         ``stage``, ``done``, ``total``, ``restored`` (finished by an earlier run), ``seconds_left`` or null;
                 a few times a second at most
stage_finished   ``stage``, ``seconds``
message          ``text``
warning          ``text``: worth knowing; also in run.json
result           ``output``, ``report``, ``n_superclasses``, ``superclasses`` (``superclass``, ``classes``,
                 ``reference_class``, ``n_particles``, ``volume``), ``n_particles_remaining``, ``warnings``, ``seconds``
profile          ``--profile`` only: ``before_seconds``, ``stages``, ``functions``, ``peak_memory_bytes``
registered       ``cryosparc`` only: ``project``, ``job``, ``outputs``
error            ``text``, ``exit_code``
stopped          ``text``, ``exit_code``, ``resume``: the command that goes on, or null
===============  ====================================================================================================

The last line is a plan, result, registered, error or stopped event (and a profile event after a result).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from regroup_dask.progress import Event, Message, RemainingTime, StageFinished, StageStarted, UnitsDone

if TYPE_CHECKING:
    from regroup_dask.pipeline import Regrouped

PROGRESS_EVERY_SECONDS = 0.25
NOTE = "Note: "


def emit(event: str, **fields: Any) -> None:
    """Write one event."""
    line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    click.echo(json.dumps(line, allow_nan=False, default=str))


class JsonLines:
    """A listener that writes the events of a run."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left: dict[str, RemainingTime] = {}
        self._restored: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if isinstance(event, StageStarted):
            self._left[event.stage] = RemainingTime(event.total, self._now())
            self._restored[event.stage], self._said[event.stage] = 0, -math.inf
            emit("stage_started", stage=event.stage, total=event.total)
        elif isinstance(event, UnitsDone):
            self._advance(event)
        elif isinstance(event, StageFinished):
            emit("stage_finished", stage=event.stage, seconds=round(event.seconds, 3))
        elif isinstance(event, Message):
            if event.is_note:
                emit("warning", text=event.text.removeprefix(NOTE))
            else:
                emit("message", text=event.text)

    def _advance(self, event: UnitsDone) -> None:
        now, left = self._now(), self._left[event.stage]
        left.add(event.count, event.restored, now)
        self._restored[event.stage] += event.restored
        if left.done < left.total and now - self._said[event.stage] < PROGRESS_EVERY_SECONDS:
            return
        self._said[event.stage] = now
        seconds = left.seconds(now)
        emit(
            "progress",
            stage=event.stage,
            done=left.done,
            total=left.total,
            restored=self._restored[event.stage],
            seconds_left=None if seconds is None else round(seconds, 1),
        )


def emit_result(result: Regrouped) -> None:
    """Write the event that ends a run."""
    classes = result.classes.to_pylist()
    superclasses = [
        {
            "superclass": row["superclass"],
            "classes": [entry["class_id"] for entry in classes if entry["superclass"] == row["superclass"]],
            "reference_class": row["reference_class"],
            "n_particles": row["n_particles"],
            "volume": str(result.output / row["volume"]),
        }
        for row in result.superclasses.to_pylist()
    ]
    report = result.output / "report.html"
    emit(
        "result",
        output=str(result.output),
        report=str(report) if report.exists() else None,
        n_superclasses=len(superclasses),
        superclasses=superclasses,
        n_particles_remaining=result.n_remaining,
        warnings=list(result.warnings),
        seconds=result.seconds,
    )
