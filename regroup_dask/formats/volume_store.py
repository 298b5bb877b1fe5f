"""Superclass maps as one sharded zarr store that xarray opens: a template written once, then slabs by many workers.

A shard is one file or object, the slab of planes that one task writes, and holds chunks small enough for a viewer to
fetch what it shows. Two writers of one shard lose each other's data without a word, so a slab must be a whole shard;
this is checked before anything is written.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from regroup_dask.formats import storage, storing
from regroup_dask.formats.new_store import new_store
from regroup_dask.formats.slabs import slab_ranges
from regroup_dask.formats.volume_reference import LazyMap
from regroup_dask.formats.zarr_volumes import open_zarr_array

VARIABLE = "volume"
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
COPY_BYTES = 2**22
LARGEST_CHUNK_EDGE = 64
"""Voxels: 1 MiB of float32 in a cube, as viewers like it."""


class Layout(NamedTuple):
    """Shape of the chunks of a map and of the shards they are packed in, (z, y, x)."""

    chunk: tuple[int, int, int]
    shard: tuple[int, int, int]


def layout_of_box(box: int) -> Layout:
    """Choose shards of whole planes, about 16 MiB each, of chunks as equal as they can be.

    A shard is whole chunks, so that it may reach beyond the box by less than a voxel for each chunk.
    """
    begin, end = slab_ranges((box, box, box))[0]
    chunk, shard = zip(*(_cut(length) for length in (end - begin, box, box)), strict=True)
    return Layout(chunk, shard)


def _cut(length: int) -> tuple[int, int]:
    """Edge of the chunks that a length is cut into, and what they come to together."""
    n_chunks = math.ceil(length / LARGEST_CHUNK_EDGE)
    edge = math.ceil(length / n_chunks)
    return edge, n_chunks * edge


def slabs_of_box(box: int) -> list[tuple[int, int]]:
    """First plane and end of the slabs that a map is written in: each is one shard of the store."""
    return _slabs(box, layout_of_box(box).shard[0])


def _slabs(box: int, planes: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + planes, box)) for begin in range(0, box, planes)]


def create_volume_store(
    path: str | Path,
    *,
    n_superclasses: int,
    box: int,
    voxel_size_angstrom: float,
    attributes: dict[str, str | int | float] | None = None,
) -> None:
    """Write the template of a store of superclass maps; it is all 0 until slabs are written.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    n_superclasses, box : int
    voxel_size_angstrom : float
    attributes : dict, optional
        Kept with the store.

    Notes
    -----
    `xarray.open_zarr(path, consolidated=False)` opens it: `volume` (superclass, z, y, x) with the
    coordinates superclass, and z, y, x in angstrom from the origin voxel n // 2. The metadata is not
    consolidated: one file less that workers could disagree about.
    """
    import dask.array as da
    import xarray as xr

    layout = layout_of_box(box)
    axis = (np.arange(box) - box // 2) * float(voxel_size_angstrom)
    shape = (n_superclasses, box, box, box)
    template = xr.Dataset(
        {
            VARIABLE: (
                ("superclass", "z", "y", "x"),
                da.zeros(shape, chunks=(1, layout.shard[0], box, box), dtype=np.float32),
                {"voxel_size_angstrom": float(voxel_size_angstrom), "units": "arbitrary"},
            )
        },
        coords={
            "superclass": np.arange(n_superclasses, dtype=np.int64),
            **{name: (name, axis, {"units": "angstrom"}) for name in ("z", "y", "x")},
        },
        attrs={"voxel_size_angstrom": float(voxel_size_angstrom), **(attributes or {})},
    )
    encoding = {VARIABLE: {"chunks": (1, *layout.chunk), "shards": (1, *layout.shard)}}
    with new_store(path, complete=False) as store:
        template.to_zarr(store, mode="w", compute=False, consolidated=False, zarr_format=3, encoding=encoding)


def write_slab(path: str | Path, superclass: int, first_plane: int, planes: np.ndarray) -> None:
    """Write consecutive planes (z) of one superclass map.

    Parameters
    ----------
    path : str or Path
    superclass : int
    first_plane : int
    planes : float32[dz, y, x]

    Raises
    ------
    ValueError
        The planes are not whole shards of the store, so that another worker could write the same shard.
    """
    array = zarr.open_array(f"{path!s}/{VARIABLE}", mode="r+", zarr_format=3)
    shard, box = (array.shards or array.chunks)[1], array.shape[1]
    end = first_plane + planes.shape[0]
    whole = first_plane % shard == 0 and (end % shard == 0 or end == box)
    if not whole or end > box or planes.shape[1:] != array.shape[2:] or not 0 <= superclass < array.shape[0]:
        raise ValueError(
            f"planes {first_plane}:{end} of shape {planes.shape} are not whole shards of {shard} planes of "
            f"superclass {superclass} in {path}: two workers could overwrite each other"
        )
    array[superclass, first_plane:end] = np.asarray(planes, dtype=np.float32)


def volume_store_voxel_size(path: str | Path) -> float:
    """Voxel size of the maps of a store, in angstrom."""
    return float(str(open_zarr_array(f"{path!s}/{VARIABLE}", zarr_format=3).attrs["voxel_size_angstrom"]))


def open_superclass(path: str | Path, superclass: int) -> LazyMap:
    """Open one superclass map for reading slabs of it."""
    return LazyMap(open_zarr_array(f"{path!s}/{VARIABLE}", zarr_format=3), superclass)


def read_slabs(density: LazyMap | np.ndarray) -> Iterable[np.ndarray]:
    """Give the slabs of a map in order, as they were written and as `write_mrc` takes them."""
    for begin, end in slabs_of_box(density.shape[0]):
        yield density[begin:end]


def write_series_zip(path: str | Path, files: Sequence[str | Path]) -> None:
    """Pack maps into a zip, in order and stored as they are, without times: equal maps are equal zips.

    Parameters
    ----------
    path : str or Path
    files : sequence of str or Path
        Packed under their file names.
    """
    with (
        storing.whole_file(path) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for file in files:
            entry = zipfile.ZipInfo(os.path.basename(str(file)), date_time=EARLIEST_ZIP_TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = storage.size_bytes(file)
            with storage.open_reading(file) as source, archive.open(entry, "w") as target:
                while block := source.read(COPY_BYTES):
                    target.write(block)
