"""Where the time of a run goes: per stage the wall clock, what the tasks took, what the workers computed and read.

Everything is asked of Dask and the operating system between stages; the tasks themselves are not touched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client

from regroup_dask.progress import Event, Listener, StageFinished, StageStarted, UnitsDone
from regroup_dask.tasks.crew import workers_of

logger = logging.getLogger(__name__)

OUTSIDE = "Between the stages"
BUSIEST = 10
COMPILERS = ("numba/", "llvmlite/")
COMPILING = "compiling kernels (kept for the next run)"
# Dask looks at what a worker's threads are in every ten milliseconds.
PROFILE_INTERVAL_SECONDS = 0.01


class Resources(NamedTuple):
    """What one process has used so far; `read_bytes` is None where the system does not say."""

    cpu_seconds: float
    read_bytes: int | None
    peak_memory_bytes: int


@dataclass
class StageProfile:
    """Where the time of one stage went.

    Attributes
    ----------
    stage
        Its name.
    wall_seconds
        By the clock; the threads of all workers together had `wall_seconds` x `threads`.
    threads
        Threads of all workers at its end.
    tasks, restored
        Tasks that were run, and units that an earlier run had finished.
    task_seconds
        Time inside the tasks' own code, all together.
    transfer_seconds
        Time that tasks waited for data from other workers, or for their code to be unpacked.
    cpu_seconds, driver_cpu_seconds
        Processor time of the workers, and of this process.
    read_bytes
        What the workers read, from disk or from the system's cache; None where the system does not say.
    """

    stage: str
    wall_seconds: float = 0.0
    threads: int = 0
    tasks: int = 0
    restored: int = 0
    task_seconds: float = 0.0
    transfer_seconds: float = 0.0
    cpu_seconds: float = 0.0
    driver_cpu_seconds: float = 0.0
    read_bytes: int | None = None

    @property
    def busy_share(self) -> float | None:
        """Share of the workers' time that was spent inside tasks; the rest is waiting and Dask's own work."""
        available = self.wall_seconds * self.threads
        return self.task_seconds / available if available > 0 and self.tasks else None


@dataclass
class RunProfile:
    """Where the time of a run went: its stages, and the functions that workers were found in most often.

    Attributes
    ----------
    before_seconds
        From the start of this process to the first stage on the cluster: importing, finding the inputs, starting
        the cluster.
    stages
        Each stage; the last entry is what lay between them.
    functions
        Function and where it is, with the seconds that worker threads were found in it.
    peak_memory_bytes
        Of the largest worker, and of this process.
    """

    before_seconds: float = 0.0
    stages: list[StageProfile] = field(default_factory=list)
    functions: list[tuple[str, float]] = field(default_factory=list)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for run.json."""
        return asdict(self)


def resources() -> Resources:
    """Ask the operating system what this process has used so far."""
    import resource

    import psutil

    process = psutil.Process()
    times = process.cpu_times()
    try:
        read = int(process.io_counters().read_chars)  # type: ignore[attr-defined]
    except (AttributeError, OSError, NotImplementedError, psutil.Error):
        read = None
    unit = 1 if sys.platform == "darwin" else 1024
    return Resources(times.user + times.system, read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class Profiler:
    """A listener that hands every event on, and looks at the cluster when a stage begins and ends.

    Parameters
    ----------
    client
        The client that the run works with.
    listener
        The next listener.
    """

    def __init__(self, client: Client, listener: Listener) -> None:
        self._client, self._listener = client, listener
        self.profile = RunProfile()
        self._began: dict[str, tuple[float, Resources, dict[str, Resources]]] = {}
        self._current: dict[str, StageProfile] = {}
        self._peak = 0
        self._client.get_task_stream(count=0)  # from the first call on the scheduler remembers its tasks
        self._start = time.time()
        self._driver_at_start = resources()
        self.profile.before_seconds = round(self._start - _process_start(), 3)

    def __call__(self, event: Event) -> None:
        """Hand an event on; measure at the borders of stages."""
        if isinstance(event, StageStarted):
            self._current[event.stage] = StageProfile(event.stage)
            self._began[event.stage] = (time.time(), resources(), self._of_workers())
        elif isinstance(event, UnitsDone):
            self._current[event.stage].restored += event.restored
        self._listener(event)
        if isinstance(event, StageFinished):
            self._finish(event)

    def finish(self) -> RunProfile:
        """Add what lay between the stages and what the workers were found doing; call before the client closes."""
        own = resources()
        between = StageProfile(OUTSIDE)
        between.wall_seconds = time.time() - self._start - sum(stage.wall_seconds for stage in self.profile.stages)
        in_stages = sum(stage.driver_cpu_seconds for stage in self.profile.stages)
        between.driver_cpu_seconds = own.cpu_seconds - self._driver_at_start.cpu_seconds - in_stages
        self.profile.stages.append(_rounded(between))
        self.profile.peak_memory_bytes = {"worker": self._peak, "driver": own.peak_memory_bytes}
        with _asked("what the workers were doing"):
            self.profile.functions = busiest_functions(self._client.profile(start=self._start))
        return self.profile

    def _finish(self, event: StageFinished) -> None:
        stage = self._current.pop(event.stage)
        began, own, workers = self._began.pop(event.stage)
        now = resources()
        stage.wall_seconds = event.seconds
        stage.driver_cpu_seconds = now.cpu_seconds - own.cpu_seconds
        with _asked("its workers"):
            stage.threads = sum(worker.threads for worker in workers_of(self._client))
        with _asked("its tasks"):
            for record in self._client.get_task_stream(start=began):
                _add_task(stage, record, began)
        read = []
        for address, after in self._of_workers().items():
            before = workers.get(address, Resources(0.0, 0, 0))  # a worker that came meanwhile
            stage.cpu_seconds += after.cpu_seconds - before.cpu_seconds
            self._peak = max(self._peak, after.peak_memory_bytes)
            if after.read_bytes is not None:
                read.append(after.read_bytes - (before.read_bytes or 0))
        stage.read_bytes = sum(read) if read else None
        self.profile.stages.append(_rounded(stage))

    def _of_workers(self) -> dict[str, Resources]:
        with _asked("what its workers use"):
            found = self._client.run(resources, on_error="ignore")
            # Threads of this process, in tests, count once.
            return {address: Resources(*values) for address, values in found.items() if values is not None}
        return {}


def _process_start() -> float:
    import psutil

    return float(psutil.Process(os.getpid()).create_time())


@contextlib.contextmanager
def _asked(what: str) -> Iterator[None]:
    """Do without an answer: a run does not fail because it is watched."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, TimeoutError) as error:
        logger.info("the cluster could not be asked for %s: %s", what, error)


def _add_task(stage: StageProfile, record: dict[str, Any], began: float) -> None:
    spans = record.get("startstops", ())
    if not spans or min(span["start"] for span in spans) < began - 1:
        return
    stage.tasks += 1
    for span in spans:
        seconds = max(float(span["stop"]) - float(span["start"]), 0.0)
        if span["action"] == "compute":
            stage.task_seconds += seconds
        else:
            stage.transfer_seconds += seconds


def _rounded(stage: StageProfile) -> StageProfile:
    for name, value in vars(stage).items():
        if isinstance(value, float):
            setattr(stage, name, round(max(value, 0.0), 3))
    return stage


def busiest_functions(tree: dict[str, Any], most: int = BUSIEST) -> list[tuple[str, float]]:
    """Functions that worker threads were found in most often, without what they called.

    Parameters
    ----------
    tree
        As `distributed.Client.profile` returns it: nodes with ``count``, ``description`` and ``children``.
    most
        How many to return.

    Returns
    -------
    list of (str, float)
        ``function (file:line)`` and seconds, the most first; all that compiles counts as one.
    """
    own: Counter[str] = Counter()
    open_nodes = [tree]
    while open_nodes:
        node = open_nodes.pop()
        children = list(node.get("children", {}).values())
        open_nodes.extend(children)
        alone = int(node.get("count", 0)) - sum(int(child.get("count", 0)) for child in children)
        description = node.get("description") or {}
        if alone > 0 and description.get("name"):
            place = _place(description)
            compiling = place.startswith(COMPILERS)
            own[COMPILING if compiling else f"{description['name']} ({place})"] += alone
    ranked = sorted(own.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
    return [(name, round(count * PROFILE_INTERVAL_SECONDS, 2)) for name, count in ranked]


def _place(description: dict[str, Any]) -> str:
    """File from its package on, and line: what is before is of one machine."""
    parts = Path(str(description.get("filename", ""))).parts
    if "site-packages" in parts:
        parts = parts[parts.index("site-packages") + 1 :]
    elif "regroup_dask" in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index("regroup_dask") :]
    else:
        parts = parts[-2:]
    return f"{'/'.join(parts)}:{description.get('line_number', '?')}"
