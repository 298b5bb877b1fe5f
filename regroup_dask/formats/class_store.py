"""classes.zarr: the class maps as they were compared, small, with what was measured of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr

from regroup_dask.formats.consolidate import consolidate, open_store
from regroup_dask.formats.new_store import new_store

DENSITY = "density"
SHARD_BYTES = 16 * 2**20


def class_dataset(
    class_ids: np.ndarray,
    density: Any,
    *,
    voxel_size_angstrom: float,
    per_shell: dict[str, np.ndarray],
    per_class: dict[str, np.ndarray],
) -> xr.Dataset:
    """Label the working maps and their statistics.

    Parameters
    ----------
    class_ids
        Ids of the N classes that took part.
    density
        Working maps, float32 ``(N, z, y, x)``, each in its own frame; may be lazy.
    voxel_size_angstrom
        Voxel size of the working maps.
    per_shell
        Arrays ``(N, shells)``, by name.
    per_class
        Arrays ``(N,)``, by name.
    """
    box = density.shape[-1]
    axis = (np.arange(box) - box // 2) * voxel_size_angstrom
    data: dict[str, object] = {DENSITY: (("class_id", "z", "y", "x"), density)}
    data |= {name: (("class_id", "shell"), values) for name, values in per_shell.items()}
    data |= {name: ("class_id", values) for name, values in per_class.items()}
    coords: dict[str, object] = {"class_id": class_ids}
    coords |= {name: (name, axis, {"units": "angstrom"}) for name in ("z", "y", "x")}
    return xr.Dataset(data, coords=coords, attrs={"voxel_size_angstrom": float(voxel_size_angstrom)})


def classes_per_shard(box: int) -> int:
    """Maps that lie in one file or object of a store, and that one task writes."""
    return max(1, SHARD_BYTES // (4 * box**3))


def lay_out_classes(classes: xr.Dataset, path: Path) -> None:
    """Write the store but for the maps, which are missing until they are written; replaces one that is there."""
    box, per_shard = classes.sizes["z"], classes_per_shard(classes.sizes["z"])
    encoding = {DENSITY: {"chunks": (1, box, box, box), "shards": (per_shard, box, box, box)}}
    empty = classes.assign({DENSITY: (classes[DENSITY].dims, _nothing(classes[DENSITY].shape, per_shard))})
    # Here and now: what the cluster is asked to do is a unit of work, which can be lost and taken up again.
    with dask.config.set(scheduler="synchronous"), new_store(path, complete=False) as store:
        empty.to_zarr(store, mode="w", compute=False, consolidated=False, zarr_format=3, encoding=encoding)


def write_maps(path: Path, first: int, maps: np.ndarray) -> None:
    """Write consecutive maps.

    Parameters
    ----------
    path
    first
        Row of the first of them.
    maps
        float32 ``(n, z, y, x)``.

    Raises
    ------
    ValueError
        They are not a whole shard, so that another worker could write the same file.
    """
    array = zarr.open_array(f"{path!s}/{DENSITY}", mode="r+", zarr_format=3)
    per_shard, end = (array.shards or array.chunks)[0], first + len(maps)
    if first % per_shard or not (end % per_shard == 0 or end == array.shape[0]):
        raise ValueError(
            f"maps {first}:{end} are not a whole shard of {per_shard} in {path}: two workers could overwrite each other"
        )
    array[first:end] = maps


def write_classes(classes: xr.Dataset, path: Path) -> None:
    """Write a whole store, replacing one that is there, a shard of maps at a time."""
    lay_out_classes(classes, path)
    n_maps, step = classes.sizes["class_id"], classes_per_shard(classes.sizes["z"])
    for first in range(0, n_maps, step):
        write_maps(path, first, classes[DENSITY][first : first + step].values)
    consolidate(path)


def _nothing(shape: tuple[int, ...], per_shard: int) -> Any:
    import dask.array as da

    return da.zeros(shape, chunks=(per_shard, *shape[1:]), dtype=np.float32)


def read_classes(path: Path) -> xr.Dataset:
    """Open the store, lazily."""
    return open_store(path)
