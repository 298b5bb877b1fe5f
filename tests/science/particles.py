"""Synthetic particles for tests: sums of Gaussian balls, whose maps at any pose are exact."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def blobs(
    rng: np.random.Generator, *, count: int = 60, radius: float = 16.0, symmetry: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (count, 3) as x, y, z in voxels and masses of an irregular particle."""
    centres = rng.normal(size=(count, 3)) * radius * np.array([0.5, 0.42, 0.34])
    centres += 0.18 * radius * np.sign(centres) * np.array([1.0, 0.2, 0.6])
    length = np.linalg.norm(centres, axis=1)
    centres *= np.minimum(1.0, radius / np.maximum(length, 1e-9))[:, None]
    masses = rng.uniform(0.4, 1.6, size=count)
    if symmetry > 1:
        turns = Rotation.from_euler("z", 2 * np.pi * np.arange(symmetry)[:, None] / symmetry).as_matrix()
        centres = np.concatenate([centres @ t.T for t in turns])
        masses = np.tile(masses, symmetry)
    return centres, masses


def render(
    centres: np.ndarray,
    masses: np.ndarray,
    *,
    box: int,
    width: float = 1.8,
    rotation: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    mirrored: bool = False,
) -> np.ndarray:
    """Return the map (box, box, box) of Gaussian balls moved by a pose, in voxels; exact but for sampling."""
    moved = -centres if mirrored else centres
    if rotation is not None:
        moved = moved @ rotation.T
    if shift is not None:
        moved = moved + shift
    axis = np.arange(box) - box // 2
    x, y, z = (np.exp(-0.5 * ((axis[None, :] - moved[:, [a]]) / width) ** 2) for a in range(3))
    return np.einsum("p,pz,py,px->zyx", masses, z, y, x, optimize=True).astype(np.float32)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly random rotation matrix."""
    return Rotation.from_quat(rng.normal(size=4)).as_matrix()


def random_shift(rng: np.random.Generator, longest: float) -> np.ndarray:
    """Return a shift uniform in a ball."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector) * longest * rng.uniform() ** (1 / 3)
