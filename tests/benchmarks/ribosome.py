"""All pairs of simulated ribosome jobs against the true poses, before and after cycles and synchronization.

    python -m tests.benchmarks.ribosome FOLDER ... [--maps relion|cryosparc] [--maximum-shift A] [--json FILE]

Each folder holds a truth.json with the pose of every class. "Searched" is what the search of each pair found, "mended"
the poses of pairs.zarr, in which pairs that the others contradicted are aligned again, "synchronized" what follows from
one frame of all classes. Shifts are compared at the centre of the particle, so that a small rotation does not count
twice. Members of one superclass and of different ones count alike.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

import regroup_dask
from regroup_dask.science import frames, rotations
from regroup_dask.superclass_frames import pair_weights

LIMIT_DEGREES = 2.0


class TruePoses(NamedTuple):
    """How each class of a job lies: the structure moved by ``y = R x + t``."""

    maps: list[str]
    rotation: np.ndarray
    shift_angstrom: np.ndarray


def read_truth(folder: Path, maps: str) -> TruePoses:
    """Read truth.json, classes in order of their ids."""
    classes = json.loads((folder / "truth.json").read_text())["classes"]
    classes = sorted(classes, key=lambda entry: entry["class_index_cryosparc"])
    return TruePoses(
        [str(folder / entry[f"{maps}_map"]) for entry in classes],
        np.array([entry["rotation_matrix"] for entry in classes]),
        np.array([entry["shift_A"] for entry in classes]),
    )


def pair_errors(
    rotation: np.ndarray, shift: np.ndarray, mirrored: np.ndarray, truth: TruePoses
) -> tuple[np.ndarray, np.ndarray]:
    """Angles in degrees and distances in angstrom from the truth, of all pairs i < j; 180 for the wrong hand."""
    i, j = np.triu_indices(len(truth.rotation), 1)
    true = truth.rotation[i] @ truth.rotation[j].transpose(0, 2, 1)
    degrees = np.where(mirrored[i, j], 180.0, rotations.rotation_angle_degrees(rotation[i, j], true))
    # the middle of the structure lies at t in each class map
    landed = np.einsum("nab,nb->na", rotation[i, j], truth.shift_angstrom[j]) + shift[i, j]
    return degrees, np.linalg.norm(landed - truth.shift_angstrom[i], axis=1)


def synchronized(pairs: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative poses that follow from one frame of all classes."""
    solved = frames.synchronize(
        matrices(pairs),
        pairs["shift_angstrom"].values,
        pairs["mirrored"].values,
        pair_weights(pairs["correlation"].values),
        reference=0,
        hand_weight=pairs["hand_trust"].values,
    )
    number = range(len(solved.rotation))
    predicted = [[frames.predicted_pair(solved, i, j) for j in number] for i in number]
    return (
        np.array([[entry.rotation for entry in row] for row in predicted]),
        np.array([[entry.shift_angstrom for entry in row] for row in predicted]),
        np.array([[entry.mirrored for entry in row] for row in predicted]),
    )


def matrices(pairs: xr.Dataset) -> np.ndarray:
    """Rotation matrices float64 (N, N, 3, 3) of a dataset of pairs."""
    quaternions = pairs["rotation_quaternion"].values
    return Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix().reshape(*quaternions.shape[:2], 3, 3)


def measure_job(folder: Path, maps: str, maximum_shift_angstrom: float) -> dict[str, Any]:
    """Compare all classes of one job and sum up."""
    truth = read_truth(folder, maps)
    began = time.perf_counter()
    pairs = regroup_dask.compare(truth.maps, align=True, maximum_shift_angstrom=maximum_shift_angstrom)
    seconds = time.perf_counter() - began
    given = matrices(pairs), pairs["shift_angstrom"].values, pairs["mirrored"].values
    degrees, angstrom = pair_errors(*given, truth)
    kept = ~pairs["corrected"].values[np.triu_indices(len(truth.maps), 1)]
    after, after_angstrom = pair_errors(*synchronized(pairs), truth)
    return {
        "job": folder.name,
        "pairs": len(degrees),
        "searched_within_2_degrees": int(np.sum(degrees[kept] <= LIMIT_DEGREES)),
        "corrected_pairs": int(np.sum(~kept)),
        "mended_within_2_degrees": int(np.sum(degrees <= LIMIT_DEGREES)),
        "mended_median_degrees": float(np.median(degrees)),
        "mended_worst_degrees": float(degrees.max()),
        "mended_worst_angstrom": float(angstrom.max()),
        "synchronized_median_degrees": float(np.median(after)),
        "synchronized_worst_degrees": float(after.max()),
        "synchronized_worst_angstrom": float(after_angstrom.max()),
        "seconds": seconds,
    }


def main() -> None:
    """Measure every folder; print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="simulated jobs with truth.json")
    parser.add_argument("--maps", choices=["relion", "cryosparc"], default="relion")
    parser.add_argument("--maximum-shift", type=float, default=25.0, metavar="A")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("job             pairs corrected within 2  worst deg  worst A  median deg | synchronized: worst deg  worst A")
    rows = []
    for folder in options.folders:
        row = measure_job(folder, options.maps, options.maximum_shift)
        rows.append(row)
        print(
            f"{row['job']:15s} {row['pairs']:5d} {row['corrected_pairs']:9d} {row['mended_within_2_degrees']:8d} "
            f"{row['mended_worst_degrees']:10.2f} {row['mended_worst_angstrom']:8.2f} {row['mended_median_degrees']:11.2f} |"
            f" {row['synchronized_worst_degrees']:23.2f} {row['synchronized_worst_angstrom']:8.2f}",
            flush=True,
        )
    result = {
        "jobs": rows,
        "pairs": sum(row["pairs"] for row in rows),
        "within_2_degrees": sum(row["mended_within_2_degrees"] for row in rows),
        "worst_degrees": max(row["mended_worst_degrees"] for row in rows),
        "synchronized_worst_degrees": max(row["synchronized_worst_degrees"] for row in rows),
    }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
