"""Make the demo's job: a CryoSPARC folder of class maps and particles, and the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy.spatial.transform import Rotation

from regroup_dask.demo.maps import ClassQuality, class_map, density_of
from regroup_dask.demo.particles import (
    ClassPoses,
    assign_particles,
    particle_table,
    passthrough_table,
    write_table,
)
from regroup_dask.demo.structures import STATES, fold_subunits, state_residues
from regroup_dask.demo.truth import PARTICLES_FILE, ClassTruth, DemoTruth, write_truth
from regroup_dask.formats.mrc import write_mrc

JOB_NAME = "J42"
N_SUPERCLASSES = len(STATES)
MINIMUM_CLASS_SIZE = 400

DEFAULT_PARTICLES = 20000
DEFAULT_SEED = 20260501
BOX_ANGSTROM = 256.0
LARGEST_SHIFT_ANGSTROM = 10.0
PARTICLES_PER_MICROGRAPH = 60
ITERATION = 85
JUNK = -1
# Noise of a class of all particles, in units of the signal's mean power: the largest class then reaches 9 A
# and the smallest 15 A.
NOISE = 1.4e-2

# share of the particles of each class of each state, and of the junk class
SHARES = {
    0: (0.17, 0.11, 0.07, 0.04),
    1: (0.13, 0.08, 0.05),
    2: (0.11, 0.06),
    3: (0.10, 0.05),
    JUNK: (0.008,),
}


class _Class(NamedTuple):
    state: int
    quality: ClassQuality
    rotation: np.ndarray
    shift_angstrom: np.ndarray


def simulate_job(
    folder: str | Path, *, n_particles: int = DEFAULT_PARTICLES, box: int = 64, seed: int = DEFAULT_SEED
) -> DemoTruth:
    """Simulate a heterogeneous refinement of a synthetic complex.

    Parameters
    ----------
    folder : str or Path
        Made if need be; gets the job folder `J42`, truth.json and truth_particles.parquet.
    n_particles : int
    box : int
        Voxels per axis of the class maps, which are 256 A wide whatever the box.
    seed : int
        The same seed gives the same bytes.

    Returns
    -------
    DemoTruth
    """
    folder = Path(folder)
    job = folder / JOB_NAME
    job.mkdir(parents=True, exist_ok=True)
    voxel_size = BOX_ANGSTROM / box
    rng = np.random.default_rng(seed)
    folded = fold_subunits(rng)
    classes = _draw_classes(rng)
    truths = []
    for class_id, one in enumerate(classes):
        volume, resolution = _volume(one, folded, box, voxel_size, np.random.default_rng([seed, class_id]))
        name = f"cryosparc_P1_{JOB_NAME}_class_{class_id:02d}_{ITERATION:05d}_volume.mrc"
        write_mrc(job / name, volume, voxel_size_angstrom=voxel_size, label="synthetic complex, simulated")
        truths.append(
            ClassTruth(
                class_id=class_id,
                state=one.state,
                share=one.quality.share,
                resolution_angstrom=float(resolution),
                gain=one.quality.gain,
                rotation=one.rotation.tolist(),
                shift_angstrom=one.shift_angstrom.tolist(),
            )
        )
    _write_particles(folder, job, classes, n_particles, box, voxel_size, rng)
    (job / "job.json").write_text('{"type": "hetero_refine"}\n', encoding="utf-8")
    truth = DemoTruth(
        folder=str(folder),
        seed=seed,
        box=box,
        voxel_size_angstrom=voxel_size,
        n_particles=n_particles,
        states=[state.name for state in STATES],
        classes=truths,
    )
    write_truth(truth)
    return truth


def _draw_classes(rng: np.random.Generator) -> list[_Class]:
    """Give every class its state, size, blur, scale and pose, in an order that says nothing of the states."""
    total = sum(sum(shares) for shares in SHARES.values())
    drawn = []
    for state, shares in SHARES.items():
        for share in shares:
            quality = ClassQuality(
                share=share / total,
                blur_square_angstrom=float(rng.uniform(100, 350)),
                gain=float(rng.uniform(0.6, 1.6)),
            )
            direction = rng.normal(size=3)
            length = LARGEST_SHIFT_ANGSTROM * np.cbrt(rng.random())
            shift = length * direction / np.linalg.norm(direction)
            drawn.append(_Class(state, quality, Rotation.random(random_state=rng).as_matrix(), shift))
    return [drawn[index] for index in rng.permutation(len(drawn))]


def _volume(
    one: _Class, folded: dict[str, np.ndarray], box: int, voxel_size: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    # what junk averages to is a ball without features
    is_junk = one.state == JUNK
    residues = rng.normal(0, 28.0, (1800, 3)) if is_junk else state_residues(folded, STATES[one.state])
    density = density_of(
        residues @ one.rotation.T + one.shift_angstrom, box=box, voxel_size_angstrom=voxel_size
    )
    noise_power = NOISE * float(np.square(density).sum()) * (voxel_size / 4.0) ** 3
    return class_map(density, one.quality, voxel_size_angstrom=voxel_size, noise_power=noise_power, rng=rng)


def _write_particles(
    folder: Path,
    job: Path,
    classes: list[_Class],
    n_particles: int,
    box: int,
    voxel_size: float,
    rng: np.random.Generator,
) -> None:
    shares = np.array([one.quality.share for one in classes])
    assigned = assign_particles(n_particles, shares, np.array([one.state for one in classes]), rng)
    uid = rng.integers(1, 2**63 - 1, n_particles, dtype=np.uint64)
    micrograph = np.sort(rng.integers(0, max(1, n_particles // PARTICLES_PER_MICROGRAPH), n_particles))
    poses = ClassPoses(
        np.array([one.rotation for one in classes]), np.array([one.shift_angstrom for one in classes])
    )
    table = particle_table(assigned, poses, uid, micrograph, voxel_size_angstrom=voxel_size, box=box, rng=rng)
    write_table(job / f"cryosparc_P1_{JOB_NAME}_{ITERATION:05d}_particles.cs", table)
    write_table(
        job / f"P1_{JOB_NAME}_passthrough_particles_all_classes.cs", passthrough_table(uid, micrograph, rng)
    )
    pyarrow.parquet.write_table(
        pa.table({"uid": uid, "state": assigned.state.astype(np.int32)}), folder / PARTICLES_FILE
    )
