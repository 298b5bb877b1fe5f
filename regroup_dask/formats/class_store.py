"""classes.zarr: the class maps as they were compared, small, with what was measured of each."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import xarray as xr

from regroup_dask.formats.consolidate import consolidate


def class_dataset(
    class_ids: np.ndarray,
    density: np.ndarray,
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
        Working maps, float32 ``(N, z, y, x)``, each in its own frame.
    voxel_size_angstrom
        Voxel size of the working maps.
    per_shell
        Arrays ``(N, shells)``, by name.
    per_class
        Arrays ``(N,)``, by name.
    """
    box = density.shape[-1]
    axis = (np.arange(box) - box // 2) * voxel_size_angstrom
    data: dict[str, object] = {"density": (("class_id", "z", "y", "x"), density)}
    data |= {name: (("class_id", "shell"), values) for name, values in per_shell.items()}
    data |= {name: ("class_id", values) for name, values in per_class.items()}
    coords: dict[str, object] = {"class_id": class_ids}
    coords |= {name: (name, axis, {"units": "angstrom"}) for name in ("z", "y", "x")}
    return xr.Dataset(data, coords=coords, attrs={"voxel_size_angstrom": float(voxel_size_angstrom)})


def write_classes(classes: xr.Dataset, path: Path) -> None:
    """Write the store, a chunk per map, replacing one that is there."""
    box = classes.sizes["z"]
    encoding = {"density": {"chunks": (1, box, box, box)}}
    # Here and now: what the cluster is asked to do is a unit of work, which can be lost and taken up again.
    with dask.config.set(scheduler="synchronous"):
        classes.to_zarr(str(path), mode="w", consolidated=False, zarr_format=3, encoding=encoding)
    consolidate(path)


def read_classes(path: Path) -> xr.Dataset:
    """Open the store, lazily."""
    return xr.open_zarr(str(path), consolidated=False, chunks=None)
