"""Our alignment beside public tools, on the same pairs of maps, in the same run, one thread.

    pip install '.[peers]'
    python -m tests.benchmarks.peers [--pairs 3] [--tools "SimpleITK 60 starts",...] [--only CONDITION] [--json FILE]

Each tool gets the same two arrays of box 64, those of the benchmark of pairs but without a shift, because ASPIRE's
align_BO looks for none, and its own defaults. A tool that is not installed is left out and named. The error is the
angle between the rotation found and the true one; as the tools differ in what they call their rotation, the most
favourable of its readings (matrix or its inverse, xyz or zyx) counts for each. Times are CPU seconds per pair, so that
other load on the machine does not count, and multiples of one 64^3 complex64 FFT.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from regroup_dask.science import align
from regroup_dask.science.noise import map_statistics
from tests.benchmarks.pairs import Condition, fft_seconds, make_trial, plan_for

BOX, VOXEL = 64, 4.0
CONDITIONS = (
    Condition("SNR 0.5", snr=0.5, shift=0.0),
    Condition("SNR 0.05", snr=0.05, shift=0.0),
    Condition("quarter missing, SNR 0.5", snr=0.5, missing=0.25, shift=0.0),
)

Aligner = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_pair(condition: Condition, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return fixed map, moving map, and the rotation that takes the moving onto the fixed one."""
    trial = make_trial(condition, seed)
    return trial.fixed, trial.moving, trial.rotation


def ours() -> Aligner:
    """Both maps are prepared within the time that counts."""

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        statistics_of = [map_statistics(volume, voxel_size_angstrom=VOXEL) for volume in (fixed, moving)]
        plan = plan_for([fixed, moving], VOXEL, "off")
        prepared = [
            align.prepare_map(volume, plan, noise_power=entry.solvent_power)
            for volume, entry in zip((fixed, moving), statistics_of, strict=True)
        ]
        began = time.process_time()
        found = align.align_pair(prepared[0], prepared[1], plan)
        run.pair_seconds.append(time.process_time() - began)  # type: ignore[attr-defined]
        return found.rotation

    run.pair_seconds = []  # type: ignore[attr-defined]
    return run


def aspire() -> Aligner:
    from aspire.utils.bot_align import align_BO
    from aspire.volume import Volume

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        _, refined = align_BO(Volume(fixed.astype(np.float64)), Volume(moving.astype(np.float64)), seed=0)
        return np.asarray(refined, np.float64).reshape(3, 3)

    return run


def torch_fit_in_map() -> Aligner:
    import torch
    from torch_fit_in_map import fit_map_in_map

    torch.set_num_threads(1)

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        found = fit_map_in_map(torch.from_numpy(moving), torch.from_numpy(fixed), verbose=False)
        return found.rotation_matrix.detach().numpy().astype(np.float64)

    return run


def simpleitk() -> Aligner:
    """Rigid registration by correlation with gradient descent from 60 starts spread over all rotations."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    starts = Rotation.random(60, random_state=0)

    def run(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        fixed_image, moving_image = sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving)
        best = (np.inf, np.eye(3))
        for start in starts:
            transform = sitk.VersorRigid3DTransform()
            transform.SetCenter((BOX // 2,) * 3)
            transform.SetMatrix(start.as_matrix().ravel().tolist())
            method = sitk.ImageRegistrationMethod()
            method.SetMetricAsCorrelation()
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(0.1, seed=1)
            method.SetInterpolator(sitk.sitkLinear)
            method.SetOptimizerAsRegularStepGradientDescent(0.2, 1e-3, 60)
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetShrinkFactorsPerLevel([2, 1])
            method.SetSmoothingSigmasPerLevel([2, 1])
            method.SetInitialTransform(transform, inPlace=True)
            method.Execute(fixed_image, moving_image)
            if method.GetMetricValue() < best[0]:
                best = (method.GetMetricValue(), np.array(transform.GetMatrix()).reshape(3, 3))
        return best[1]

    return run


TOOLS: dict[str, Callable[[], Aligner]] = {
    "regroup_dask": ours,
    "ASPIRE align_BO": aspire,
    "torch-fit-in-map": torch_fit_in_map,
    "SimpleITK 60 starts": simpleitk,
}


def error_degrees(found: np.ndarray, truth: np.ndarray) -> float:
    """Angle to the truth, of the most favourable reading of a matrix."""
    flip = np.eye(3)[::-1]
    readings = [found, found.T, flip @ found @ flip, flip @ found.T @ flip]
    cosines = [(np.trace(reading.T @ truth) - 1) / 2 for reading in readings]
    return float(np.degrees(np.arccos(np.clip(max(cosines), -1, 1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    fft = fft_seconds()
    print(f"one 64^3 complex64 FFT: {1e3 * fft:.2f} ms")
    rows = []
    for name in arguments.tools.split(","):
        try:
            aligner = TOOLS[name]()
        except ImportError as error:
            print(f"{name}: not installed ({error})")
            continue
        if name == "regroup_dask":
            aligner(*make_pair(CONDITIONS[0], 0)[:2])  # compile first
            aligner.pair_seconds.clear()  # type: ignore[attr-defined]
        for condition in (condition for condition in CONDITIONS if arguments.only in condition.name):
            seconds, errors = [], []
            for seed in range(arguments.pairs):
                fixed, moving, truth = make_pair(condition, seed + 1)
                began = time.process_time()
                errors.append(error_degrees(aligner(fixed, moving), truth))
                seconds.append(time.process_time() - began)
            row = {
                "tool": name,
                "condition": condition.name,
                "cpu_seconds": statistics.median(seconds),
                "ffts": statistics.median(seconds) / fft,
                "median_degrees": statistics.median(errors),
                "failures": sum(error > 10 for error in errors),
                "pairs": arguments.pairs,
            }
            if name == "regroup_dask":
                warm = aligner.pair_seconds[-arguments.pairs :]  # type: ignore[attr-defined]
                row["cpu_seconds_prepared"] = statistics.median(warm)
            rows.append(row)
            print(
                f"{name:22s} {condition.name:28s} {row['cpu_seconds']:9.3f} s {row['ffts']:9.0f} FFTs "
                f"{row['median_degrees']:8.2f} degrees {row['failures']} of {row['pairs']} failed"
                + (f"; prepared {1e3 * row['cpu_seconds_prepared']:.1f} ms" if "cpu_seconds_prepared" in row else ""),
                flush=True,
            )
    print(json.dumps({"fft_seconds": fft, "rows": rows}))
    if arguments.json:
        arguments.json.write_text(json.dumps({"fft_seconds": fft, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
