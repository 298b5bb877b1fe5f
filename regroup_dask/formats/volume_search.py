"""Find class maps and check by their headers that they can be compared."""

from __future__ import annotations

import glob
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats import mrc, storage
from regroup_dask.formats.volume_names import (
    class_ids_in_names,
    class_maps_among,
    half_maps_beside,
    natural_key,
    unique_names,
)
from regroup_dask.formats.volume_reference import VolumeReference, VolumeSeries
from regroup_dask.formats.zarr_volumes import is_zarr_store, read_zarr_volumes

logger = logging.getLogger(__name__)

VOXEL_SIZE_WARNING = 1e-4
VOXEL_SIZE_LIMIT = 0.01


class _Found(NamedTuple):
    path: str
    kind: Literal["mrc", "zarr"]
    position: int
    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None


def find_volumes(
    source: str | Path | Sequence[str | Path],
    *,
    voxel_size_angstrom: float | None = None,
    fallback_voxel_size_angstrom: float | None = None,
    class_ids: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> VolumeSeries:
    """Find class maps and check by their headers that they can be compared.

    Parameters
    ----------
    source : str, Path or sequence of them
        An MRC file, a glob (sorted as people count; the sharpened maps, half maps and masks among its matches
        are left out), several of these, or a zarr store.
    voxel_size_angstrom : float, optional
        Taken instead of the headers'.
    fallback_voxel_size_angstrom : float, optional
        Taken, with a warning, where the headers do not say one; the pixel size of the particles, for example.
    class_ids : sequence of int, optional
        One per map, in the order found; else from the file names where all carry one, else 0, 1, 2, ...
    names : sequence of str, optional
        One per map, in the order found; else the files'.

    Returns
    -------
    VolumeSeries

    Raises
    ------
    InputError
        Nothing found, a map that cannot be one, boxes that differ, voxel sizes that differ by more than 1
        percent or are not known.

    Warns
    -----
    RegroupWarning
        Voxel sizes differ by less than 1 percent: that of the first map is taken.
    """
    found, known_ids, known_names = _find(source)
    if voxel_size_angstrom is not None:
        check_voxel_size(voxel_size_angstrom)
    ids = _one_per_map(class_ids, found, "class ids") or known_ids or tuple(range(len(found)))
    labels = _one_per_map(names, found, "names") or known_names
    if len(set(ids)) != len(ids):
        raise InputError(f"the class ids {list(ids)} name a class twice; give each map its own.")
    if min(ids) < 0:
        raise InputError(f"the class ids {list(ids)} are not all 0 or more.")
    box = _common_box(found)
    voxel_size = voxel_size_angstrom or _common_voxel_size(found, fallback_voxel_size_angstrom)
    references = [
        VolumeReference(
            class_id=int(class_id),
            name=str(name),
            path=storage.absolute(item.path),
            kind=item.kind,
            index=item.position,
            box=box,
            voxel_size_angstrom=voxel_size,
            half_map_paths=half_maps_beside(storage.absolute(item.path)) if item.kind == "mrc" else None,
        )
        for item, class_id, name in zip(found, ids, labels, strict=True)
    ]
    return VolumeSeries(tuple(sorted(references, key=lambda one: one.class_id)), box, voxel_size)


def find_mask(path: str | Path, *, series: VolumeSeries) -> VolumeReference:
    """Find a mask of the maps' box, which `read_map` and `open_map` then read.

    Parameters
    ----------
    path : str or Path
        An MRC file.
    series : VolumeSeries
        The maps it is for.

    Raises
    ------
    InputError
        No map, or another box or voxel size than the maps have.
    """
    path = storage.given(path)
    header = mrc.read_header(path)
    mrc.check_class_map(header)
    if header.shape[0] != series.box:
        raise InputError(
            f"the mask {path} has a box of {header.shape[0]} and the maps have {series.box}; give a mask of "
            "the maps' box."
        )
    voxel_size, expected = header.voxel_size_angstrom, series.voxel_size_angstrom
    # many masks are written with a voxel size of 1; the box is what must fit
    if voxel_size not in (None, 1.0) and abs(voxel_size - expected) > VOXEL_SIZE_LIMIT * expected:
        raise InputError(
            f"the mask {path} has a voxel size of {voxel_size:g} A and the maps have {expected:g} A; "
            "resample it to the maps."
        )
    return VolumeReference(-1, "mask", storage.absolute(path), "mrc", 0, series.box, expected)


def check_voxel_size(voxel_size_angstrom: float) -> None:
    """Refuse a given voxel size that cannot be meant.

    Raises
    ------
    InputError
    """
    low, high = mrc.SMALLEST_VOXEL_ANGSTROM, mrc.LARGEST_VOXEL_ANGSTROM
    if not (math.isfinite(voxel_size_angstrom) and low < voxel_size_angstrom <= high):
        raise InputError(
            f"--voxel-size {voxel_size_angstrom:g} A is not between {low:g} and {high:g} A; give the voxel "
            "size of the maps."
        )


def _find(
    source: str | Path | Sequence[str | Path],
) -> tuple[list[_Found], tuple[int, ...] | None, tuple[str, ...]]:
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if not sources:
        raise InputError("no maps were given; name MRC files, a glob, or a zarr store.")
    expanded = [storage.given(one) for one in sources]
    stores = [path for path in expanded if is_zarr_store(path)]
    if stores:
        if len(expanded) > 1:
            raise InputError(
                f"{stores[0]} is a zarr store and was given with other maps; give one store alone."
            )
        return _find_in_store(stores[0])
    paths: list[str] = []
    for pattern in expanded:
        paths += _matches(pattern)
    repeated = {path for path in paths if paths.count(path) > 1}
    if repeated:
        raise InputError(f"{sorted(repeated)[0]} was given twice; name each map once.")
    found = []
    for path in paths:
        header = mrc.read_header(path)
        mrc.check_class_map(header)
        for note in header.notes:
            logger.info("%s: %s", path, note)
        found.append(_Found(path, "mrc", 0, header.shape, header.voxel_size_angstrom))
    return found, class_ids_in_names(paths), unique_names(paths)


def _matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or storage.exists(pattern):
        return [pattern]
    matches = sorted(storage.matching_files(pattern), key=natural_key)
    if not matches:
        raise InputError(f"no file matches {pattern}; check the folder and the pattern.")
    kept, left_out = class_maps_among(matches)
    if left_out:
        logger.info("%s: %d sharpened maps, half maps or masks left out", pattern, len(left_out))
    return kept


def _find_in_store(path: str) -> tuple[list[_Found], tuple[int, ...] | None, tuple[str, ...]]:
    store = read_zarr_volumes(path)
    count, z, y, x = store.shape
    if not z == y == x:
        raise InputError(f"{store.path} has maps of {x} x {y} x {z} voxels (x, y, z), not cubes.")
    found = [
        _Found(store.path, "zarr", index, (z, y, x), store.voxel_size_angstrom) for index in range(count)
    ]
    return found, store.class_ids, store.names


def _one_per_map(values: Sequence | None, found: Sequence[_Found], what: str) -> tuple | None:
    if values is None:
        return None
    if len(values) != len(found):
        raise InputError(f"{len(values)} {what} were given for {len(found)} maps; give one for each.")
    return tuple(values)


def _common_box(found: Sequence[_Found]) -> int:
    first = found[0]
    for item in found[1:]:
        if item.shape != first.shape:
            raise InputError(
                f"{item.path} has a box of {item.shape[0]} and {first.path} one of {first.shape[0]}; "
                "crop or resample the maps to one box."
            )
    return first.shape[0]


def _common_voxel_size(found: Sequence[_Found], fallback_angstrom: float | None) -> float:
    silent = [item for item in found if item.voxel_size_angstrom is None]
    if silent and fallback_angstrom is not None:
        warnings.warn(
            f"{silent[0].path} does not say its voxel size; {fallback_angstrom:g} A is taken from the "
            "particles.",
            RegroupWarning,
            stacklevel=3,
        )
        found = [
            item._replace(voxel_size_angstrom=item.voxel_size_angstrom or fallback_angstrom) for item in found
        ]
    for item in found:
        if item.voxel_size_angstrom is None:
            raise InputError(
                f"{item.path} does not say its voxel size; give it with --voxel-size, in angstrom."
            )
    sizes = [cast(float, item.voxel_size_angstrom) for item in found]
    differences = [abs(size - sizes[0]) / sizes[0] for size in sizes]
    worst = int(np.argmax(differences))
    sentence = (
        f"{found[worst].path} has a voxel size of {sizes[worst]:g} A and {found[0].path} one of {sizes[0]:g} "
        "A"
    )
    if differences[worst] > VOXEL_SIZE_LIMIT:
        raise InputError(
            f"{sentence}, more than {VOXEL_SIZE_LIMIT:.0%} apart; resample the maps to one voxel size, "
            "or give it with --voxel-size if a header is wrong."
        )
    if differences[worst] > VOXEL_SIZE_WARNING:
        warnings.warn(f"{sentence}; {sizes[0]:g} A is taken for all.", RegroupWarning, stacklevel=3)
    return sizes[0]
