"""Superclass maps: the real-space average of the class maps in the superclass frame, in slabs."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import storing
from regroup_dask.formats.mrc_writer import write_mrc
from regroup_dask.formats.remote_array import load_mapped
from regroup_dask.formats.volume_store import open_superclass, read_slabs, write_slab
from regroup_dask.formats.volumes import VolumeReference, open_map
from regroup_dask.science import average, masks
from regroup_dask.science.rotations import Pose
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory


class Member(NamedTuple):
    """A class of a superclass: its map, its pose into the superclass frame; its spline coefficients and solvent if it moves."""

    reference: VolumeReference
    pose: Pose
    coefficients: Path | None
    solvent_level: float = 0.0


class SplineUnit(NamedTuple):
    """Filter one map to spline coefficients, kept in a scratch file."""

    name: str
    reference: VolumeReference
    path: Path

    @property
    def about(self) -> str:
        """The map."""
        return self.reference.path


class AverageUnit(NamedTuple):
    """Some planes of one superclass map."""

    name: str
    superclass: int
    first_plane: int
    last_plane: int
    members: tuple[Member, ...]
    store: Path

    @property
    def about(self) -> str:
        """The superclass, the planes and the maps."""
        maps = ", ".join(member.reference.name for member in self.members)
        return f"superclass {self.superclass}, planes {self.first_plane} to {self.last_plane - 1} of {maps}"


class MapFileUnit(NamedTuple):
    """Write one superclass map as an MRC file; `checksums` are those of its slabs, in order."""

    name: str
    store: Path
    superclass: int
    path: Path
    voxel_size_angstrom: float
    checksums: tuple[int, ...]


@kept_memory(MAP_BYTES)
def filter_map(unit: SplineUnit) -> Result:
    """Write the cubic spline coefficients of one map; returns the ``level`` of its solvent."""
    volume = open_map(unit.reference)
    with storing.whole_file(unit.path) as partial:
        _reserve_array(partial, volume.shape)
        coefficients = np.lib.format.open_memmap(partial, mode="r+")
        average.spline_coefficients(volume, out=coefficients)
        coefficients.flush()
        del coefficients
    return {"level": np.asarray(masks.solvent_level(volume), np.float64)}


def _reserve_array(path: Path, shape: tuple[int, ...]) -> None:
    """Make a NumPy file of float32 and take its room: a full disk under a mapping would kill the process by SIGBUS."""
    with open(path, "wb") as stream:
        try:
            description = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, description)
            stream.flush()
            os.posix_fallocate(stream.fileno(), 0, stream.tell() + 4 * math.prod(shape))
        except OSError:
            path.unlink(missing_ok=True)
            raise


@kept_memory(MAP_BYTES)
def average_slab(unit: AverageUnit) -> Result:
    """Average some planes over the members of a superclass and write them to the store."""
    box = unit.members[0].reference.box
    total = np.zeros((unit.last_plane - unit.first_plane, box, box))
    for member in unit.members:
        if member.coefficients is None:
            volume = open_map(member.reference)
            total += np.asarray(volume[unit.first_plane : unit.last_plane], np.float64)
        else:
            average.add_moved_slab(
                load_mapped(member.coefficients),
                rotation=member.pose.rotation,
                shift_voxel=member.pose.shift_angstrom / member.reference.voxel_size_angstrom,
                mirrored=member.pose.mirrored,
                first_plane=unit.first_plane,
                total=total,
                outside=member.solvent_level,
            )
    planes = (total / len(unit.members)).astype(np.float32)
    write_slab(unit.store, unit.superclass, unit.first_plane, planes)
    return {"checksum": np.asarray(zlib.crc32(planes.data), np.int64)}


@kept_memory(MAP_BYTES)
def write_map_file(unit: MapFileUnit) -> Result:
    """Copy one superclass map from the store to an MRC file, slab by slab.

    Raises
    ------
    DamagedStoreError
        A slab is not what was written.
    """
    volume = open_superclass(unit.store, unit.superclass)

    def checked() -> Iterator[np.ndarray]:
        for number, slab in enumerate(read_slabs(volume)):
            if zlib.crc32(np.ascontiguousarray(slab, np.float32).data) != unit.checksums[number]:
                raise DamagedStoreError(
                    f"Slab {number} of superclass {unit.superclass} in {unit.store} is damaged or missing: give the "
                    "same command with --resume, and it is made again.",
                    unit.superclass,
                )
            yield slab

    write_mrc(unit.path, checked(), box=volume.shape[0], voxel_size_angstrom=unit.voxel_size_angstrom)
    return {}
