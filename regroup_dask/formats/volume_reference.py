"""One class map where it lies, read whole or slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import mrc
from regroup_dask.formats.zarr_volumes import open_zarr_array


@dataclass(frozen=True)
class VolumeReference:
    """Where one class map lies.

    Attributes
    ----------
    class_id : int
        Zero-based.
    name : str
    path : str
        An MRC file, or a 4-D zarr array.
    kind : {"mrc", "zarr"}
    index : int
        Along the first dimension of the zarr array; 0 for MRC.
    box : int
        Voxels per axis.
    voxel_size_angstrom : float
        Of the series, so that all its maps have one.
    half_map_paths : tuple of str, or None
    """

    class_id: int
    name: str
    path: str
    kind: Literal["mrc", "zarr"]
    index: int
    box: int
    voxel_size_angstrom: float
    half_map_paths: tuple[str, str] | None = None


class VolumeSeries(NamedTuple):
    """Class maps of one box and voxel size, by increasing class id."""

    references: tuple[VolumeReference, ...]
    box: int
    voxel_size_angstrom: float


class LazyMap:
    """One map [z, y, x] on disk; what is indexed of it is read, as a new float32 array.

    Parameters
    ----------
    values : memory map or zarr array
    index : int, optional
        Along the first dimension of a 4-D array.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, values: Any, index: int | None = None) -> None:
        self._values = values
        self._index = index
        self.shape = cast(tuple[int, int, int], tuple(values.shape[-3:]))

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._index is not None:
            key = (self._index, *(key if isinstance(key, tuple) else (key,)))
        read = np.array(self._values[key], dtype=np.float32, order="C")
        mrc.release_pages(self._values)
        return read

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


def open_map(reference: VolumeReference) -> LazyMap:
    """Open a map for reading slabs of it: `open_map(reference)[10:20]` is float32[10, y, x].

    Nothing is loaded before it is indexed, but for a compressed MRC file, which is unpacked in memory as it
    is stored.

    Raises
    ------
    InputError
        The file is gone, is damaged, or has another box than when it was found.
    """
    if reference.kind == "zarr":
        opened = LazyMap(open_zarr_array(reference.path), reference.index)
    else:
        opened = LazyMap(mrc.open_data(mrc.read_header(reference.path)))
    if opened.shape != (reference.box,) * 3:
        raise InputError(
            f"{reference.path} has changed: its box was {reference.box} and its shape is now {opened.shape}."
        )
    return opened


def checked_map_slabs(reference: VolumeReference) -> Iterator[np.ndarray]:
    """Give consecutive slabs of a map, float32[dz, y, x]; raises `InputError` as `read_map` does."""
    return mrc.checked_slabs(cast(np.ndarray, open_map(reference)), _name(reference))


def read_map(reference: VolumeReference) -> np.ndarray:
    """Read a whole map.

    Returns
    -------
    float32[z, y, x], C-contiguous, finite and not constant

    Raises
    ------
    InputError
        The map is constant, has NaN or infinite values, or cannot be read.
    """
    return mrc.read_checked(cast(np.ndarray, open_map(reference)), _name(reference))


def _name(reference: VolumeReference) -> str:
    return f"{reference.path}[{reference.index}]" if reference.kind == "zarr" else reference.path
