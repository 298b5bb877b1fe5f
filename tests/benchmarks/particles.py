"""Memory and throughput of the particle stage, on a local cluster with two workers.

    python -m tests.benchmarks.particles [--rows 1e6,1e7] [--formats cs,star,parquet] [--json FILE]

Writes particles of twelve classes, opens, counts, assigns and writes them as a run does, with poses that follow their
classes into four superclasses and one class left out, so that every path is taken. What is printed for each file:

* the largest resident memory any worker ever had, and the driver's;
* throughput against `cp` of the files that the stage wrote, to a folder beside them, and of the input. The stage and `cp`
  take turns (``--repeats``), both read what is in the page cache already, both begin when nothing is left to be written
  (`sync`), and all times end when the bytes are on disk (fsync of each file). What is printed is the median;
* megabytes of the input (and of the output) per second of processor time, over workers and driver and all stages, opening
  included, user's and kernel's time together, and without the kernel's: what one core does. The kernel's part
  is mostly for pages of memory, of which files are made too; `cp` has it as well;
* the whole file loaded in one process by the package people use for it (cryosparc-tools, starfile, pandas).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from scipy.spatial.transform import Rotation

from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.regroup_plan import SuperclassMaps
from regroup_dask.progress import StageClock
from regroup_dask.settings import Settings
from regroup_dask.steps import particles
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks.particles import on_cluster
from tests.benchmarks.particle_files import N_CLASSES, write_particles

LABELS = np.array([0, 1, 0, 2, 3, 1, 0, 2, 3, 0, 1, -1])
LOAD_BYTES = 12 * 2**30
LOADERS = {
    "cs": ("cryosparc-tools", "from cryosparc.dataset import Dataset; table = Dataset.load({path!r})"),
    "star": ("starfile", "import starfile; table = starfile.read({path!r})"),
    "parquet": ("pandas", "import pandas; table = pandas.read_parquet({path!r})"),
}


def grouping() -> xr.Dataset:
    """Twelve classes in four superclasses, all but the largest of each turned and shifted, one of the other hand."""
    rng = np.random.default_rng(0)
    quaternion = Rotation.random(N_CLASSES, rng=rng).as_quat(canonical=True)
    shift = rng.normal(0, 5, (N_CLASSES, 3))
    for label in range(LABELS.max() + 1):
        reference = int(np.flatnonzero(label == LABELS)[0])
        quaternion[reference], shift[reference] = [0, 0, 0, 1], 0
    return xr.Dataset(
        {
            "superclass": ("class_id", LABELS),
            "mirrored": ("class_id", np.arange(N_CLASSES) == 9),
            "rotation_quaternion": (("class_id", "quaternion"), quaternion),
            "shift_angstrom": (("class_id", "axis"), shift),
        },
        coords={"class_id": np.arange(N_CLASSES)},
    )


def small_maps(folder: Path) -> SuperclassMaps:
    """Maps for the sides to refer to, so small that they do not count."""
    folder.mkdir()
    paths = tuple(str(folder / f"superclass_{k:03d}.mrc") for k in range(4))
    for path in paths:
        with mrcfile.new(path) as file:
            file.set_data(np.zeros((4, 4, 4), np.float32))
    return SuperclassMaps(paths, 4, 1.25)


def memory_and_time() -> tuple[int, float, float]:
    """Largest resident memory of this process so far, and the time it has used, its own and the kernel's for it."""
    with open("/proc/self/status") as stream:
        peak = next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM"))
    times = os.times()
    return peak, times.user, times.system


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flush(paths: list[Path]) -> None:
    for path in paths:
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())


def run_stage(path: Path, folder: Path, n_workers: int) -> dict[str, Any]:
    """Run the particle stage as a run does."""
    settings = Settings(n_superclasses=4, align=True)
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n_workers)
        client.run(_import)
        before = [*client.run(memory_and_time).values(), memory_and_time()]
        run = RunContext(folder, client, StageClock())
        began = time.perf_counter()
        source = open_particles([str(path)], scratch=folder / "scratch", run=on_cluster(lambda: client))
        opened = time.perf_counter() - began
        class_counts = particles.survey(source, run)
        groups = grouping()
        labels = dict(enumerate(LABELS.tolist()))
        counts = particles.count(source, class_counts, labels, 4, settings, run)
        particles.write(source, groups, counts, settings, small_maps(folder / "volumes"), run)
        computed = time.perf_counter() - began
        shutil.rmtree(run.work, ignore_errors=True)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        written = files_below(folder)
        flush(written)
        seconds = time.perf_counter() - began
        after = [*client.run(memory_and_time).values(), memory_and_time()]
    return {
        "rows": source.n_rows,
        "input_bytes": path.stat().st_size,
        "output_bytes": sum(item.stat().st_size for item in written),
        "fragments": len(source.fragments),
        "seconds": seconds,
        "seconds_unflushed": computed,
        "stages": {"open": round(opened, 2), **run.clock.seconds},
        "worker_peak_bytes": max(peak for peak, _, _ in after[:-1]),
        "driver_peak_bytes": after[-1][0],
        "user_seconds": sum(user for _, user, _ in after) - sum(user for _, user, _ in before),
        "system_seconds": sum(system for _, _, system in after) - sum(system for _, _, system in before),
    }


def _import() -> None:
    import regroup_dask.tasks.particles  # noqa: F401


def copy_seconds(files: list[Path], target: Path) -> tuple[float, float]:
    """Time of `cp` of files: until it returns, and until the bytes are on disk."""
    target.mkdir()
    began = time.perf_counter()
    subprocess.run(["cp", "-r", *map(str, files), str(target)], check=True)
    returned = time.perf_counter() - began
    flush(files_below(target))
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return returned, seconds


def load_whole(kind: str, path: Path) -> dict[str, Any]:
    """Load a file whole in a fresh process, as people do; its time and peak memory."""
    name, code = LOADERS[kind]
    program = (
        "import resource, time\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({LOAD_BYTES}, {LOAD_BYTES}))\n"
        "began = time.perf_counter()\n"
        f"{code.format(path=str(path))}\n"
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        return {"loader": name, "seconds": None, "peak_bytes": None}
    seconds, peak = done.stdout.split()[-2:]
    return {"loader": name, "seconds": float(seconds), "peak_bytes": int(peak)}


def measure(
    kind: str, n_rows: int, scratch: Path, *, n_workers: int, load_rows: int, repeats: int
) -> dict[str, Any]:
    suffix = {"cs": "cs", "star": "star", "parquet": "parquet"}[kind]
    path = write_particles(kind, scratch / f"particles.{suffix}", n_rows)
    rounds = []
    for _ in range(repeats):
        folder = scratch / "OUT"
        folder.mkdir()
        in_page_cache(path)
        os.sync()
        result = {"format": kind, **run_stage(path, folder, n_workers)}
        tops = sorted(folder.iterdir())
        os.sync()
        result["copy_output_unflushed"], result["copy_output_seconds"] = copy_seconds(tops, scratch / "copy")
        os.sync()
        result["copy_input_unflushed"], result["copy_input_seconds"] = copy_seconds([path], scratch / "copy")
        shutil.rmtree(folder)
        rounds.append(result)
    result = median_of_rounds(rounds)
    if n_rows <= load_rows:
        result["whole"] = load_whole(kind, path)
    path.unlink()
    return result


def in_page_cache(path: Path) -> None:
    """Read a file, so that reading it again does not wait for the disk."""
    with open(path, "rb") as stream:
        while stream.read(2**24):
            pass


def median_of_rounds(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round of median time, with medians of all times and the largest of all peaks."""
    result = dict(sorted(rounds, key=lambda one: one["seconds"])[len(rounds) // 2])
    for name in result:
        values = [one[name] for one in rounds]
        if name.endswith("_peak_bytes"):
            result[name] = max(values)
        elif "seconds" in name or name.endswith("_unflushed"):
            result[name] = float(np.median(values))
    result["of_copy_in_each_round"] = [round(one["copy_output_seconds"] / one["seconds"], 3) for one in rounds]
    return result


def show(result: dict[str, Any]) -> None:
    mb, gib = 1e6, 2**30
    cpu = result["user_seconds"] + result["system_seconds"]
    seconds, copying = result["seconds"], result["copy_output_seconds"]
    print(f"\n{result['format']}, {result['rows']:.0e} rows, {result['input_bytes'] / mb:.0f} MB in, ", end="")
    print(f"{result['output_bytes'] / mb:.0f} MB out, {result['fragments']} fragments")
    print(f"  peak memory of a worker  {result['worker_peak_bytes'] / gib:.2f} GiB", end="")
    print(f"   of the driver {result['driver_peak_bytes'] / gib:.2f} GiB")
    print(f"  time                     {seconds:.1f} s ({result['seconds_unflushed']:.1f} before fsync)  ", end="")
    print("  ".join(f"{name} {length:.1f}" for name, length in result["stages"].items()))
    print(f"  processor time           {result['user_seconds']:.1f} s own, {result['system_seconds']:.1f} s of the kernel")
    for what in ("input", "output"):
        n_bytes = result[f"{what}_bytes"] / mb
        print(f"  {what:6} per core          {n_bytes / cpu:.0f} MB/s; {n_bytes / result['user_seconds']:.0f} of own time")
    print(f"  written                  {result['output_bytes'] / seconds / mb:.0f} MB/s; cp of the same files ", end="")
    print(f"{result['output_bytes'] / copying / mb:.0f} MB/s: {copying / seconds:.2f} of cp ", end="")
    print(f"({result['copy_output_unflushed'] / result['seconds_unflushed']:.2f} before fsync)")
    print(f"  of cp in each round      {result['of_copy_in_each_round']}")
    moved = result["copy_input_seconds"] + copying
    print(f"  read and written         cp of the input and of the output takes {moved:.1f} s: ", end="")
    print(f"{moved / seconds:.2f} of cp; of the input alone {result['copy_input_seconds'] / seconds:.2f}")
    whole = result.get("whole")
    if whole and whole["seconds"] is None:
        print(f"  {whole['loader']:24} cannot load it in {LOAD_BYTES / gib:.0f} GiB")
    elif whole:
        print(f"  {whole['loader']:24} loads it in {whole['seconds']:.1f} s, {whole['peak_bytes'] / gib:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1e6,1e7")
    parser.add_argument("--formats", default="cs,star,parquet")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the stage and cp in turns")
    parser.add_argument("--load-rows", type=float, default=1e6, help="load files of up to this many rows whole")
    parser.add_argument("--folder", type=Path, help="where the files are made (and removed); default: temporary")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for kind in arguments.formats.split(","):
        for rows in arguments.rows.split(","):
            with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="particles-benchmark-") as scratch:
                results.append(
                    measure(
                        kind,
                        int(float(rows)),
                        Path(scratch),
                        n_workers=arguments.workers,
                        load_rows=int(arguments.load_rows),
                        repeats=arguments.repeats,
                    )
                )
            show(results[-1])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
