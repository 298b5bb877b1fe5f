"""Thousands of maps: time, memory and agreement with the truth, against all pairs on a subset.

    python -m tests.benchmarks.many [--maps 2000] [--structures 20] [--nearest 30] [--subset 200] [--json FILE]

Structures are chains of Gaussians that share most of their mass; every map is one of them, turned, shifted, blurred
and with noise over a factor of ten, made exactly at its pose. Everything runs through `rd.compare` and `rd.group` on
a local cluster with one worker per core; time is the wall time of each, memory the peak of any process.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from scipy.fft import irfftn, rfftn
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

VOXEL = 8.0


def make_maps(n_maps: int, n_structures: int, box: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (N, z, y, x) and the structure of each."""
    rng = np.random.default_rng(seed)
    shared = np.cumsum(rng.normal(size=(60, 3)), axis=0)
    shared *= 0.3 * box / np.linalg.norm(shared - shared.mean(axis=0), axis=1).max()
    shared -= shared.mean(axis=0)
    variable = [rng.normal(size=(14, 3)) * 1.5 + rng.normal(size=3) * 0.16 * box for _ in range(n_structures)]
    structure = np.arange(n_maps) % n_structures
    rng.shuffle(structure)
    axis = np.arange(box) - box // 2
    frequency = np.sqrt(
        sum(part**2 for part in np.meshgrid(np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij"))
    )
    maps = np.empty((n_maps, box, box, box), np.float32)
    for index in range(n_maps):
        points = np.concatenate([shared, variable[structure[index]]])
        points = Rotation.random(random_state=rng).apply(points) + rng.uniform(-1.5, 1.5, 3)
        factors = [np.exp(-((axis[:, None] - points[:, part]) ** 2) / (2 * 1.3**2)) for part in range(3)]
        density = np.einsum("zp,yp,xp->zyx", factors[2], factors[1], factors[0], optimize=True)
        density += rng.normal(size=density.shape) * density.std() * 10 ** rng.uniform(-1, 0)
        blur = np.exp(-((frequency * rng.uniform(1.5, 2.6)) ** 2))
        maps[index] = irfftn(rfftn(density) * blur, density.shape) * rng.uniform(0.5, 2)
    return maps, structure


class PeakMemory:
    """Watch the resident memory of this process and its children."""

    def __init__(self) -> None:
        self.driver = self.worker = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.2):
            self.driver = max(self.driver, own.memory_info().rss)
            for child in own.children(recursive=True):
                try:
                    self.worker = max(self.worker, child.memory_info().rss)
                except psutil.Error:
                    continue


def measure(maps: np.ndarray, structure: np.ndarray, n_structures: int, pairs: str) -> dict[str, object]:
    """Compare and group, and report."""
    import regroup_dask as rd
    from regroup_dask.tasks.connect import Where, connected

    with connected(Where()) as client, PeakMemory() as peak:
        began = time.perf_counter()
        table = rd.compare(maps, voxel_size_angstrom=VOXEL, align=True, hand="off", pairs=pairs, client=client)
        compared = time.perf_counter()
        groups = rd.group(table, n_structures)
        grouped = time.perf_counter()
    known = int(np.isfinite(table["correlation"].values).sum() - len(maps)) // 2
    return {
        "maps": len(maps),
        "pairs": known,
        "compare_seconds": compared - began,
        "group_seconds": grouped - compared,
        "adjusted_rand_index": float(adjusted_rand_score(structure, groups["superclass"].values)),
        "driver_gib": peak.driver / 2**30,
        "worker_gib": peak.worker / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--nearest", type=int, default=30)
    parser.add_argument("--subset", type=int, default=200)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    maps, structure = make_maps(arguments.maps, arguments.structures, arguments.box, arguments.seed)
    subset = slice(0, arguments.subset)
    rows = {
        "subset, all pairs": measure(maps[subset], structure[subset], arguments.structures, "all"),
        "subset, nearest": measure(
            maps[subset], structure[subset], arguments.structures, f"nearest:{arguments.nearest}"
        ),
        "all maps, nearest": measure(maps, structure, arguments.structures, f"nearest:{arguments.nearest}"),
    }
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(json.dumps(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
