"""Thousands of maps: time, memory and agreement with the truth, against all pairs on a subset.

    python -m tests.benchmarks.many [--maps 2000] [--structures 20] [--nearest 30] [--subset 200] [--json FILE]

Structures are chains of Gaussians that share most of their mass; every map is one of them, turned, shifted, blurred
and with noise over a factor of ten, made exactly at its pose. Everything runs through `rd.regroup` on a local cluster
with one worker per core, from the maps to the superclass maps and the report; time is wall time, memory the peak of the
driver and of any worker, poses are held against those that the maps were made with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import xarray as xr
from scipy.fft import irfftn, rfftn
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

VOXEL = 8.0


class Maps(NamedTuple):
    """Maps (N, z, y, x), the structure of each, and the pose that each was made at: ``x_map = R x + t``, t in voxels."""

    maps: np.ndarray
    structure: np.ndarray
    rotation: np.ndarray
    shift_voxels: np.ndarray

    def first(self, count: int) -> Maps:
        return Maps(*(values[:count] for values in self))


def make_maps(n_maps: int, n_structures: int, box: int, seed: int, path: Path | None = None) -> Maps:
    """Make maps, in a file where one is given: they are read from it then, as a run reads its maps."""
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
    shape = (n_maps, box, box, box)
    maps: np.ndarray
    if path is None:
        maps = np.empty(shape, np.float32)
    else:
        maps = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    rotations, shifts = np.empty((n_maps, 3, 3)), np.empty((n_maps, 3))
    for index in range(n_maps):
        points = np.concatenate([shared, variable[structure[index]]])
        turned = Rotation.random(random_state=rng)
        rotations[index] = turned.as_matrix()
        shifts[index] = rng.uniform(-1.5, 1.5, 3)
        points = turned.apply(points) + shifts[index]
        factors = [np.exp(-((axis[:, None] - points[:, part]) ** 2) / (2 * 1.3**2)) for part in range(3)]
        density = np.einsum("zp,yp,xp->zyx", factors[2], factors[1], factors[0], optimize=True)
        density += rng.normal(size=density.shape) * density.std() * 10 ** rng.uniform(-1, 0)
        blur = np.exp(-((frequency * rng.uniform(1.5, 2.6)) ** 2))
        maps[index] = irfftn(rfftn(density) * blur, density.shape) * rng.uniform(0.5, 2)
    return Maps(maps, structure, rotations, shifts)


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


def measure(made: Maps, n_structures: int, pairs: str, folder: Path) -> dict[str, object]:
    """Regroup the maps, and report."""
    import regroup_dask as rd
    from regroup_dask.tasks.connect import Where, connected

    options = {"align": True, "hand": "off", "pairs": pairs, "voxel_size_angstrom": VOXEL}
    with connected(Where()) as client, PeakMemory() as peak:
        began = time.perf_counter()
        result = rd.regroup(
            np.asarray(made.maps), n_superclasses=n_structures, output=folder / "OUT", client=client, overwrite=True, **options
        )
        seconds = time.perf_counter() - began
    known = int(np.isfinite(result.pairs["correlation"].values).sum() - len(made.maps)) // 2
    away_degrees, away_angstrom = pose_errors(made, result.groups)
    return {
        "maps": len(made.maps),
        "pairs": known,
        "seconds": seconds,
        "adjusted_rand_index": float(adjusted_rand_score(made.structure, result.groups["superclass"].values)),
        "pose_median_degrees": float(np.median(away_degrees)),
        "poses_within_10_degrees": float((away_degrees < 10).mean()),
        "shift_median_angstrom": float(np.median(away_angstrom)),
        "driver_gib": peak.driver / 2**30,
        "worker_gib": peak.worker / 2**30,
        "stages": {name: round(value, 1) for name, value in result.seconds.items()},
    }


def pose_errors(made: Maps, groups: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Degrees and angstrom between the pose of each class into its superclass frame and the one it was made with."""
    labels, ids = groups["superclass"].values, groups["class_id"].values
    reference = np.array([int(np.flatnonzero(ids == one)[0]) for one in groups["reference_class"].values])[labels]
    # x_map = R x + t, so that x_reference = R_r R_m^T (x_map - t_m) + t_r.
    exact = made.rotation[reference] @ np.swapaxes(made.rotation, 1, 2)
    shift = VOXEL * (made.shift_voxels[reference] - np.einsum("nab,nb->na", exact, made.shift_voxels))
    found = Rotation.from_quat(groups["rotation_quaternion"].values)
    degrees = np.degrees((found * Rotation.from_matrix(exact).inv()).magnitude())
    return degrees, np.linalg.norm(groups["shift_angstrom"].values - shift, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--nearest", type=int, default=30)
    parser.add_argument("--subset", type=int, default=200, help="0: no subset")
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the maps and the output lie meanwhile")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    nearest = f"nearest:{given.nearest}"
    rows = {}
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="regroup_many_") as name:
        folder = Path(name)
        made = make_maps(given.maps, given.structures, given.box, given.seed, folder / "maps.npy")
        kinds = [("all maps, nearest", made, nearest)]
        if given.subset:
            subset = made.first(given.subset)
            kinds[:0] = [("subset, all pairs", subset, "all"), ("subset, nearest", subset, nearest)]
        for name, some, pairs in kinds:
            rows[name] = measure(some, given.structures, pairs, folder)
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
