"""The working maps of a run: one zarr group on a file system that all workers see, a chunk per map.

Every chunk carries a checksum, and the fill value is NaN, so that neither a damaged nor a missing chunk passes for a
map.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from regroup_dask.errors import DamagedStoreError


def create_arrays(path: Path, n_maps: int, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Make one array per field, ``(n_maps, *shape)``, chunked by map, unless it is there already.

    Parameters
    ----------
    path
        Folder of the zarr group.
    n_maps
        Number of maps.
    shapes
        Shape and type of each field of one map; types are real or complex floating point.
    """
    group = zarr.open_group(str(path), mode="a", zarr_format=3)
    for name, (shape, dtype) in shapes.items():
        whole = (n_maps, *shape)
        kept = group.get(name)
        if isinstance(kept, zarr.Array) and kept.shape == whole and kept.dtype == dtype:
            continue
        group.create_array(
            name,
            shape=whole,
            chunks=(1, *(max(1, size) for size in shape)),
            dtype=dtype,
            compressors=Crc32cCodec(),
            fill_value=_missing(np.dtype(dtype)),
            overwrite=True,
        )


def write_map(path: Path, index: int, fields: Mapping[str, np.ndarray]) -> None:
    """Write the fields of one map; one writer per chunk, so that tasks never meet."""
    group = zarr.open_group(str(path), mode="r+", zarr_format=3)
    for name, value in fields.items():
        group[name][index] = value  # type: ignore[index]


def read_field(path: Path, index: int, name: str) -> np.ndarray:
    """Read one field of one map.

    Raises
    ------
    DamagedStoreError
        Its chunk is damaged or missing.
    """
    return _read(zarr.open_group(str(path), mode="r", zarr_format=3), path, index, name)


def _read(group: zarr.Group, path: Path, index: int, name: str) -> np.ndarray:
    try:
        value = _aligned(np.asarray(group[name][index]))  # type: ignore[index]
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise _damaged(path, index, name, f"is damaged ({error})") from error
    blank = _missing(value.dtype)
    if value.size and (np.isnan(value) if np.isnan(blank) else value == blank).all():
        raise _damaged(path, index, name, "is missing")
    return value


def _missing(dtype: np.dtype) -> float:
    """What stands where nothing was written: no map is all NaN, nor all the highest integer (NaN, when shortened)."""
    return np.nan if np.issubdtype(dtype, np.inexact) else float(np.iinfo(dtype).max)


def _aligned(values: np.ndarray) -> np.ndarray:
    """Copy to a contiguous array that begins at a multiple of 64 bytes.

    Vectorised sums begin where the memory is aligned, so that their last bits depend on where an array happens to lie.
    """
    room = np.empty(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copied = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copied[...] = values
    return copied


def _damaged(path: Path, index: int, name: str, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"The {name} of map {index} in {path} {what}: give the same command with --resume, and it is made again.",
        index,
    )


def lazy_field(path: Path, name: str) -> Any:
    """One field of all maps as a Dask array, a chunk per map."""
    import dask.array as da

    return da.from_zarr(zarr.open_array(f"{path!s}/{name}", mode="r", zarr_format=3))
