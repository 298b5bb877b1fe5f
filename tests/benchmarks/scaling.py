"""How well the scheduler's side keeps workers busy: the tiles of N maps with kernels that only sleep.

    python -m tests.benchmarks.scaling --workers 1 2 4 8 16 32 64 --maps 1000 --seconds-per-pair 0.004

Sleeping kernels model more cores than this machine has: a tile sleeps once, for as long as its pairs would take, and
what is measured is submission, scheduling, results and checkpoints. `busy` is the time that kernels slept over the time
that all workers had; what is left of it went before each worker's first tile (`start`), after its last (`end`), between
tiles (`gaps`), and into tiles that took longer than they slept for (`late`: results made, kept and sent, and other
processes on the same cores). Scheduler and driver are one process here, `ms per tile` is its CPU time. Each worker is a
Dask worker of one thread with its own connections, as on a cluster; beyond `--processes` several of them share a process.
Large tiles are 576 pairs, and a pair takes 3 to 10 ms at the working box of 64.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from distributed import Client, LocalCluster, Worker, get_worker

from regroup_dask.tasks.execute import run_units
from regroup_dask.tasks.pairs import tile_pairs


class SleepingTile(NamedTuple):
    """The pairs of a tile, and how long each shall take."""

    name: str
    pairs: tuple[tuple[int, int], ...]
    seconds_per_pair: float
    shells: int = 33


def sleep_tile(unit: SleepingTile) -> dict[str, np.ndarray]:
    """Take the time of a tile, and give back as much as a tile does."""
    began = time.time()
    time.sleep(len(unit.pairs) * unit.seconds_per_pair)
    n_pairs = len(unit.pairs)
    names = ("cross_power", "power_fixed", "power_moving")
    return {
        "pairs": np.asarray(unit.pairs),
        "rotation": np.zeros((n_pairs, 3, 3)),
        **{name: np.zeros((n_pairs, unit.shells)) for name in names},
        "began": np.array(began),
        "worker": np.array(get_worker().address),
    }


class Measured(NamedTuple):
    workers: int
    tiles: int
    seconds: float
    busy: float
    start: float
    gaps: float
    end: float
    late: float
    milliseconds_per_tile: float


async def serve(scheduler: str, count: int) -> None:
    """Be so many workers of one thread each, until the scheduler goes."""
    workers = await asyncio.gather(
        *(Worker(scheduler, nthreads=1, memory_limit=0, dashboard_address=None) for _ in range(count))
    )
    # modules are imported before the clock starts, as in any but the first seconds of a run
    importlib.import_module("regroup_dask.tasks.pairs")
    await asyncio.gather(*(worker.finished() for worker in workers))


@contextlib.contextmanager
def workers(n_workers: int, processes: int) -> Iterator[Client]:
    """A scheduler in this process, workers in others."""
    with (
        LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        counts = [len(part) for part in np.array_split(np.arange(n_workers), min(processes, n_workers))]
        command = [sys.executable, "-m", "tests.benchmarks.scaling", "--serve", cluster.scheduler_address]
        serving = [subprocess.Popen([*command, str(count)], stderr=subprocess.DEVNULL) for count in counts]
        try:
            client.wait_for_workers(n_workers, timeout=60)
            client.run(lambda: __import__("tests.benchmarks.scaling"))
            yield client
        finally:
            for process in serving:
                process.kill()
                process.wait()


def measure(n_workers: int, n_maps: int, seconds_per_pair: float, *, processes: int = 8) -> Measured:
    """Run the tiles of so many maps on so many workers."""
    units = [
        SleepingTile(f"tile_{number:06d}", pairs, seconds_per_pair) for number, pairs in enumerate(tile_pairs(n_maps))
    ]
    with (
        workers(n_workers, processes) as client,
        tempfile.TemporaryDirectory(prefix="regroup_scaling_") as folder,
    ):
        began, spent = time.time(), time.process_time()
        results = run_units(sleep_tile, units, client=client, checkpoint=Path(folder) / "kept")
        ended, spent = time.time(), time.process_time() - spent
        kept = {path.stem: path.stat().st_mtime for path in (Path(folder) / "kept").iterdir()}
    of_worker: dict[str, list[tuple[float, float, float]]] = {}
    for unit, result in zip(units, results, strict=True):
        slept = len(unit.pairs) * seconds_per_pair
        of_worker.setdefault(str(result["worker"]), []).append((float(result["began"]), kept[unit.name], slept))
    start = end = gaps = late = busy = 0.0
    for tiles in of_worker.values():
        tiles.sort()
        start += tiles[0][0] - began
        end += ended - tiles[-1][1]
        gaps += sum(after[0] - before[1] for before, after in itertools.pairwise(tiles))
        busy += sum(slept for _, _, slept in tiles)
        late += sum(stop - first - slept for first, stop, slept in tiles)
    unused = (n_workers - len(of_worker)) * (ended - began)
    all_time = (ended - began) * n_workers
    shares = (value / all_time for value in (busy, start + unused, gaps, end, late))
    return Measured(n_workers, len(units), ended - began, *shares, 1000 * spent / len(units))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 64])
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--seconds-per-pair", type=float, default=0.004)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--serve", nargs=2, metavar=("SCHEDULER", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve[0], int(given.serve[1])))
        return
    print("workers  tiles  seconds   busy  start   gaps    end   late  ms per tile")
    for n_workers in given.workers:
        # fewer maps for fewer workers, so that each line takes about as long
        n_maps = round(given.maps * min(1.0, (n_workers / max(given.workers)) ** 0.5))
        found = measure(n_workers, n_maps, given.seconds_per_pair, processes=given.processes)
        shares = "  ".join(f"{share:5.1%}" for share in found[3:8])
        print(
            f"{found.workers:7d}  {found.tiles:5d}  {found.seconds:7.1f}  {shares}  {found.milliseconds_per_tile:11.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
