"""Put maps into one frame, and measure place by place what they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.science import average, fourier, local_covariance
from regroup_dask.science.rotations import Pose
from regroup_dask.tasks import map_store
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory
from regroup_dask.tasks.prepare import MASK, WORKING

PLACED = "placed"


class PlaceUnit(NamedTuple):
    """Move one working map into the common frame and crop it; `pose` None leaves it where it is."""

    name: str
    position: int
    store: Path
    pose: Pose | None
    voxel_size_angstrom: float
    box: int


class PlacesUnit(NamedTuple):
    """Compare all placed maps place by place; the arrays are those of `local_covariance.local_covariance`."""

    name: str
    n_maps: int
    store: Path
    box: int
    signal_power: np.ndarray
    noise_power: np.ndarray
    noise_error: np.ndarray
    usable: np.ndarray
    radius_voxels: float
    spacing_voxels: float
    has_mask: bool


@kept_memory(MAP_BYTES)
def place_map(unit: PlaceUnit) -> Result:
    """Move and crop one map; the result goes to the store."""
    volume = map_store.read_field(unit.store, unit.position, WORKING)
    if unit.pose is not None:
        volume = average.move_map(
            volume,
            rotation=unit.pose.rotation,
            shift_voxel=unit.pose.shift_angstrom / unit.voxel_size_angstrom,
            mirrored=unit.pose.mirrored,
        )
    placed = fourier.fourier_crop(np.ascontiguousarray(volume, np.float32), unit.box)
    map_store.write_map(unit.store, unit.position, {PLACED: placed.astype(np.float32)})
    return {}


@kept_memory(MAP_BYTES)
def compare_places(unit: PlacesUnit) -> Result:
    """Second moments of all maps in every band and window; nothing where no two maps share a band."""
    volumes = np.array([map_store.read_field(unit.store, index, PLACED) for index in range(unit.n_maps)])
    squared = local_covariance.squared_radius(unit.box)
    region = (squared < unit.radius_voxels**2).astype(np.float32)
    if unit.has_mask:
        region *= np.clip(fourier.fourier_crop(map_store.read_field(unit.store, 0, MASK), unit.box), 0, 1)
    found = local_covariance.local_covariance(
        volumes,
        signal_power=unit.signal_power,
        noise_power=unit.noise_power,
        noise_error=unit.noise_error,
        usable=unit.usable,
        region=region,
        spacing_voxels=unit.spacing_voxels,
    )
    return {} if found is None else {name: np.asarray(value) for name, value in found._asdict().items()}


def places_bytes(n_maps: int, box: int) -> int:
    """Memory that comparing the places of some maps needs: maps, one band of them, windows."""
    return 4 * box**3 * (3 * n_maps + 220)
