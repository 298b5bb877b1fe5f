"""Maps on disk with headers as real programs leave them, written by the mrcfile package."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np


def density(box: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(box, box, box)).astype(np.float32)


def write_with_mrcfile(
    path: Path, values: np.ndarray, *, voxel_size: float | tuple = 2.5, **fields: Any
) -> Path:
    """Write with mrcfile, then set header fields as `nxstart=`, or nested ones as `cellb={"beta": 94.3}`."""
    with mrcfile.new(path, values, overwrite=True) as file:
        file.set_volume()
        file.voxel_size = voxel_size
        for name, value in fields.items():
            if isinstance(value, dict):
                for inner, number in value.items():
                    file.header[name][inner] = number
            else:
                file.header[name] = value
    return path
