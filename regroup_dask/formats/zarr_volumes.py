"""Maps that lie in a zarr store: a 4-D array, or an xarray dataset with one 4-D variable."""

from __future__ import annotations

import glob
import math
import os
from typing import Any, Literal, NamedTuple

import numpy as np
import zarr

from regroup_dask.errors import InputError, StoreError
from regroup_dask.formats import storage
from regroup_dask.formats.mrc import LARGEST_VOXEL_ANGSTROM, SMALLEST_VOXEL_ANGSTROM
from regroup_dask.formats.store_errors import store_errors
from regroup_dask.formats.volume_names import MAP_SUFFIXES


class ZarrVolumes(NamedTuple):
    """A 4-D zarr array of maps and what its store says about them.

    Attributes
    ----------
    path : str
        Of the array itself.
    shape : tuple of int
        (maps, z, y, x)
    voxel_size_angstrom : float or None
    class_ids : tuple of int or None
        From the integer coordinate of the first dimension.
    names : tuple of str
    """

    path: str
    shape: tuple[int, int, int, int]
    voxel_size_angstrom: float | None
    class_ids: tuple[int, ...] | None
    names: tuple[str, ...]


def is_zarr_store(path: str) -> bool:
    """Whether a path is a zarr store (format 2 or 3) or an array in one."""
    if storage.is_remote(path) and (glob.has_magic(path) or path.lower().endswith(MAP_SUFFIXES)):
        return False
    return any(storage.is_file(os.path.join(path, name)) for name in ("zarr.json", ".zgroup", ".zarray"))


def read_zarr_volumes(path: str) -> ZarrVolumes:
    """Find the one 4-D array of a zarr store.

    Raises
    ------
    InputError
        No 4-D array, or several.
    """
    try:
        with store_errors(path):
            opened = zarr.open(path, mode="r")
    except StoreError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be opened as a zarr store: {error}.") from error
    attributes: dict[str, Any] = dict(opened.attrs)
    if isinstance(opened, zarr.Array):
        return _described(path, opened, attributes, None)
    four_dimensional = sorted(name for name, array in opened.arrays() if array.ndim == 4)
    if len(four_dimensional) != 1:
        found = ", ".join(sorted(f"{name} {array.shape}" for name, array in opened.arrays())) or "nothing"
        raise InputError(
            f"{path} has {len(four_dimensional)} arrays of four dimensions (class, z, y, x) where one is "
            "needed; "
            f"it holds {found}; name the array itself, as in {path}/NAME."
        )
    name = four_dimensional[0]
    array = opened[name]
    assert isinstance(array, zarr.Array)
    return _described(f"{path.rstrip('/')}/{name}", array, {**attributes, **dict(array.attrs)}, opened)


def open_zarr_array(path: str, *, zarr_format: Literal[2, 3] | None = None) -> zarr.Array:
    """Open a zarr array for reading.

    Parameters
    ----------
    path : str
    zarr_format : {2, 3}, optional
        Where it is known, a store is not asked for the files of the other.

    Raises
    ------
    InputError
    """
    try:
        with store_errors(path):
            return zarr.open_array(path, mode="r", zarr_format=zarr_format)
    except StoreError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be opened as a zarr array: {error}.") from error


def _described(
    path: str, array: zarr.Array, attributes: dict[str, Any], group: zarr.Group | None
) -> ZarrVolumes:
    if array.ndim != 4:
        raise InputError(f"{path} has shape {array.shape}; maps need four dimensions (class, z, y, x).")
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds {array.dtype} values; maps need real numbers.")
    first_dimension = _first_dimension(array)
    class_ids = names = None
    if group is not None and first_dimension:
        identifiers = _coordinate(group, first_dimension, array.shape[0])
        if identifiers is not None and identifiers.dtype.kind in "iu":
            class_ids = tuple(int(value) for value in identifiers)
        labels = _coordinate(group, "name", array.shape[0])
        names = None if labels is None else tuple(str(label) for label in labels)
    prefix = first_dimension or "volume"
    if names is None:
        names = tuple(f"{prefix.removesuffix('_id')}_{one:03d}" for one in class_ids or range(array.shape[0]))
    count, z, y, x = array.shape
    voxel_size = _voxel_size(attributes) or (_spacing(group, z) if group is not None else None)
    return ZarrVolumes(path, (count, z, y, x), voxel_size, class_ids, names)


def _first_dimension(array: zarr.Array) -> str | None:
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return str(named[0]) if isinstance(named, (list, tuple)) and named and named[0] else None


def _coordinate(group: zarr.Group, name: str, length: int) -> np.ndarray | None:
    if name not in group:
        return None
    array = group[name]
    if not isinstance(array, zarr.Array) or array.shape != (length,):
        return None
    return np.asarray(array[:])


def _voxel_size(attributes: dict[str, Any]) -> float | None:
    value = attributes.get("voxel_size_angstrom")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value) if SMALLEST_VOXEL_ANGSTROM < value <= LARGEST_VOXEL_ANGSTROM else None


def _spacing(group: zarr.Group, length: int) -> float | None:
    """Voxel size from an evenly spaced z coordinate that says it is in angstrom."""
    if length < 2 or "z" not in group or str(group["z"].attrs.get("units", "")).lower() != "angstrom":
        return None
    axis = _coordinate(group, "z", length)
    steps = None if axis is None else np.diff(axis.astype(np.float64))
    if steps is None or not np.allclose(steps, steps.mean(), rtol=1e-4):
        return None
    return _voxel_size({"voxel_size_angstrom": float(f"{steps.mean():.6g}")})
