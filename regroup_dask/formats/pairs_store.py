"""pairs.zarr: everything that is known of each pair of classes, so that another K costs nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.consolidate import open_store
from regroup_dask.formats.new_store import new_store

CHUNK_BYTES, SHARD_BYTES = 4 * 2**20, 64 * 2**20

DESCRIPTIONS = {
    "correlation": ("Pearson correlation of the two maps at their pose, inside the mask", "1"),
    "similarity": ("estimated correlation of the two noise-free structures", "1"),
    "distance": ("noise-weighted difference of the two structures, zero on average for the same", "1"),
    "distance_sigma": ("standard deviation of distance", "1"),
    "contrast": ("difference of the two structures, shells weighed by how far structures differ in each", "1"),
    "contrast_sigma": ("standard deviation of contrast", "1"),
    "rotation_quaternion": ("rotation that superposes class_j onto class_i: x, y, z, w", "1"),
    "shift_angstrom": ("shift that superposes class_j onto class_i: x, y, z", "angstrom"),
    "mirrored": ("class_j is inverted through the origin before it is rotated and shifted", "1"),
    "fsc": ("Fourier shell correlation of the two maps at their pose, inside the mask", "1"),
    "information": ("Fourier coefficients' worth of signal in a map", "1"),
    "shared_sigma": ("part of distance_sigma that all distances of a class have in common", "1"),
    "shared_contrast_sigma": ("part of contrast_sigma that all contrasts of a class have in common", "1"),
    "signal_fraction": ("share of signal in the power of a map, shell by shell", "1"),
    "noise_variance": ("squared relative random error of the noise power, shell by shell", "1"),
    "decorrelation": ("loss of correlation that no noise estimate shows, shell by shell", "1"),
    "scale_error": ("relative error of the noise power common to all shells of a map", "1"),
    "correlation_other_hand": ("best correlation of the hand that was not taken", "1"),
    "hand_trust": ("how surely the hand of the pair is told, in standard deviations; 0 where it cannot be told", "1"),
    "corrected": ("other pairs contradicted the pose that was found first, and it was replaced", "1"),
    "confidence": ("how far the best pose stands above the next different one", "1"),
}
# What is known of the maps place by place, in one frame: dimensions and meaning.
BY_PLACE = {
    "product": (("band", "window", "class_i", "class_j"), "mean product of two maps in a band and window, signal about 1"),
    "have": (("band", "class_i"), "the map has signal throughout the band"),
    "coefficients": (("band", "window"), "independent coefficients of a band in a window"),
    "noise": (("band", "class_i"), "noise of a map in a band, over its signal in the whole box"),
    "noise_error": (("band", "class_i"), "relative error of that noise"),
    "fineness": (("band",), "mean shell of a band over that of the finest"),
    "lever": (("window",), "how much an error of a pose moves a window"),
}


def pairs_dataset(
    class_ids: np.ndarray,
    *,
    names: list[str],
    n_particles: np.ndarray | None,
    per_class: dict[str, np.ndarray] | None = None,
    shell_coefficients: np.ndarray | None = None,
    by_place: dict[str, np.ndarray] | None = None,
    variables: dict[str, np.ndarray],
    attributes: dict[str, object],
) -> xr.Dataset:
    """Label dense arrays over pairs of classes.

    Parameters
    ----------
    class_ids
        Ids of the N classes that took part.
    names
        Their names.
    n_particles
        Their sizes, or None when unknown.
    per_class
        What is known of each map: arrays ``(N,)`` or ``(N, shells)``, by name.
    shell_coefficients
        Independent Fourier coefficients in each shell.
    by_place
        Fields of `science.local_covariance.LocalCovariance`; each becomes ``place_NAME``.
    variables
        Arrays ``(N, N)``, ``(N, N, 4)`` for the quaternion and ``(N, N, 3)`` for the shift.
    attributes
        Plain values that describe the comparison.
    """
    extra = {"rotation_quaternion": ("quaternion",), "shift_angstrom": ("axis",), "fsc": ("shell",)}
    data: dict[str, tuple[object, np.ndarray, dict[str, str]]] = {}
    for name, values in variables.items():
        text, units = DESCRIPTIONS[name]
        dims = ("class_i", "class_j", *extra.get(name, ()))
        data[name] = (dims, values, {"long_name": text, "units": units})
    coords: dict[str, object] = {
        "class_i": ("class_i", class_ids, {"long_name": "class onto which is superposed"}),
        "class_j": ("class_j", class_ids, {"long_name": "class that is moved"}),
        "name": ("class_i", np.array(names, dtype=object)),
    }
    if n_particles is not None:
        coords["n_particles"] = ("class_i", np.asarray(n_particles, np.int64))
    for name, values in (per_class or {}).items():
        long_name, units = DESCRIPTIONS[name]
        data[name] = (("class_i", "shell")[: values.ndim], values, {"long_name": long_name, "units": units})
    if shell_coefficients is not None:
        data["shell_coefficients"] = ("shell", shell_coefficients, {"units": "1"})
    for name, values in (by_place or {}).items():
        place_dims, long_name = BY_PLACE[name]
        data[f"place_{name}"] = (place_dims, values, {"long_name": long_name, "units": "1"})
    if "rotation_quaternion" in variables:
        coords["quaternion"] = ("quaternion", np.array(["x", "y", "z", "w"], dtype=object))
        coords["axis"] = ("axis", np.array(["x", "y", "z"], dtype=object))
    return xr.Dataset(data, coords=coords, attrs=attributes)


def write_pairs(pairs: xr.Dataset, path: Path) -> None:
    """Write a dataset of pairs as a zarr store, replacing one that is there.

    A table of a few megabytes is one chunk; a larger one is cut along its first axis, and many chunks lie in a shard, so
    that a thousand classes are tens of objects in a store and not thousands.
    """
    encoding = {str(name): _layout(values.shape, values.dtype.itemsize) for name, values in pairs.variables.items()}
    with new_store(path, complete=True) as store:
        pairs.to_zarr(store, mode="w", consolidated=False, zarr_format=3, encoding=encoding)


def _layout(shape: tuple[int, ...], item_bytes: int) -> dict[str, tuple[int, ...]]:
    """Chunks of one variable, and shards where there are many chunks."""
    if not shape:
        return {}
    n_rows = max(1, shape[0])
    row_bytes = max(1, item_bytes * math.prod(shape[1:]))
    rest = tuple(max(1, length) for length in shape[1:])
    rows = min(max(1, CHUNK_BYTES // row_bytes), n_rows)
    if rows == n_rows:
        return {"chunks": (n_rows, *rest)}
    per_shard = min(max(1, SHARD_BYTES // (rows * row_bytes)), math.ceil(n_rows / rows))
    return {"chunks": (rows, *rest), "shards": (per_shard * rows, *rest)}


def read_pairs(path: Path) -> xr.Dataset:
    """Read a dataset of pairs.

    Raises
    ------
    InputError
        If there is none at that path.
    """
    if not storage.is_folder(path):
        raise InputError(f"{path} does not exist: give the output folder of a finished run.")
    try:
        return open_store(path).load()
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as the pairs of a run: {error}.") from error
