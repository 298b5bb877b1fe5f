"""Superclass maps as one zarr store that xarray opens: a template written once, then slabs by many workers.

Two writers of one chunk lose each other's data without a word, so a slab must be whole chunks; this is
checked before anything is written.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import zarr

from regroup_dask.formats import storage, storing
from regroup_dask.formats.slabs import slab_ranges
from regroup_dask.formats.volume_reference import LazyMap
from regroup_dask.formats.zarr_volumes import open_zarr_array

VARIABLE = "volume"
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
COPY_BYTES = 2**22


def slabs_of_box(box: int) -> list[tuple[int, int]]:
    """First plane and end of the slabs that a map is written in: each is one chunk of the store."""
    return slab_ranges((box, box, box))


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

    begin, end = slabs_of_box(box)[0]
    axis = (np.arange(box) - box // 2) * float(voxel_size_angstrom)
    shape = (n_superclasses, box, box, box)
    template = xr.Dataset(
        {
            VARIABLE: (
                ("superclass", "z", "y", "x"),
                da.zeros(shape, chunks=(1, end - begin, box, box), dtype=np.float32),
                {"voxel_size_angstrom": float(voxel_size_angstrom), "units": "arbitrary"},
            )
        },
        coords={
            "superclass": np.arange(n_superclasses, dtype=np.int64),
            **{name: (name, axis, {"units": "angstrom"}) for name in ("z", "y", "x")},
        },
        attrs={"voxel_size_angstrom": float(voxel_size_angstrom), **(attributes or {})},
    )
    template.to_zarr(str(path), mode="w", compute=False, consolidated=False)


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
        The planes are not whole chunks of the store, so that another worker could write the same chunk.
    """
    array = zarr.open_array(f"{path!s}/{VARIABLE}", mode="r+")
    chunk, box = array.chunks[1], array.shape[1]
    end = first_plane + planes.shape[0]
    whole = first_plane % chunk == 0 and (end % chunk == 0 or end == box)
    if not whole or end > box or planes.shape[1:] != array.shape[2:] or not 0 <= superclass < array.shape[0]:
        raise ValueError(
            f"planes {first_plane}:{end} of shape {planes.shape} are not whole chunks of {chunk} planes of "
            f"superclass {superclass} in {path}: two workers could overwrite each other"
        )
    array[superclass, first_plane:end] = np.asarray(planes, dtype=np.float32)


def volume_store_voxel_size(path: str | Path) -> float:
    """Voxel size of the maps of a store, in angstrom."""
    return float(str(open_zarr_array(f"{path!s}/{VARIABLE}").attrs["voxel_size_angstrom"]))


def open_superclass(path: str | Path, superclass: int) -> LazyMap:
    """Open one superclass map for reading slabs of it."""
    return LazyMap(open_zarr_array(f"{path!s}/{VARIABLE}"), superclass)


def read_slabs(density: LazyMap | np.ndarray) -> Iterable[np.ndarray]:
    """Give consecutive slabs of a map, as `write_mrc` takes them."""
    for begin, end in slab_ranges(density.shape):
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
