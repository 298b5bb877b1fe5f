"""MRC maps: the density, whole or slab by slab; import all about MRC from here."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.mrc_header import (
    LARGEST_VOXEL_ANGSTROM,
    SMALLEST_VOXEL_ANGSTROM,
    MapHeader,
    check_class_map,
    read_header,
    unpack,
)
from regroup_dask.formats.mrc_writer import write_mrc
from regroup_dask.formats.remote_array import mapped
from regroup_dask.formats.slabs import slab_ranges

__all__ = [
    "LARGEST_VOXEL_ANGSTROM",
    "SMALLEST_VOXEL_ANGSTROM",
    "MapHeader",
    "check_class_map",
    "checked_slabs",
    "open_data",
    "read_checked",
    "read_header",
    "release_pages",
    "slab_ranges",
    "write_mrc",
]


def open_data(header: MapHeader) -> np.ndarray:
    """Values of the map as an array [z, y, x] of the file's own dtype.

    Memory-mapped, so that slabs can be read without the rest; of a file in an object store only the slabs asked for
    are fetched. A compressed file is unpacked in memory.

    Raises
    ------
    InputError
        A compressed file that ends early or is damaged.
    """
    if header.compression:
        values = np.frombuffer(unpack(header), dtype=header.dtype)
        stored = values.reshape(header.file_shape)
    else:
        sections_first = header.transpose[0] == 0
        stored = mapped(
            header.path, header.dtype, offset=header.data_offset, shape=header.file_shape, by_ranges=sections_first
        )
    return stored.transpose(header.transpose)


def read_checked(values: np.ndarray, path: str) -> np.ndarray:
    """Copy density into memory as float32, and refuse what is not finite or does not vary.

    Parameters
    ----------
    values : array_like [z, y, x]
        Anything that can be cut along the first axis.
    path : str
        Named in the error.

    Returns
    -------
    float32[z, y, x], C-contiguous

    Raises
    ------
    InputError
    """
    density = np.empty(cast(tuple[int, int, int], tuple(values.shape)), dtype=np.float32)
    first = 0
    for slab in checked_slabs(values, path):
        density[first : first + len(slab)] = slab
        first += len(slab)
    return density


def checked_slabs(values: np.ndarray, path: str) -> Iterator[np.ndarray]:
    """Give consecutive slabs of density as float32, and refuse what is not finite or, in the end, does not vary.

    Parameters
    ----------
    values : array_like [z, y, x]
        Anything that can be cut along the first axis.
    path : str
        Named in the error.

    Raises
    ------
    InputError
    """
    lowest, highest = math.inf, -math.inf
    for begin, end in slab_ranges(cast(tuple[int, int, int], tuple(values.shape))):
        slab = np.array(values[begin:end], dtype=np.float32, order="C")
        release_pages(values)
        low, high = float(slab.min()), float(slab.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            section = begin + int(np.flatnonzero(~np.isfinite(slab).all(axis=(1, 2)))[0])
            raise InputError(
                f"{path} has values that are not finite (NaN or infinite), the first in section z = "
                f"{section}."
            )
        lowest, highest = min(lowest, low), max(highest, high)
        yield slab
    if lowest == highest:
        raise InputError(f"{path} is constant: every voxel is {lowest:g}, so there is nothing to compare.")


def release_pages(values: Any) -> None:
    """Let go of the pages that reading from a memory map brought in; they are read again when needed.

    They are the system's cache and cost nothing, but count as this process's memory, and Dask pauses a worker
    for it.
    """
    mapping = getattr(values, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
