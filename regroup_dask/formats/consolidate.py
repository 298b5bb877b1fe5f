"""Gather the metadata of a finished zarr store, so that opening it takes one read and no warning; and open it."""

from __future__ import annotations

import warnings
from pathlib import Path

import xarray as xr
import zarr
from zarr.abc.store import Store


def consolidate(path: str | Path | Store) -> None:
    """Consolidate the metadata of a store that nobody writes to any more.

    Zarr 3 warns that other readers may not know consolidated metadata; they read the arrays' own, which stay.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path if isinstance(path, Store) else str(path), zarr_format=3)


def open_store(path: Path) -> xr.Dataset:
    """Open a store of labelled arrays lazily, by its gathered metadata if it has them.

    xarray warns where it has none, which only means more reads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated metadata")
        return xr.open_zarr(str(path), chunks=None, zarr_format=3)
