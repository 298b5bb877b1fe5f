"""What of the comparing of maps is not the kernel: reading prepared maps, results, scheduling, waiting at the end.

    python -m tests.benchmarks.tiles [--maps 100 200] [--box 64] [--workers 2] [--json FILE]

Maps as in `tests.benchmarks.many`, compared by `rd.compare` on a local cluster, all pairs, after a first comparison of a
few of them that loads and compiles everything. The kernel is `align_pair`: the comparison of one pair of prepared maps
that are in memory, from their coefficients to the pose, its confidence, and the powers per shell at that pose, from which
correlation and similarity are made. Everything else that workers do or wait for during the stage "Aligning pairs" is
overhead. `of CPU` is the part of it in the CPU time of the worker processes with all their threads, which other programs on
the machine do not disturb: `reading` is prepared maps read and checked, `keeping` results written for a resumed run, `rest`
making results, messages and heartbeats. `of wall` is its part in the wall time of the stage times the number of workers;
it has waiting at the end in it too, and means something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from regroup_dask.progress import Event, StageFinished, StageStarted
from tests.benchmarks.many_maps import unlike_maps

STAGE = "Aligning pairs"


def watch_tiles() -> None:
    """Count, in a worker process, the time of pairs, of reading and of keeping: seconds, and CPU seconds of the thread."""
    from regroup_dask.science import align
    from regroup_dask.tasks import execute, prepared_store

    spent: dict[str, np.ndarray] = {name: np.zeros(2) for name in ("kernel", "reading", "keeping")}

    def timed(name: str, function: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            before = np.array([time.perf_counter(), time.thread_time()])
            try:
                return function(*given, **more)
            finally:
                spent[name] += np.array([time.perf_counter(), time.thread_time()]) - before

        return call

    align.align_pair = timed("kernel", align.align_pair)  # type: ignore[assignment]
    prepared_store.read_prepared = timed("reading", prepared_store.read_prepared)
    execute.save_result = timed("keeping", execute.save_result)
    align.spent = spent  # type: ignore[attr-defined]


def spent_so_far() -> dict[str, np.ndarray]:
    """What was counted, and the CPU seconds of the process."""
    from regroup_dask.science import align

    return {**align.spent, "process": np.array([0.0, time.process_time()])}  # type: ignore[attr-defined]


def measure(n_maps: int, box: int, n_workers: int) -> dict[str, float]:
    """Compare all pairs of so many maps, and see what the workers did meanwhile."""
    import regroup_dask as rd
    from regroup_dask.tasks.connect import Where, connected

    made = unlike_maps(n_maps, 5, box, 0)
    options = {"voxel_size_angstrom": 256.0 / box, "align": True, "hand": "off"}
    seconds = 0.0
    before: dict[str, np.ndarray] = {}
    after: dict[str, np.ndarray] = {}
    with connected(Where(workers=n_workers)) as client:
        client.run(watch_tiles)
        rd.compare(np.asarray(made.maps[:6]), client=client, **options)

        def total() -> dict[str, np.ndarray]:
            found = list(client.run(spent_so_far).values())
            return {name: np.sum([entry[name] for entry in found], axis=0) for name in found[0]}

        def listen(event: Event) -> None:
            nonlocal seconds
            if isinstance(event, StageStarted) and event.stage == STAGE:
                before.update(total())
            if isinstance(event, StageFinished) and event.stage == STAGE:
                seconds = event.seconds
                after.update(total())

        rd.compare(np.asarray(made.maps), client=client, listener=listen, **options)
    spent = {name: after[name] - before[name] for name in before}
    n_pairs = n_maps * (n_maps - 1) // 2
    process = float(spent["process"][1])
    parts = {name: float(spent[name][1]) / process for name in ("kernel", "reading", "keeping")}
    return {
        "maps": n_maps,
        "pairs": n_pairs,
        "seconds": seconds,
        "kernel_milliseconds_per_pair": 1000 * float(spent["kernel"][1]) / n_pairs,
        "overhead_of_cpu": 1 - parts["kernel"],
        "reading_of_cpu": parts["reading"],
        "keeping_of_cpu": parts["keeping"],
        "rest_of_cpu": 1 - sum(parts.values()),
        "overhead_of_wall": 1 - float(spent["kernel"][0]) / (seconds * n_workers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    print("maps  pairs  seconds  kernel, CPU ms per pair  of CPU = reading + keeping +   rest  of wall")
    for n_maps in given.maps:
        row = measure(n_maps, given.box, given.workers)
        rows.append(row)
        print(
            f"{n_maps:4d}  {row['pairs']:5d}  {row['seconds']:7.1f}  {row['kernel_milliseconds_per_pair']:23.2f}  "
            f"{row['overhead_of_cpu']:6.1%}   {row['reading_of_cpu']:7.1%}   {row['keeping_of_cpu']:7.1%}  "
            f"{row['rest_of_cpu']:6.1%}  {row['overhead_of_wall']:7.1%}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
