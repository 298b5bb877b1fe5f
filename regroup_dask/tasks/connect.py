"""Find or start the cluster that a run works on.

Nothing asked for is a local cluster on all cores; else a scheduler by address or file, or a cluster by a yaml file
(see `cluster_file`). What was started here is stopped again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import distributed
from distributed import Client, LocalCluster

from regroup_dask.errors import ClusterError, InputError, RegroupWarning
from regroup_dask.tasks import cluster_settings
from regroup_dask.tasks.cluster_file import ClusterDescription, read_cluster_file, slurm_description, started
from regroup_dask.tasks.crew import workers_of
from regroup_dask.tasks.queue_jobs import MOST_FAILURES, KeptJobs
from regroup_dask.tasks.versions import check_versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Where a run works: at most one of scheduler, scheduler file, cluster file and Slurm; nothing is local."""

    scheduler: str | None = None
    scheduler_file: str | None = None
    cluster_file: str | None = None
    workers: int | None = None
    slurm: bool = False

    def __post_init__(self) -> None:
        named = [value for value in (self.scheduler, self.scheduler_file, self.cluster_file, self.slurm) if value]
        if len(named) > 1:
            raise InputError("Give only one of --scheduler, --scheduler-file, --cluster and --slurm.")
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
    """Yield a client of the cluster that was asked for, its workers looked at.

    Raises
    ------
    InputError
        What was asked for makes no sense, or nothing answers there.
    ClusterError
        No worker came in time, or the workers are not like this process.
    """
    # Set after distributed has set up its own logging, which lets every change of state through.
    for name in ("distributed", "distributed.scheduler", "distributed.core", "distributed.nanny"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            dask.config.set(
                {
                    "distributed.comm.timeouts.connect": cluster_settings.seconds("scheduler-timeout"),
                    # Kernels hold plain arrays, which Dask cannot spill: it may only wait, and end what is too large.
                    "distributed.worker.memory.target": False,
                    "distributed.worker.memory.spill": False,
                    "distributed.worker.memory.pause": 0.9,
                    "distributed.worker.memory.terminate": 0.98,
                    # Workers started here look at their own stack a hundred times a second, which takes 2 percent of them.
                    "distributed.worker.profile.interval": "100ms",
                }
            )
        )
        client = _client(where, stack)
        _wait_for_workers(client)
        _warn_of_open_scheduler(client)
        check_versions(client)
        logger.info("scheduler %s, dashboard %s", _address(client), client.dashboard_link)
        for worker in workers_of(client):
            logger.debug("worker %s: %d threads, %d bytes of memory", *worker)
        yield client


def _client(where: Where, stack: contextlib.ExitStack) -> Client:
    if where.scheduler or where.scheduler_file:
        return stack.enter_context(_existing(where))
    description = described_cluster(where)
    if description is None:
        with _interrupts_kept_from_workers():
            cluster = LocalCluster(
                n_workers=where.workers or dask.system.CPU_COUNT,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                # What a task fails with is said by this process, in a sentence.
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
        return stack.enter_context(Client(cluster))
    return stack.enter_context(started(description, n_workers=where.workers))


@contextlib.contextmanager
def _interrupts_kept_from_workers() -> Iterator[None]:
    """Have Ctrl-C, which a terminal sends to every process of a command, reach this one only: it ends the workers.

    The threads that start here, and the processes that these will ever start, inherit that the signal is blocked;
    for this thread it is unblocked again, and comes then if it was sent meanwhile.
    """
    # It unblocks the signal in the thread that starts it, so it is started before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def described_cluster(where: Where) -> ClusterDescription | None:
    """Return the cluster that is to be started, by its description; None for one on this machine."""
    if where.slurm:
        return slurm_description(where.workers)
    if where.cluster_file:
        return read_cluster_file(Path(where.cluster_file))
    configured = cluster_settings.setting("cluster")
    if configured:
        return read_cluster_file(configured if isinstance(configured, dict) else Path(configured))
    return None


def _existing(where: Where) -> Client:
    name = where.scheduler or where.scheduler_file
    if where.scheduler_file and not Path(where.scheduler_file).is_file():
        raise InputError(
            f"The scheduler file {where.scheduler_file} does not exist: start the scheduler with --scheduler-file first."
        )
    timeout = cluster_settings.seconds("scheduler-timeout")
    try:
        return Client(address=where.scheduler, scheduler_file=where.scheduler_file, timeout=timeout)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, (TypeError, KeyError)) or "TLS" in str(error) or "security" in str(error).lower():
            raise InputError(
                f"The scheduler {name} cannot be joined: {error}. For tls:// set distributed.comm.tls in Dask's "
                "configuration (ca-file, client.cert, client.key)."
            ) from error
        raise InputError(
            f"No Dask scheduler answers at {name} within {timeout:.0f} s: check the address and that it runs."
        ) from error


def _wait_for_workers(client: Client) -> None:
    timeout = cluster_settings.seconds("workers-timeout")
    jobs = getattr(client.cluster, "_adaptive", None)
    jobs = jobs if isinstance(jobs, KeptJobs) else None
    deadline, told = time.monotonic() + timeout, False
    while True:
        try:
            return client.wait_for_workers(1, timeout=min(1.0, timeout))
        except TimeoutError as error:
            if jobs is not None and jobs.failures >= MOST_FAILURES:
                raise ClusterError(
                    f"No worker comes, {jobs.failures} times in a row: {jobs.trouble}. Correct the cluster file, or look "
                    "into the logs of the jobs (log_directory in its options), then run again."
                ) from error
            if jobs is not None and jobs.waiting:
                # A full queue is no error, however long it takes.
                deadline = time.monotonic() + timeout
                if not told:
                    warnings.warn(f"{jobs.waiting} job(s) wait in the queue; so does this run.", RegroupWarning, stacklevel=2)
                    told = True
            if time.monotonic() < deadline:
                continue
            raise ClusterError(
                f"The scheduler {_address(client)} has no workers after {timeout:.0f} s: start some, or look into "
                "the queue and the logs of the jobs, then run again (regroup.workers-timeout in Dask's configuration is "
                "how long is waited)."
            ) from error


def _address(client: Client) -> str:
    return "" if client.scheduler is None else str(client.scheduler.addr)


def _warn_of_open_scheduler(client: Client) -> None:
    """Anybody who reaches a plain-text scheduler can run programs as its user."""
    address = _address(client)
    if not address.startswith("tcp://") or is_private(address):
        return
    warnings.warn(
        f"The scheduler {address} speaks plain text on a public network address: anybody who reaches it can run "
        "programs as you; start it with TLS (tls://) or on a private interface.",
        RegroupWarning,
        stacklevel=2,
    )


def is_private(address: str) -> bool:
    """Whether a network address is of this machine or a private network, as far as the address tells."""
    host = address.split("://", 1)[-1].rsplit(":", 1)[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_private or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # a name: what it stands for is the site's affair
