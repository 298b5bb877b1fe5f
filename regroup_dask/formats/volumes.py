"""Class maps as one lazy, labelled array (class_id, z, y, x); import all about class maps from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.volume_names import half_maps_beside
from regroup_dask.formats.volume_reference import (
    LazyMap,
    VolumeReference,
    VolumeSeries,
    checked_map_slabs,
    open_map,
    read_map,
)
from regroup_dask.formats.volume_search import check_voxel_size, find_mask, find_volumes

__all__ = [
    "LazyMap",
    "VolumeReference",
    "VolumeSeries",
    "checked_map_slabs",
    "find_mask",
    "find_volumes",
    "open_map",
    "open_volumes",
    "read_map",
    "series_of",
    "volumes_of_series",
]

DIMENSIONS = ("class_id", "z", "y", "x")


def open_volumes(
    source: Any,
    *,
    voxel_size_angstrom: float | None = None,
    class_ids: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open class maps as one lazy array.

    Parameters
    ----------
    source : str, Path, sequence of them, array_like or xarray.DataArray
        MRC files, a glob, or a zarr store (see `find_volumes`); or the maps themselves: an array [class, z,
        y, x], a list of arrays [z, y, x], or a labelled array of four dimensions. Paths may be URLs.
    voxel_size_angstrom : float, optional
        Needed with arrays that do not carry it; taken instead of the headers' with files.
    class_ids : sequence of int, optional
    names : sequence of str, optional
    storage_options : dict, optional
        For URLs, as fsspec's file systems take them; used by this process from now on.

    Returns
    -------
    xarray.DataArray
        float32 (class_id, z, y, x), one map a chunk, nothing read yet. Coordinates `class_id`, `name`,
        `volume` (the file, or "") and `volume_index` (in a zarr array) on class_id, and z, y, x in angstrom
        from the origin voxel n // 2; attributes `voxel_size_angstrom` and `units`.

    Raises
    ------
    InputError
        As `find_volumes` does; an array that is not a series of cubes, or has no voxel size.
    """
    if storage_options is not None:
        storage.use_storage_options(storage_options)
    if isinstance(source, xr.DataArray):
        return _from_labelled(source, voxel_size_angstrom, class_ids, names)
    if isinstance(source, (np.ndarray, da.Array)) or _is_list_of_arrays(source):
        return _from_arrays(source, voxel_size_angstrom, class_ids, names)
    series = find_volumes(source, voxel_size_angstrom=voxel_size_angstrom, class_ids=class_ids, names=names)
    return volumes_of_series(series)


def volumes_of_series(series: VolumeSeries) -> xr.DataArray:
    """Lay a lazy, labelled array over maps that were found; each is read, and checked, when it is needed."""
    references = series.references
    maps = da.from_array(
        _MapsOnDisk(references, series.box),
        chunks=(1, series.box, series.box, series.box),
        name=_name(references),
        asarray=False,
        meta=np.empty((0, 0, 0, 0), dtype=np.float32),
    )
    return _labelled(
        maps,
        voxel_size_angstrom=series.voxel_size_angstrom,
        class_ids=[one.class_id for one in references],
        names=[one.name for one in references],
        volumes=[one.path for one in references],
        indices=[one.index for one in references],
    )


def series_of(volumes: xr.DataArray) -> VolumeSeries | None:
    """References of the files behind a labelled array, if it still is exactly what they hold.

    An array that came from `open_volumes` untouched is recognised by its name. A selection of its classes is
    recognised by comparing every map, one at a time, with its file; what was computed from the maps differs
    already in one plane.

    Returns
    -------
    VolumeSeries or None
        None where any map is not the file's: the caller then keeps the array's own content.
    """
    if set(volumes.dims) != set(DIMENSIONS) or not {"volume", "volume_index", "name"} <= set(volumes.coords):
        return None
    volumes = volumes.transpose(*DIMENSIONS)
    box = volumes.sizes["z"]
    voxel_size = float(volumes.attrs.get("voxel_size_angstrom", 0.0))
    references = []
    for position in range(volumes.sizes["class_id"]):
        path = str(volumes["volume"].values[position])
        if not storage.exists(path) or not voxel_size or volumes.shape[1:] != (box, box, box):
            return None
        kind = "zarr" if storage.is_folder(path) else "mrc"
        references.append(
            VolumeReference(
                class_id=int(volumes["class_id"].values[position]),
                name=str(volumes["name"].values[position]),
                path=path,
                kind="zarr" if kind == "zarr" else "mrc",
                index=int(volumes["volume_index"].values[position]),
                box=box,
                voxel_size_angstrom=voxel_size,
                half_map_paths=half_maps_beside(path) if kind == "mrc" else None,
            )
        )
    series = VolumeSeries(tuple(references), box, voxel_size)
    if getattr(volumes.data, "name", None) == _name(series.references):
        return series
    middle = slice(box // 2, box // 2 + 1)
    for planes in (middle, slice(None)):
        for position, reference in enumerate(references):
            try:
                stored = open_map(reference)[planes]
            except InputError:
                return None
            if not np.array_equal(np.asarray(volumes.data[position, planes]), stored, equal_nan=True):
                return None
    return series


class _MapsOnDisk:
    """What Dask cuts its chunks from: maps on disk that pickle as their paths."""

    ndim = 4
    dtype = np.dtype(np.float32)

    def __init__(self, references: tuple[VolumeReference, ...], box: int) -> None:
        self.references = references
        self.options = storage.carried_options()
        self.shape = (len(references), box, box, box)

    def __getitem__(self, key: Any) -> np.ndarray:
        self.options.adopt()
        first, *rest = key
        planes = tuple(rest)
        if isinstance(first, (int, np.integer)):
            return self._read(int(first), planes)
        chosen = np.arange(self.shape[0])[first]
        return np.stack([self._read(int(position), planes) for position in chosen])

    def _read(self, position: int, planes: tuple[Any, ...]) -> np.ndarray:
        reference = self.references[position]
        everything = range(reference.box)
        whole = all(isinstance(one, slice) and everything[one] == everything for one in planes)
        return read_map(reference) if whole else open_map(reference)[planes]


def _name(references: tuple[VolumeReference, ...]) -> str:
    stamps = []
    for reference in references:
        # a zarr array's folder does not change when a chunk does; its path must do
        stamps.append((reference.path, reference.index, storage.change_stamp(reference.path)))
    return f"class-maps-{tokenize(stamps)}"


def _is_list_of_arrays(source: Any) -> bool:
    return isinstance(source, (list, tuple)) and bool(source) and all(hasattr(one, "ndim") for one in source)


def _from_arrays(
    source: Any,
    voxel_size_angstrom: float | None,
    class_ids: Sequence[int] | None,
    names: Sequence[str] | None,
) -> xr.DataArray:
    if isinstance(source, (list, tuple)):
        shapes = {tuple(one.shape) for one in source}
        if len(shapes) > 1 or any(one.ndim != 3 for one in source):
            raise InputError(f"the maps given have shapes {sorted(shapes)}; all must be cubes of one box.")
        maps = da.stack([da.from_array(np.asarray(one), chunks=one.shape) for one in source])
    else:
        maps = (
            source if isinstance(source, da.Array) else da.from_array(source, chunks=(1, *source.shape[1:]))
        )
    return _checked(maps, voxel_size_angstrom, class_ids, names)


def _from_labelled(
    source: xr.DataArray,
    voxel_size_angstrom: float | None,
    class_ids: Sequence[int] | None,
    names: Sequence[str] | None,
) -> xr.DataArray:
    if source.ndim != 4 or not {"z", "y", "x"} <= set(source.dims):
        raise InputError(f"the volumes have dimensions {source.dims}; they must be (class_id, z, y, x).")
    first = next(str(name) for name in source.dims if name not in ("z", "y", "x"))
    source = source.transpose(first, "z", "y", "x")
    if voxel_size_angstrom is None:
        voxel_size_angstrom = source.attrs.get("voxel_size_angstrom")
    if class_ids is None and first in source.coords and source[first].dtype.kind in "iu":
        class_ids = [int(value) for value in source[first].values]
    if names is None and "name" in source.coords:
        names = [str(value) for value in source["name"].values]
    opened = _checked(da.asarray(source.data), voxel_size_angstrom, class_ids, names)
    for coordinate in ("volume", "volume_index"):
        if coordinate in source.coords and source[coordinate].dims == (first,):
            opened = opened.assign_coords({coordinate: ("class_id", source[coordinate].values)})
    return opened


def _checked(
    maps: da.Array,
    voxel_size_angstrom: float | None,
    class_ids: Sequence[int] | None,
    names: Sequence[str] | None,
) -> xr.DataArray:
    if maps.ndim != 4 or len(set(maps.shape[1:])) != 1 or maps.shape[0] == 0:
        raise InputError(f"the volumes have shape {maps.shape}; it must be (classes, n, n, n).")
    if maps.dtype.kind not in "iuf":
        raise InputError(f"the volumes hold {maps.dtype} values; maps need real numbers.")
    if voxel_size_angstrom is None:
        raise InputError("the volumes do not say their voxel size; give voxel_size_angstrom=.")
    check_voxel_size(float(voxel_size_angstrom))
    count = maps.shape[0]
    ids = list(range(count)) if class_ids is None else [int(one) for one in class_ids]
    labels = [f"volume_{one:03d}" for one in ids] if names is None else [str(one) for one in names]
    if len(ids) != count or len(labels) != count:
        raise InputError(f"{len(ids)} class ids and {len(labels)} names were given for {count} maps.")
    if len(set(ids)) != count or min(ids) < 0:
        raise InputError(f"the class ids {ids} must be 0 or more and each its own.")
    one_map_a_chunk = maps.rechunk((1, *maps.shape[1:]))
    return _labelled(
        one_map_a_chunk if maps.dtype == np.float32 else one_map_a_chunk.astype(np.float32),
        voxel_size_angstrom=float(voxel_size_angstrom),
        class_ids=ids,
        names=labels,
        volumes=[""] * count,
        indices=[0] * count,
    )


def _labelled(
    maps: da.Array,
    *,
    voxel_size_angstrom: float,
    class_ids: Sequence[int],
    names: Sequence[str],
    volumes: Sequence[str],
    indices: Sequence[int],
) -> xr.DataArray:
    box = maps.shape[1]
    axis = (np.arange(box) - box // 2) * voxel_size_angstrom
    return xr.DataArray(
        maps,
        dims=DIMENSIONS,
        name="density",
        coords={
            "class_id": np.asarray(class_ids, dtype=np.int64),
            "name": ("class_id", np.asarray(names, dtype=str)),
            "volume": ("class_id", np.asarray(volumes, dtype=str)),
            "volume_index": ("class_id", np.asarray(indices, dtype=np.int64)),
            **{name: (name, axis, {"units": "angstrom"}) for name in ("z", "y", "x")},
        },
        attrs={"voxel_size_angstrom": voxel_size_angstrom, "units": "arbitrary"},
    )
