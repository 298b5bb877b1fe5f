"""Time and memory of a whole job, as a person runs it.

    python -m tests.benchmarks.job [JOB_FOLDER] [--runs 3] [--json FILE] [-- OPTIONS OF RUN]

Without a job folder the demo's job is made and used. Every run is a fresh process of the command line. Times are
given in seconds and as multiples of reading all the input files once (a raw file copy to nowhere), and per pair in
multiples of one 64^3 complex64 FFT (scipy.fft, one thread), all measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import scipy.fft


def fft_seconds(repeats: int = 30) -> float:
    """Median time of one 64^3 complex64 FFT on one thread."""
    rng = np.random.default_rng(0)
    volume = (rng.normal(size=(64, 64, 64)) + 0j).astype(np.complex64)
    times = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        scipy.fft.fftn(volume, workers=1)
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])


def read_seconds(folder: Path) -> float:
    """Time to read every file of a folder once."""
    began = time.perf_counter()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with open(path, "rb") as stream:
                while stream.read(2**22):
                    pass
    return time.perf_counter() - began


def run_once(command: list[str]) -> tuple[float, dict[str, float]]:
    """Run a command; returns its seconds and the peak resident memory of its processes in GiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    driver, worker, together = 0, 0, 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            children = [child.memory_info().rss for child in watched.children(recursive=True)]
            own = watched.memory_info().rss
        except psutil.Error:
            continue
        driver, worker = max(driver, own), max([worker, *children])
        together = max(together, own + sum(children))
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stderr.read()}")
    gib = {"driver": driver, "largest other process": worker, "together": together}
    return seconds, {name: value / 2**30 for name, value in gib.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("options", nargs="*", default=[])
    arguments, more = parser.parse_known_args()
    options = [*arguments.options, *more] or ["-k", "4", "--align-pairs"]
    with tempfile.TemporaryDirectory() as scratch:
        job = arguments.job
        if job is None:
            from regroup_dask.demo import JOB_NAME, simulate_job

            simulate_job(Path(scratch) / "demo")
            job = Path(scratch) / "demo" / JOB_NAME
        output = Path(scratch) / "OUT"
        command = [sys.executable, "-m", "regroup_dask", "run", str(job), *options, "-o", str(output)]
        seconds, memory, stages = [], [], []
        for _ in range(arguments.runs):
            shutil.rmtree(output, ignore_errors=True)
            took, peak = run_once(command)
            seconds.append(took)
            memory.append(peak)
            stages.append(json.loads((output / "run.json").read_text()))
        record = stages[-1]
        kept = record["n_classes_kept"]
        pairs = kept * (kept - 1) // 2
        fft, raw = fft_seconds(), read_seconds(job)
    aligning = statistics.median(stage["seconds"].get("Aligning pairs", float("nan")) for stage in stages)
    table = {
        "classes kept": kept,
        "pairs": pairs,
        "particles": record["n_particles"],
        "whole command (s)": statistics.median(seconds),
        "reading the input once (s)": raw,
        "one 64^3 complex64 FFT (ms)": 1e3 * fft,
        "aligning, wall time per pair (FFTs)": aligning / pairs / fft,
        **{f"peak memory, {name} (GiB)": max(peak[name] for peak in memory) for name in memory[0]},
    }
    for name, value in stages[-1]["seconds"].items():
        table[f"stage: {name} (s)"] = value
    width = max(len(name) for name in table)
    for name, value in table.items():
        print(f"{name:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
