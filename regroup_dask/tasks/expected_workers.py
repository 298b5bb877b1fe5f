"""Which workers a run would get, without starting any."""

from __future__ import annotations

import dask
from distributed import system

from regroup_dask.tasks.cluster_file import load_cluster_class
from regroup_dask.tasks.connect import Where, connected, described_cluster
from regroup_dask.tasks.crew import WorkerResources, workers_of


def expected_workers(where: Where) -> tuple[tuple[WorkerResources, ...], str]:
    """Return the workers that a run would get as far as they are known, and a sentence about where it would run.

    A scheduler that runs already is asked; a cluster that would be started is not, its description is only checked.

    Raises
    ------
    InputError, ClusterError
        As the run itself would.
    """
    if where.scheduler or where.scheduler_file:
        with connected(where) as client:
            crew = workers_of(client)
        return crew, f"It would run on the cluster of {where.scheduler or where.scheduler_file}."
    description = described_cluster(where)
    if description is not None:
        load_cluster_class(description)
        return (), f"It would start {description.name} as {description.source} says; its workers are not known before."
    count = where.workers or dask.system.CPU_COUNT
    # As Dask divides the memory of a machine among the workers of a cluster on it.
    crew = tuple(WorkerResources(f"number {number}", 1, int(system.MEMORY_LIMIT / count)) for number in range(count))
    return crew, f"It would run on this machine, {count} worker processes."
