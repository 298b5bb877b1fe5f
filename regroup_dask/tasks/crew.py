"""The workers of a cluster as far as a plan needs to know them."""

from __future__ import annotations

from typing import NamedTuple

from distributed import Client


class WorkerResources(NamedTuple):
    """One worker: its address, threads, and memory in bytes (0: no limit)."""

    address: str
    threads: int
    memory_limit: int


def workers_of(client: Client | None) -> tuple[WorkerResources, ...]:
    """Every worker of a client's cluster; none when the work is done in this process."""
    if client is None:
        return ()
    known = client.scheduler_info(n_workers=-1)["workers"]
    return tuple(
        WorkerResources(address, int(worker["nthreads"]), int(worker["memory_limit"] or 0))
        for address, worker in known.items()
    )
