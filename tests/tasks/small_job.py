"""A job of a few small maps and particles, made in a moment, and the content of an output folder to compare."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter

from regroup_dask.formats.mrc import write_mrc

VOXEL_SIZE_ANGSTROM = 4.0


class SmallJob(NamedTuple):
    volumes: list[Path]
    particles: Path
    structure_of_class: list[int]


def blobs(box: int, *, structure: int) -> np.ndarray:
    """A few soft balls; structures differ by one of them."""
    random = np.random.default_rng(7)
    volume = np.zeros((box,) * 3, np.float32)
    centres = random.uniform(0.32, 0.68, (7, 3)) * box
    centres[0] = np.array([[0.3, 0.5, 0.5], [0.7, 0.55, 0.4], [0.5, 0.3, 0.65]][structure]) * box
    for number, centre in enumerate(centres):
        volume[tuple(centre.astype(int))] += 1 + 0.2 * number
    return gaussian_filter(volume, box / 20).astype(np.float32) * box**3 / 100


def make_job(folder: Path, *, n_maps: int = 5, box: int = 24, n_particles: int = 600) -> SmallJob:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    structures = [index % 2 for index in range(n_maps)]
    volumes = []
    for index, structure in enumerate(structures):
        clean = blobs(box, structure=structure)
        noisy = clean + random.normal(0, 0.05 * clean.std() * (1 + index), clean.shape)
        volumes.append(folder / f"class_{index:02d}.mrc")
        write_mrc(volumes[-1], noisy.astype(np.float32), voxel_size_angstrom=VOXEL_SIZE_ANGSTROM)
    table = pa.table(
        {
            "uid": pa.array(random.permutation(n_particles).astype(np.uint64) + 10),
            "class_id": pa.array(random.integers(0, n_maps, n_particles).astype(np.int32)),
        }
    )
    particles = folder / "particles.parquet"
    pq.write_table(table, particles, row_group_size=max(1, n_particles // 4))
    return SmallJob(volumes, particles, structures)


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an output folder but those that tell of time, of the run itself and of where it lies."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html", "view.cxc")
    }
