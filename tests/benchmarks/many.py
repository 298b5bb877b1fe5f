"""Thousands of maps: time, memory and agreement with the truth, against all pairs on a subset.

    python -m tests.benchmarks.many [--maps 2000] [--structures 20] [--nearest 30] [--subset 200] [--json FILE]
    python -m tests.benchmarks.many --maps 400 --subset 200 --difference 2 30 [--noise 0.3 3] [--resolution 10 25]

Maps come from `tests.benchmarks.many_maps`: structures that differ in a whole domain, or, with ``--difference 2 30``, in
that percentage of the mass only, with ``--noise`` (standard deviation over that of the map) and ``--resolution`` ranges.
Everything runs through `rd.regroup` on a local cluster with one worker per core, from the maps to the superclass maps and
the report; time is wall time, memory the peak of the driver and of any worker, beside what the run stated before it began.
Poses are held against those that the maps were made with, where the map that a pose refers to is of the same structure.
The oracle knows structures, poses, filters and noise.
"""

from __future__ import annotations

import argparse
import json
import mmap
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from regroup_dask.formats.mrc import write_mrc
from regroup_dask.progress import Event, Message
from tests.benchmarks.many_maps import Maps, related_maps, unlike_maps


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


def measure(made: Maps, n_structures: int, pairs: str, folder: Path) -> tuple[dict[str, object], np.ndarray]:
    """Regroup the maps; returns what it took and gave, and the superclass of each."""
    import regroup_dask as rd
    from regroup_dask.tasks.connect import Where, connected

    # No two maps lie further apart than this, turned against each other or not.
    furthest = 2 * float(np.linalg.norm(made.shift_voxels, axis=1).max()) * made.voxel_size_angstrom
    options = {"align": True, "hand": "off", "pairs": pairs, "maximum_shift_angstrom": furthest}
    stated: list[str] = []
    files = write_files(made, folder / "maps")

    def listen(event: Event) -> None:
        if isinstance(event, Message) and "of memory" in event.text:
            stated.append(event.text)

    with connected(Where()) as client, PeakMemory() as peak:
        n_workers = len(client.nthreads())
        began = time.perf_counter()
        result = rd.regroup(
            files,
            n_superclasses=n_structures,
            output=folder / "OUT",
            client=client,
            overwrite=True,
            listener=listen,
            **options,
        )
        seconds = time.perf_counter() - began
    compared = np.isfinite(result.pairs["correlation"].values)
    np.fill_diagonal(compared, False)
    same = made.structure[:, None] == made.structure[None]
    np.fill_diagonal(same, False)
    n_pairs = int(compared.sum()) // 2
    labels = result.groups["superclass"].values
    away_degrees, away_angstrom = pose_errors(made, result.groups)
    asked = made.oracle >= 0
    right = made.structure == made.structure[references_of(result.groups)]
    row = {
        "maps": len(made.maps),
        "pairs": n_pairs,
        "seconds": seconds,
        "milliseconds_per_pair": 1000 * n_workers * result.seconds["Aligning pairs"] / n_pairs,
        "adjusted_rand_index": float(adjusted_rand_score(made.structure, labels)),
        "adjusted_rand_index_of_oracle": float(adjusted_rand_score(made.structure[asked], made.oracle[asked])),
        "same_structure_compared": float(compared[same].mean()),
        "maps_without_a_like_one": int((~(compared & same).any(axis=1) & same.any(axis=1)).sum()),
        "stability_mean": float(np.mean(result.groups["stability"].values)),
        "pose_median_degrees": float(np.median(away_degrees[right])),
        "poses_within_10_degrees": float((away_degrees[right] < 10).mean()),
        "shift_median_angstrom": float(np.median(away_angstrom[right])),
        "driver_gib": peak.driver / 2**30,
        "worker_gib": peak.worker / 2**30,
        "stated": stated[0] if stated else "",
        "stages": {name: round(value, 1) for name, value in result.seconds.items()},
    }
    return row, labels


def write_files(made: Maps, folder: Path) -> list[Path]:
    """A file for each map, as a classification leaves them; what this process held of the maps is let go."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"class_{index:05d}.mrc" for index in range(len(made.maps))]
    for path, volume in zip(files, made.maps, strict=True):
        if not path.exists():
            write_mrc(path, np.asarray(volume), voxel_size_angstrom=made.voxel_size_angstrom)
    kept: object = made.maps
    while not isinstance(kept, mmap.mmap) and getattr(kept, "base", None) is not None:
        kept = kept.base  # type: ignore[attr-defined]
    if isinstance(kept, mmap.mmap):
        kept.madvise(mmap.MADV_DONTNEED)
    return files


def references_of(groups: xr.Dataset) -> np.ndarray:
    """Position of the class in whose frame each class is posed."""
    ids = groups["class_id"].values
    position = {int(class_id): at for at, class_id in enumerate(ids)}
    return np.array([position[int(one)] for one in groups["reference_class"].values])[groups["superclass"].values]


def pose_errors(made: Maps, groups: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Degrees and angstrom between the pose of each class into its superclass frame and the one it was made with."""
    reference = references_of(groups)
    # x_map = R x + t, so that x_reference = R_r R_m^T (x_map - t_m) + t_r.
    exact = made.rotation[reference] @ np.swapaxes(made.rotation, 1, 2)
    shift = made.voxel_size_angstrom * (made.shift_voxels[reference] - np.einsum("nab,nb->na", exact, made.shift_voxels))
    found = Rotation.from_quat(groups["rotation_quaternion"].values)
    degrees = np.degrees((found * Rotation.from_matrix(exact).inv()).magnitude())
    return degrees, np.linalg.norm(groups["shift_angstrom"].values - shift, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--nearest", type=int, default=30)
    parser.add_argument("--subset", type=int, default=200, help="0: no subset")
    parser.add_argument("--box", type=int, default=32, help="of the unlike maps; related ones have 32")
    parser.add_argument("--difference", type=float, nargs=2, metavar="PERCENT", help="related maps: by so much of the mass")
    parser.add_argument("--noise", type=float, nargs=2, default=(0.3, 3.0), help="of related maps: least and largest")
    parser.add_argument("--resolution", type=float, nargs=2, default=(10.0, 25.0), help="of related maps: best and worst, A")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the maps and the output lie meanwhile")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    nearest = f"nearest:{given.nearest}"
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="regroup_many_") as name:
        folder = Path(name)
        if given.difference:
            ranges = {"noise": given.noise, "resolution_angstrom": given.resolution}
            made = related_maps(
                given.maps, given.structures, given.seed, folder / "maps.npy", difference_percent=given.difference, **ranges
            )
        else:
            made = unlike_maps(given.maps, given.structures, given.box, given.seed, folder / "maps.npy")
        found = {}
        kinds = [("all maps, nearest", made, nearest)] if given.subset < given.maps else []
        if given.subset:
            subset = made.first(given.subset)
            kinds[:0] = [("subset, all pairs", subset, "all"), ("subset, nearest", subset, nearest)]
        for name, some, pairs in kinds:
            rows[name], found[name] = measure(some, given.structures, pairs, folder)
            if name == "subset, nearest":
                rows[name]["index_against_all_pairs"] = float(adjusted_rand_score(found["subset, all pairs"], found[name]))
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
