"""Find or start the cluster that a run works on."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import distributed
import yaml
from distributed import Client, LocalCluster

from regroup_dask.errors import ClusterError, InputError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 30
WORKER_SECONDS = 300
JOBQUEUE_CLASSES = ("SLURMCluster", "PBSCluster", "LSFCluster", "SGECluster", "HTCondorCluster", "OARCluster")


@dataclass(frozen=True)
class Where:
    """Where a run works: at most one of scheduler, scheduler file and cluster file; nothing is a local cluster."""

    scheduler: str | None = None
    scheduler_file: str | None = None
    cluster_file: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        named = [value for value in (self.scheduler, self.scheduler_file, self.cluster_file) if value]
        if len(named) > 1:
            raise InputError("Give only one of --scheduler, --scheduler-file and --cluster.")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers is {self.workers}: at least 1 is needed.")


def current_client() -> Client | None:
    """Return the client that this process already uses, if any."""
    try:
        return distributed.get_client()
    except ValueError:
        return None


@contextlib.contextmanager
def connected(where: Where) -> Iterator[Client]:
    """Yield a client of the cluster that was asked for; what was started here is stopped again."""
    # Set after distributed has set up its own logging, which lets every change of state through.
    for name in ("distributed", "distributed.scheduler", "distributed.core", "distributed.nanny"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.scheduler.allowed-failures": 10,
                    "distributed.scheduler.work-stealing": True,
                    "distributed.comm.timeouts.connect": CONNECT_SECONDS,
                    # Kernels use one thread each, so the spilling of Arrow and NumPy temporaries is left to the OS.
                    "distributed.worker.memory.pause": 0.9,
                    "distributed.worker.memory.terminate": 0.98,
                }
            )
        )
        client = stack.enter_context(_client(where, stack))
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except (TimeoutError, dask.utils.asyncio.TimeoutError) as error:  # type: ignore[attr-defined]
            raise ClusterError(
                f"The scheduler {client.scheduler.address} has no workers after {WORKER_SECONDS} s: start some, "
                "then run again."
            ) from error
        yield client


def _client(where: Where, stack: contextlib.ExitStack) -> Client:
    if where.scheduler or where.scheduler_file:
        return _existing(where)
    if where.cluster_file:
        cluster = stack.enter_context(_cluster_from_file(Path(where.cluster_file)))
    else:
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=where.workers or dask.system.CPU_COUNT,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            )
        )
    return Client(cluster)


def _existing(where: Where) -> Client:
    name = where.scheduler or where.scheduler_file
    if where.scheduler_file and not Path(where.scheduler_file).is_file():
        raise InputError(f"The scheduler file {where.scheduler_file} does not exist.")
    try:
        return Client(
            address=where.scheduler, scheduler_file=where.scheduler_file, timeout=CONNECT_SECONDS
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {name} within {CONNECT_SECONDS} s: check the address and that it runs."
        ) from error


@contextlib.contextmanager
def _cluster_from_file(path: Path) -> Iterator[Any]:
    """Start the cluster a yaml file names: ``cluster``, ``options``, and ``scale`` or ``adapt``."""
    try:
        description = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"The cluster file {path} cannot be read: {error}.") from error
    if not isinstance(description, dict) or "cluster" not in description:
        raise InputError(f"The cluster file {path} names no cluster: it needs a line such as 'cluster: SLURMCluster'.")
    name = str(description["cluster"])
    module = "dask_jobqueue" if name in JOBQUEUE_CLASSES else "distributed" if name == "LocalCluster" else None
    if module is None:
        raise InputError(
            f"The cluster file {path} names {name}: it is one of LocalCluster, {', '.join(JOBQUEUE_CLASSES)}."
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"{name} needs dask-jobqueue: pip install 'regroup-dask[jobqueue]'.") from error
    cluster = kind(**(description.get("options") or {}))
    try:
        if "adapt" in description:
            cluster.adapt(**description["adapt"])
        elif "scale" in description:
            cluster.scale(**description["scale"])
        yield cluster
    finally:
        cluster.close()
