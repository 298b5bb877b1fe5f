"""Peak memory of a worker against what the plan of the run says beforehand.

    python -m tests.benchmarks.memory --maps 3 --box 512 --folder /tmp

Makes maps of soft balls (4 box^3 bytes each, removed after), regroups them with one worker process of one thread, and
prints the worker's highest resident memory (VmHWM of Linux) beside the projection, and that of this process, the driver.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from distributed import Client, LocalCluster

import regroup_dask as rd
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.volumes import find_volumes
from regroup_dask.settings import Settings
from regroup_dask.steps.plan import plan_run
from tests.tasks.small_job import make_job


class Measured(NamedTuple):
    """Bytes, and the seconds that the run took."""

    projected: int
    worker: int
    driver: int
    seconds: float


def highest_memory() -> tuple[int, int]:
    """Process id, and highest resident memory since it began, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return os.getpid(), next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(folder: Path, *, n_maps: int, box: int, n_particles: int = 20_000, align: bool = True) -> Measured:
    """Regroup maps of one size with one worker, and see what it took."""
    job = make_job(folder / "job", n_maps=n_maps, box=box, n_particles=n_particles)
    source = open_particles(job.particles)
    settings = Settings(n_superclasses=2, align=align, maximum_shift_angstrom=8.0)
    plan = plan_run(n_maps, find_volumes([str(path) for path in job.volumes]), source, settings)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        ((before, _),) = client.run(highest_memory).values()
        began = time.perf_counter()
        options = {"n_superclasses": 2, "align": align, "maximum_shift_angstrom": 8.0}
        rd.regroup(job.volumes, source, output=folder / "OUT", client=client, **options)
        seconds = time.perf_counter() - began
        ((after, peak),) = client.run(highest_memory).values()
    if before != after:
        raise RuntimeError("the worker was started again during the run")
    return Measured(plan.worker_bytes(1), peak, highest_memory()[1], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=4)
    parser.add_argument("--box", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--particles", type=int, default=20_000)
    parser.add_argument("--no-align", action="store_true")
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    print("box  projected, MiB  worker, MiB  driver, MiB  seconds")
    for box in given.box:
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="regroup_memory_") as folder:
            found = measure(
                Path(folder), n_maps=given.maps, box=box, n_particles=given.particles, align=not given.no_align
            )
        sizes = "  ".join(f"{value / 2**20:11.0f}" for value in found[:3])
        print(f"{box:3d}  {sizes}  {found.seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()
