"""Gather the metadata of a finished zarr store, so that opening it takes one read and no warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import zarr
from zarr.abc.store import Store


def consolidate(path: str | Path | Store) -> None:
    """Consolidate the metadata of a store that nobody writes to any more.

    Zarr 3 warns that other readers may not know consolidated metadata; they read the arrays' own, which stay.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path if isinstance(path, Store) else str(path), zarr_format=3)
