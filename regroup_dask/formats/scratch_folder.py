"""A folder for what a run needs before its output folder exists, where all workers can see it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from regroup_dask.formats import storage, storing


@contextlib.contextmanager
def scratch_folder(output: str | Path, *, beside: bool = True) -> Iterator[Path]:
    """Yield a temporary folder on the file system of the output, gone when the block ends.

    The workers of a cluster share the file system of the output, and rarely the temporary folder of the machine
    where a run was started; that one is taken only where nothing can be written beside the output, or where `beside`
    is false because no worker needs it.
    """
    if beside and storage.is_remote(output):
        remote = storage.location(output).parent / f".regroup_dask_{uuid.uuid4().hex[:12]}"
        try:
            yield remote
        finally:
            storing.remove_folder(remote)
        return
    near = Path(tempfile.gettempdir() if storage.is_remote(output) else os.path.abspath(output)).parent
    while not near.is_dir():
        near = near.parent
    writable = beside and os.access(near, os.W_OK | os.X_OK)
    with tempfile.TemporaryDirectory(prefix=".regroup_dask_", dir=near if writable else None) as made:
        yield Path(made)
