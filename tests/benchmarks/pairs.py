"""Speed, accuracy and failures of pairwise alignment on synthetic particles, in units of one FFT of the same run.

    python -m tests.benchmarks.pairs [--quick] [--repeats N] [--part I/N] [--job FOLDER ...] [--json FILE]

Particles are sums of Gaussian balls, so that a map at any pose is exact. A failure is a rotation more than 10
degrees from the truth (symmetry of the particle allowed for); it is a search failure when the true pose,
refined, has the higher score (the weighted correlation that the search maximizes); with the higher plain
correlation it is counted too. Times are CPU times of one thread, per pair of prepared maps, warm, as a
multiple of one complex64 FFT of 64^3 voxels (scipy.fft). With ``--job`` all pairs of a simulated job with its
truth.json are aligned too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from regroup_dask.science import align, pair_problem
from regroup_dask.science.fourier import fourier_crop
from regroup_dask.science.masks import estimate_extent, soft_sphere
from regroup_dask.science.rotations import rotation_angle_degrees
from tests.science.particles import blobs, random_rotation, random_shift, render

VOXEL_ANGSTROM = 4.0


class Condition(NamedTuple):
    """One kind of pair."""

    name: str
    box: int = 64
    radius: float = 20.0
    snr: float | None = None
    missing: float = 0.0
    symmetry: int = 1
    odd_mass: float = 0.0  # part of the mass that breaks the symmetry
    width: float = 1.5
    moving_width: float | None = None
    hand: str = "off"
    shift: float = 0.15
    balls: int = 90
    masked: bool = True


CONDITIONS = (
    Condition("clean"),
    Condition("SNR 0.5", snr=0.5),
    Condition("SNR 0.05", snr=0.05),
    Condition("SNR 0.02", snr=0.02),
    Condition("SNR 0.01", snr=0.01),
    Condition("quarter missing", missing=0.25),
    Condition("half missing, SNR 0.5", missing=0.5, snr=0.5),
    Condition("quarter missing, SNR 0.05", missing=0.25, snr=0.05),
    Condition("large", radius=25.0, shift=0.06, balls=160),
    Condition("large, SNR 0.05", radius=25.0, snr=0.05, shift=0.06, balls=160),
    Condition("small", radius=10.0, balls=30, shift=0.25),
    Condition("small, SNR 0.2", radius=10.0, balls=30, snr=0.2, shift=0.25),
    Condition("small, SNR 0.05", radius=10.0, balls=30, snr=0.05, shift=0.25),
    Condition("small, SNR 0.02", radius=10.0, balls=30, snr=0.02, shift=0.25),
    Condition("pseudo C2", symmetry=2, odd_mass=0.08),
    Condition("pseudo C4, SNR 0.5", symmetry=4, odd_mass=0.08, snr=0.5, balls=20),
    Condition("pseudo C7, SNR 0.2", symmetry=7, odd_mass=0.08, snr=0.2, balls=12),
    Condition("pseudo C7, SNR 0.05", symmetry=7, odd_mass=0.08, snr=0.05, balls=12),
    Condition("C4", symmetry=4, balls=20),
    Condition("C2, subunit missing", symmetry=2, odd_mass=0.08, missing=0.25),
    Condition("fine and coarse map", moving_width=4.0),
    Condition("fine and coarse, SNR 0.2", moving_width=4.0, snr=0.2),
    Condition("fine and coarse, quarter missing", moving_width=3.0, missing=0.25, snr=0.5),
    Condition("shift 25 %, SNR 0.2", shift=0.25, radius=14.0, snr=0.2),
    Condition("no mask, SNR 0.05", snr=0.05, masked=False),
    Condition("box 65, SNR 0.2", box=65, snr=0.2),
    Condition("box 48, SNR 0.2", box=48, radius=14.0, snr=0.2),
    Condition("box 32", box=32, radius=9.0, balls=30),
    Condition("box 33, SNR 0.5", box=33, radius=9.0, balls=30, snr=0.5),
    Condition("either hand", hand="detect"),
    Condition("either hand, SNR 0.05", hand="detect", snr=0.05),
    Condition("either hand, SNR 0.02", hand="detect", snr=0.02),
    Condition("either hand, quarter missing", hand="detect", missing=0.25, snr=0.5),
    Condition("either hand, small, SNR 0.2", hand="detect", radius=10.0, balls=30, snr=0.2, shift=0.25),
    Condition("either hand, large", hand="detect", radius=25.0, shift=0.06, balls=160, snr=0.1),
    Condition("either hand, pseudo C4", hand="detect", symmetry=4, odd_mass=0.08, snr=0.5, balls=20),
    Condition("either hand, box 65", hand="detect", box=65, snr=0.2),
    Condition("either hand, box 33", hand="detect", box=33, radius=9.0, balls=30, snr=0.5),
    Condition("either hand, two resolutions", hand="detect", moving_width=3.0, snr=0.2),
)


class Trial(NamedTuple):
    """Two maps and the pose (voxels) that takes the second onto the first."""

    fixed: np.ndarray
    moving: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    mirrored: bool
    centre: np.ndarray  # of the particle in the second map


def make_trial(condition: Condition, seed: int) -> Trial:
    """Make one pair of maps of a condition."""
    rng = np.random.default_rng([seed, *condition.name.encode()])
    centres, masses = blobs(rng, count=condition.balls, radius=condition.radius, symmetry=condition.symmetry)
    if condition.odd_mass:
        extra, weight = blobs(rng, count=max(3, len(masses) // 12), radius=0.9 * condition.radius)
        weight *= condition.odd_mass * masses.sum() / weight.sum()
        spot = random_shift(rng, 1.0) + np.array([1.0, 0.3, 0.2])
        extra = 0.25 * extra + 0.6 * condition.radius * spot / np.linalg.norm(spot)
        centres, masses = np.concatenate([centres, extra]), np.concatenate([masses, weight])
    centres = centres - masses @ centres / masses.sum()
    kept = np.ones(len(masses), dtype=bool)
    if condition.missing:
        direction = random_rotation(rng)[0]
        order = np.argsort(centres @ direction)
        kept[order[np.cumsum(masses[order]) < condition.missing * masses.sum()]] = False
    rotation, shift = random_rotation(rng), random_shift(rng, condition.shift * condition.box)
    mirrored = condition.hand == "detect" and bool(rng.random() < 0.5)
    room = 0.44 * condition.box - condition.radius - 2.5 * condition.width
    length = float(np.linalg.norm(shift))
    start = np.zeros(3)
    if length > room > 0:  # share the shift between the maps, so that both particles stay in the box
        start = -0.5 * shift @ rotation * (-1.0 if mirrored else 1.0)
    moving = render(
        centres + start, masses, box=condition.box, width=condition.moving_width or condition.width
    )
    fixed = render(
        (centres + start)[kept],
        masses[kept],
        box=condition.box,
        width=condition.width,
        rotation=rotation,
        shift=shift,
        mirrored=mirrored,
    )
    maps = []
    for volume in (fixed, moving):
        if condition.snr is not None:
            inside = volume > 0.05 * volume.max()
            sigma = float(np.sqrt(volume[inside].var() / condition.snr))
            volume = volume + rng.normal(scale=sigma, size=volume.shape).astype(np.float32)
        if condition.masked:
            volume = volume * soft_sphere(condition.box, inner_radius_fraction=0.88)
        maps.append(volume)
    return Trial(maps[0], maps[1], rotation, shift, mirrored, start)


def plan_for(
    maps: list[np.ndarray], voxel: float, hand: str, resolution: float | None = None
) -> align.AlignmentPlan:
    """Plan an alignment from the maps themselves."""
    box = maps[0].shape[0]
    return align.plan_alignment(
        box=box,
        voxel_size_angstrom=voxel,
        particle_radius_angstrom=max(estimate_extent(volume).radius_voxels for volume in maps) * voxel,
        resolution_angstrom=resolution,
        maximum_shift_angstrom=0.25 * box * voxel,
        hand=hand,
    )


def fft_seconds(repeats: int = 60) -> float:
    """Return the median time of one complex64 FFT of 64^3 voxels."""
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(64, 64, 64)) + 1j * rng.normal(size=(64, 64, 64))).astype(np.complex64)
    times = []
    for _ in range(repeats + 10):
        start = time.thread_time()
        scipy.fft.fftn(data, workers=1)
        times.append(time.thread_time() - start)
    return float(np.median(times[10:]))


def symmetric_error(found: np.ndarray, truth: np.ndarray, fold: int) -> float:
    """Return the angle to the nearest pose that is the truth up to a symmetry about the moving map's z."""
    turns = Rotation.from_euler("z", 2 * np.pi * np.arange(fold)[:, None] / fold).as_matrix()
    return float(rotation_angle_degrees(found, truth @ turns).min())


def centre_error(found: align.PairAlignment, trial: Trial) -> float:
    """Return how far, in voxels, the found pose takes the particle's centre from where the true one does."""
    landed = (-1.0 if found.mirrored else 1.0) * found.rotation @ trial.centre + found.shift_angstrom / VOXEL_ANGSTROM
    true = (-1.0 if trial.mirrored else 1.0) * trial.rotation @ trial.centre + trial.shift
    return float(np.linalg.norm(landed - true))


def run_condition(condition: Condition, repeats: int, first_seed: int = 0) -> dict[str, object]:
    """Align pairs of one condition and sum up."""
    fold = condition.symmetry if not condition.odd_mass else 1
    degrees, voxels, times, confidences = [], [], [], []
    failures = search_failures = plain_failures = wrong_hand = 0
    fft = fft_seconds(20)
    for seed in range(first_seed, first_seed + repeats):
        trial = make_trial(condition, seed)
        plan = plan_for([trial.fixed, trial.moving], VOXEL_ANGSTROM, condition.hand)
        fixed, moving = align.prepare_map(trial.fixed, plan), align.prepare_map(trial.moving, plan)
        if not times:
            align.align_pair(fixed, moving, plan)
        best = np.inf
        for _ in range(3):
            start = time.thread_time()
            found = align.align_pair(fixed, moving, plan)
            best = min(best, time.thread_time() - start)
        times.append(best)
        error = symmetric_error(found.rotation, trial.rotation, fold)
        wrong = found.mirrored != trial.mirrored
        degrees.append(error)
        confidences.append(found.confidence)
        voxels.append(centre_error(found, trial))
        if error > 10 or wrong:
            failures += 1
            wrong_hand += wrong
            truth = align.refine_pair(
                fixed,
                moving,
                plan,
                rotation=trial.rotation,
                shift_angstrom=trial.shift * VOXEL_ANGSTROM,
                mirrored=trial.mirrored,
            )
            plain_failures += truth.correlation > found.correlation + 1e-6
            search_failures += (
                search_score(fixed, moving, plan, truth) > search_score(fixed, moving, plan, found) + 1e-5
            )
    return {
        "condition": condition.name,
        "pairs": repeats,
        "median_degrees": float(np.median(degrees)),
        "p90_degrees": float(np.quantile(degrees, 0.9)),
        "median_voxels": float(np.median(voxels)),
        "failures": failures,
        "search_failures": int(search_failures),
        "plain_failures": int(plain_failures),
        "wrong_hand": int(wrong_hand),
        "median_confidence": float(np.median(confidences)),
        "median_seconds": float(np.median(times)),
        "ffts": float(np.median(times)) / min(fft, fft_seconds(20)),
    }


def search_score(
    fixed: align.PreparedMap, moving: align.PreparedMap, plan: align.AlignmentPlan, pose: align.PairAlignment
) -> float:
    """Return the weighted correlation of the particle boxes at a pose, which the search maximizes."""
    problem = pair_problem.pair_problem(fixed, moving, plan)
    hand = -1.0 if pose.mirrored else 1.0
    shift = pose.shift_angstrom / plan.voxel_size_angstrom - problem.centre_term(pose.rotation, hand)
    poses = pair_problem.CandidatePoses(pose.rotation[None], shift[None], np.array([hand]), np.zeros(1))
    return float(pair_problem.refine_over(problem, poses, plan.finest_shell, 4, 0.01).score[0])


def run_job(folder: Path, hand: str, box: int = 64) -> dict[str, object]:
    """Align all pairs of a simulated job and compare with its truth.json."""
    import mrcfile

    fft = fft_seconds(20)
    truth = json.loads((folder / "truth.json").read_text())
    classes = truth["classes"]
    voxel = truth["pixel_A"] * truth["box"] / box
    maps = [fourier_crop(mrcfile.read(folder / c["relion_map"]).astype(np.float32), box) for c in classes]
    plan = plan_for(maps, voxel, hand, min(c["resolution_A"] for c in classes))
    prepared = [align.prepare_map(volume, plan) for volume in maps]
    rotations = np.array([c["rotation_matrix"] for c in classes])
    shifts = np.array([c["shift_A"] for c in classes])
    degrees, voxels, times, search_failures = [], [], [], 0
    align.align_pair(prepared[0], prepared[1], plan)
    for i in range(len(maps)):
        for j in range(i + 1, len(maps)):
            start = time.thread_time()
            found = align.align_pair(prepared[i], prepared[j], plan)
            times.append(time.thread_time() - start)
            rotation = rotations[i] @ rotations[j].T
            shift = shifts[i] - rotation @ shifts[j]
            degrees.append(float(rotation_angle_degrees(found.rotation, rotation)))
            voxels.append(float(np.linalg.norm(found.shift_angstrom - shift)) / voxel)
            if degrees[-1] > 10 or found.mirrored:
                exact = align.refine_pair(
                    prepared[i], prepared[j], plan, rotation=rotation, shift_angstrom=shift
                )
                search_failures += search_score(prepared[i], prepared[j], plan, exact) > search_score(
                    prepared[i], prepared[j], plan, found
                )
    return {
        "condition": f"job {folder.name}",
        "pairs": len(degrees),
        "median_degrees": float(np.median(degrees)),
        "p90_degrees": float(np.quantile(degrees, 0.9)),
        "worst_degrees": float(np.max(degrees)),
        "above_2_degrees": int(np.sum(np.array(degrees) > 2)),
        "median_voxels": float(np.median(voxels)),
        "failures": int(np.sum(np.array(degrees) > 10)),
        "search_failures": int(search_failures),
        "wrong_hand": 0,
        "plain_failures": 0,
        "median_confidence": float("nan"),
        "median_seconds": float(np.median(times)),
        "ffts": float(np.median(times)) / min(fft, fft_seconds(20)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few pairs per condition")
    parser.add_argument("--repeats", type=int, default=None, help="pairs per condition (12; 4 when quick)")
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every N-th condition from the I-th, for runs in pieces")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first pair of each condition")
    parser.add_argument("--job", type=Path, action="append", default=[], help="simulated job with truth.json")
    parser.add_argument("--job-hand", choices=["off", "detect"], default="off")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    options = parser.parse_args(arguments)
    repeats = options.repeats or (4 if options.quick else 12)
    fft = fft_seconds()
    head = (
        f"{'condition':30s} {'pairs':>5s} {'x FFT':>6s} {'ms':>6s} {'deg':>8s} {'deg 90%':>8s} {'voxel':>7s} "
    )
    print(
        f"one 64^3 complex64 FFT: {1e3 * fft:.3f} ms\n"
        + head
        + f"{'fail':>5s} {'search':>6s} {'plain':>5s} {'hand':>5s} {'conf':>6s}"
    )
    rows = []

    def show(row: dict[str, object]) -> None:
        rows.append(row)
        print(
            f"{row['condition']:30s} {row['pairs']:5d} {row['ffts']:6.2f} {1e3 * row['median_seconds']:6.2f} "
            f"{row['median_degrees']:8.4f} {row['p90_degrees']:8.3f} {row['median_voxels']:7.4f} "
            f"{row['failures']:5d} {row['search_failures']:6d} {row['plain_failures']:5d} "
            f"{row['wrong_hand']:5d} {row['median_confidence']:6.1f}",
            flush=True,
        )

    piece, pieces = (int(number) for number in options.part.split("/"))
    for condition in CONDITIONS[piece - 1 :: pieces]:
        if options.only in condition.name:
            show(run_condition(condition, repeats, options.first_seed))
    for folder in options.job:
        show(run_job(folder, options.job_hand))
    result = {
        "fft_seconds": fft,
        "median_ffts": float(np.median([row["ffts"] for row in rows])),
        "failures": int(sum(row["failures"] for row in rows)),
        "search_failures": int(sum(row["search_failures"] for row in rows)),
        "above_6_ffts": [row["condition"] for row in rows if row["ffts"] > 6],
        "conditions": rows,
    }
    text = json.dumps(result)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
