"""Run units of work, here or on a cluster, and keep the result of each so that a run can be taken up again.

A unit is a small picklable record with a `name`; its function returns a dictionary of small arrays. Bulky results go
to stores on disk, written by the task itself. With a client, units are submitted within a bounded window, so that
neither the scheduler nor the driver ever holds more than a few of them.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from distributed import Client, KilledWorker, as_completed
from distributed.client import FutureCancelledError
from threadpoolctl import threadpool_limits

from regroup_dask.errors import ClusterError, RegroupError

logger = logging.getLogger(__name__)

Result = dict[str, np.ndarray]
SUBMISSIONS_PER_UNIT = 4
UNITS_PER_THREAD = 3


class Unit(Protocol):
    """A piece of work: picklable, and named uniquely within its stage."""

    @property
    def name(self) -> str:
        """Name of the unit, used for its checkpoint file."""


def run_units(
    function: Callable[[Any], Result],
    units: Sequence[Any],
    *,
    client: Client | None,
    checkpoint: Path | None = None,
    advance: Callable[..., None] | None = None,
) -> list[Result]:
    """Run a function over units and return the results in the order of the units.

    Parameters
    ----------
    function
        Importable function of one unit.
    units
        The work; names must differ.
    client
        A Dask client, or None to work in this process.
    checkpoint
        Folder where each result is kept as ``NAME.npz``; units found there are not run again.
    advance
        Called as ``advance(count, restored=...)`` when units are done.

    Raises
    ------
    RegroupError
        As raised by the function: a wrong input is not tried again.
    ClusterError
        When a unit was lost with its worker too often.
    """
    results: dict[str, Result] = {}
    if checkpoint is not None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        for unit in units:
            kept = _load(checkpoint / f"{unit.name}.npz")
            if kept is not None:
                results[unit.name] = kept
        if results:
            logger.info("%s: %d of %d units restored", checkpoint.name, len(results), len(units))
            if advance:
                advance(len(results), restored=len(results))
    missing = [unit for unit in units if unit.name not in results]
    if client is None:
        with threadpool_limits(1):
            for unit in missing:
                results[unit.name] = _run_one(function, unit, checkpoint)
                if advance:
                    advance(1)
    else:
        _run_on_cluster(function, missing, client, checkpoint, advance, results)
    return [results[unit.name] for unit in units]


def _run_one(function: Callable[[Any], Result], unit: Any, checkpoint: Path | None) -> Result:
    result = function(unit)
    if checkpoint is not None:
        _save(checkpoint / f"{unit.name}.npz", result)
    return result


def _run_on_worker(function: Callable[[Any], Result], unit: Any, checkpoint: Path | None) -> Result:
    # A worker without a nanny has nobody who set its BLAS threads to one.
    with threadpool_limits(1):
        return _run_one(function, unit, checkpoint)


def _run_on_cluster(
    function: Callable[[Any], Result],
    units: Iterable[Any],
    client: Client,
    checkpoint: Path | None,
    advance: Callable[..., None] | None,
    results: dict[str, Result],
) -> None:
    threads = max(1, sum(client.nthreads().values()))
    waiting = iter(units)
    running: dict[str, tuple[Any, int]] = {}

    def submit(unit: Any, attempt: int) -> Any:
        key = f"{getattr(function, '__name__', 'unit').strip('_')}-{unit.name}-{uuid.uuid4().hex}"
        running[key] = (unit, attempt)
        return client.submit(_run_on_worker, function, unit, checkpoint, key=key, pure=False)

    first = [submit(unit, 1) for unit in islice(waiting, threads * UNITS_PER_THREAD)]
    if not first:
        return
    completed = as_completed(first, with_results=True, raise_errors=False)
    try:
        for future, outcome in completed:
            unit, attempt = running.pop(future.key)
            if future.status == "finished":
                results[unit.name] = outcome
                if advance:
                    advance(1)
                following = next(waiting, None)
                if following is not None:
                    completed.add(submit(following, 1))
            else:
                completed.add(submit(*_next_attempt(unit, attempt, _failure(future))))
    finally:
        for future in list(completed.futures):
            future.cancel()


def _failure(future: Any) -> BaseException:
    if future.status == "cancelled":
        return FutureCancelledError(future.key, "its worker or scheduler went away", None)
    return future.exception()


def _next_attempt(unit: Any, attempt: int, failure: BaseException) -> tuple[Any, int]:
    """Decide whether a failed unit is worth another submission; raise if not."""
    if isinstance(failure, RegroupError):
        raise failure
    if not isinstance(failure, (KilledWorker, FutureCancelledError)):
        raise failure
    if attempt >= SUBMISSIONS_PER_UNIT:
        raise ClusterError(
            f"The unit {unit.name} was lost {attempt} times because its worker died (often for want of memory): "
            "give the workers more memory, then run the same command with --resume."
        ) from failure
    logger.warning("unit %s was lost with its worker; submitting it again", unit.name)
    return unit, attempt + 1


def _save(path: Path, result: Result) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(partial, "wb") as stream:
        np.savez(stream, **result)  # type: ignore[arg-type]
    os.replace(partial, path)


def _load(path: Path) -> Result | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, KeyError, EOFError):
        logger.warning("the checkpoint %s cannot be read; its unit is run again", path)
        return None
