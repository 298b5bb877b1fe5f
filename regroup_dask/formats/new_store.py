"""A zarr store that is written whole: in a folder where it lies, or in memory and then sent to an object store.

Writing a store of twenty small arrays asks an object store hundreds of things, one after the other; sent as files it is
one request for each. Its group is sent last, so that half a store is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import Buffer

from regroup_dask.formats import storage, storing
from regroup_dask.formats.consolidate import consolidate

GROUP = "zarr.json"


@contextlib.contextmanager
def new_store(path: str | Path, *, complete: bool) -> Iterator[Any]:
    """Yield what `xarray.Dataset.to_zarr` and zarr can write to, in place of what is there.

    Parameters
    ----------
    path
        Path or URL.
    complete
        Whether nothing is written to it later, so that its metadata can be consolidated.
    """
    if not storage.is_remote(path):
        yield str(path)
        if complete:
            consolidate(path)
        return
    written: dict[str, Buffer] = {}
    store = zarr.storage.MemoryStore(written)
    yield store
    if complete:
        consolidate(store)
    storing.remove_folder(path)
    for name in sorted(written, key=lambda name: (name == GROUP, name)):
        storing.write_bytes(f"{path!s}/{name}", written[name].to_bytes())
