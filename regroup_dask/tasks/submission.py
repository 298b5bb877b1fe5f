"""Units on a cluster: a bounded window of submissions that follows the number of workers, and what to do with losses.

Neither the scheduler nor the driver ever holds more than a few units per worker thread. A unit that was lost with its
worker is submitted again, a few times; one whose function raised an error is not.
"""

from __future__ import annotations

import errno
import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError

from regroup_dask import __version__
from regroup_dask.errors import ClusterError, InputError, RegroupError, StoreError, UnitError
from regroup_dask.formats.full_disk import FULL_DISK
from regroup_dask.formats.storage import carried_options
from regroup_dask.tasks.checkpoint import Result, load_result
from regroup_dask.tasks.cluster_settings import SubmissionSettings
from regroup_dask.tasks.execute import about, run_unit

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
ENDING_SECONDS = 60.0
IDLE_LOOKS = 3
GATHER_SECONDS = 5.0
# What another try on another machine will not mend.
LASTING = (*FULL_DISK, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG)


class _NotYet(Exception):
    """A result was there and is not now: its worker died, and the scheduler has it computed again."""


class _Running(NamedTuple):
    unit: Any
    attempt: int
    future: Future


class _Crew:
    """The workers of a client, looked at once a second."""

    def __init__(self, client: Client, settings: SubmissionSettings, say: Callable[[str], None] | None) -> None:
        self._client, self._settings, self._say = client, settings, say
        self._looked = self._gone_since = -float("inf")
        self._threads = 0

    def threads(self) -> int:
        """Threads of all workers now; raises when there have been none for too long."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return self._threads
        self._looked = now
        try:
            self._threads = sum(self._client.nthreads().values())
        except (OSError, RuntimeError, TimeoutError, CancelledError):
            self._threads = 0
        if self._threads:
            if self._gone_since > 0:
                self._tell("Workers are back.")
            self._gone_since = -float("inf")
        elif self._gone_since < 0:
            self._gone_since = now
            self._tell("All workers are gone; waiting for others.")
        elif now - self._gone_since > self._settings.no_workers_seconds:
            raise ClusterError(
                f"The cluster has had no workers for {self._settings.no_workers_seconds:.0f} s: start some, then run "
                "the same command with --resume."
            )
        return self._threads

    def _tell(self, text: str) -> None:
        logger.warning(text)
        if self._say:
            self._say(text)


def run_on_cluster(
    function: Callable[[Any], Result],
    units: Iterable[Any],
    client: Client,
    checkpoint: Path | None,
    results: dict[str, Result],
    *,
    advance: Callable[..., None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Run units on the cluster of a client and put their results into `results`, by name."""
    settings = SubmissionSettings.from_config()
    waiting = deque((unit, 1) for unit in units)
    running: dict[Any, _Running] = {}
    settled: queue.SimpleQueue[Future] = queue.SimpleQueue()
    crew = _Crew(client, settings, say)

    def done(name: str, result: Result) -> None:
        results[name] = result
        if advance:
            advance(1)

    try:
        while waiting or running:
            window = max(1, crew.threads() * settings.units_per_thread)
            while waiting and len(running) < window:
                unit, attempt = waiting.popleft()
                future = _submit(client, function, unit, checkpoint)
                running[future.key] = _Running(unit, attempt, future)
                future.add_done_callback(settled.put)
            for future in _settled_futures(settled):
                entry = running.pop(future.key, None)
                if entry is None:
                    continue
                result, failure = _outcome(entry.future)
                if checkpoint is not None and isinstance(failure, (KilledWorker, CancelledError, _NotYet)):
                    # The worker may have kept the result before it died.
                    result = load_result(checkpoint, entry.unit.name)
                if result is not None:
                    done(entry.unit.name, result)
                elif isinstance(failure, _NotYet):
                    running[future.key] = entry
                    future.add_done_callback(settled.put)
                else:
                    assert failure is not None
                    waiting.appendleft((entry.unit, _next_attempt(entry, failure, client, settings)))
    except RegroupError:
        # The folder of a refused run is removed: nobody may write to it any more.
        _cancel(client, [entry.future for entry in running.values()])
        _let_end(client, tuple(running))
        raise
    finally:
        _cancel(client, [entry.future for entry in running.values()])


def _submit(client: Client, function: Callable[[Any], Result], unit: Any, checkpoint: Path | None) -> Future:
    key = f"{getattr(function, '__name__', 'unit').strip('_')}-{unit.name}-{uuid.uuid4().hex}"
    try:
        return client.submit(
            run_unit, function, unit, checkpoint, __version__, carried_options(), key=key, pure=False
        )
    except (OSError, RuntimeError, ValueError) as error:
        if client.status == "running":
            raise
        raise _gone(client) from error


def _settled_futures(settled: queue.SimpleQueue[Future]) -> list[Future]:
    try:
        futures = [settled.get(timeout=LOOK_SECONDS)]
    except queue.Empty:
        return []
    while not settled.empty():
        futures.append(settled.get())
    return futures


def _outcome(future: Future) -> tuple[Result | None, BaseException | None]:
    if future.status == "cancelled":
        return None, FutureCancelledError(future.key, "its worker or scheduler went away", None)
    try:
        return future.result(timeout=GATHER_SECONDS), None
    except TimeoutError as error:
        return None, error if future.status == "error" else _NotYet()
    except Exception as error:
        return None, error


def _next_attempt(entry: _Running, failure: BaseException, client: Client, settings: SubmissionSettings) -> int:
    """Decide whether a failed unit is worth another submission; raise if not."""
    name = about(entry.unit)
    of_store = isinstance(failure, StoreError) and not isinstance(failure, InputError)
    if isinstance(failure, (RegroupError, UnitError)) and not of_store:
        raise failure
    if isinstance(failure, CancelledError) and client.status not in ("running", "connecting"):
        raise _gone(client) from failure
    if isinstance(failure, ModuleNotFoundError):
        raise ClusterError(
            f"The workers lack the package {failure.name}: install regroup-dask with all it needs on the workers too."
        ) from failure
    lost = isinstance(failure, (KilledWorker, CancelledError))
    transient = of_store or (isinstance(failure, (OSError, TimeoutError)) and getattr(failure, "errno", None) not in LASTING)
    if not (lost or transient):
        raise failure
    if entry.attempt >= settings.submissions_per_unit:
        if not lost:
            raise failure
        raise ClusterError(
            f"Every worker that took up {name} died: either this input makes the program fail, or the workers have too "
            "little memory (then give them more and run the same command with --resume)."
        ) from failure
    logger.warning("%s was lost (%s); submitting it again", name, type(failure).__name__)
    return entry.attempt + 1


def _gone(client: Client) -> ClusterError:
    scheduler = client.scheduler
    address = "" if scheduler is None else f" {scheduler.addr}"
    return ClusterError(
        f"The scheduler{address} went away. What is finished is kept: when it runs again, give the same command with "
        "--resume."
    )


def _executing(keys: tuple[Any, ...], dask_worker: Any) -> bool:
    """Whether a worker is still inside one of these tasks; cancelling does not stop one that has begun."""
    return any(task.key in keys for task in list(dask_worker.state.executing))


def _let_end(client: Client, keys: tuple[Any, ...]) -> None:
    """Wait until no worker is inside any of these cancelled tasks, for a minute at most."""
    deadline = time.monotonic() + ENDING_SECONDS
    idle_looks = 0
    while client.status == "running" and time.monotonic() < deadline:
        try:
            busy = any(client.run(_executing, keys, on_error="ignore").values())
            # A task that was on its way to its worker when it was cancelled may begin after the first look.
            idle_looks = 0 if busy else idle_looks + 1
            if idle_looks >= IDLE_LOOKS:
                return
        except (OSError, TimeoutError, RuntimeError) as error:
            logger.info("workers could not be asked whether they are done: %s", error)
            return
        time.sleep(0.05)


def _cancel(client: Client, futures: list[Future]) -> None:
    if not futures or client.status != "running":
        return
    try:
        client.cancel(futures, force=True)
    except (OSError, TimeoutError, RuntimeError) as error:
        logger.info("units could not be cancelled: %s", error)
