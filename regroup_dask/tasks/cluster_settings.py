"""Settings under ``regroup:`` in Dask's configuration: yaml files, ``DASK_REGROUP__...`` variables, `dask.config.set`.

Nothing is written to anybody's configuration folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
from dask.utils import parse_bytes, parse_timedelta

from regroup_dask.errors import InputError

DEFAULTS: dict[str, Any] = {
    # A cluster as in a --cluster file: its path, or what it would hold. None is a local cluster.
    "cluster": None,
    # How long a scheduler may take to answer, and the first worker to come.
    "scheduler-timeout": "30 s",
    "workers-timeout": "5 minutes",
    # How long a run waits when all its workers are gone.
    "no-workers-timeout": "1 hour",
    # Units of work that are submitted ahead, for each thread of a worker.
    "units-per-thread": 3,
    # How often a unit is submitted when its worker was lost each time. The scheduler itself tries each submission
    # `distributed.scheduler.allowed-failures` times more. Raise it on nodes that are taken away often.
    "submissions-per-unit": 2,
    # Prepared maps that a worker process keeps in memory: a hundred of box 64, so that as many are read only once.
    "map-cache": "512 MiB",
    # Options for URLs, as fsspec's file systems take them; best in a file that only you can read.
    "storage-options": {},
    # TLS of clusters started through a queueing system.
    "security": True,
}

dask.config.update_defaults({"regroup": DEFAULTS})


def setting(name: str) -> Any:
    """Value of one setting."""
    return dask.config.get(f"regroup.{name}", DEFAULTS[name])


def seconds(name: str) -> float:
    """Value of a setting that is a time."""
    value = setting(name)
    try:
        return float(parse_timedelta(value, default="s"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"regroup.{name} in Dask's configuration is {value!r}: give a time such as '30 s'.") from error


def n_bytes(name: str) -> int:
    """Value of a setting that is an amount of memory."""
    value = setting(name)
    try:
        return int(parse_bytes(value))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"regroup.{name} in Dask's configuration is {value!r}: give an amount such as '400 MiB'."
        ) from error


def count(name: str) -> int:
    """Value of a setting that is a whole number, 1 or more."""
    value = setting(name)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InputError(f"regroup.{name} in Dask's configuration is {value!r}: give a whole number, 1 or more.")
    return number


@dataclass(frozen=True)
class SubmissionSettings:
    """How units are submitted, and how patiently."""

    units_per_thread: int
    submissions_per_unit: int
    no_workers_seconds: float

    @classmethod
    def from_config(cls) -> SubmissionSettings:
        """Read Dask's configuration."""
        return cls(
            count("units-per-thread"),
            count("submissions-per-unit"),
            seconds("no-workers-timeout"),
        )
