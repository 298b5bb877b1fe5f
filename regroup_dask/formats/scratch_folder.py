"""A folder for what a run needs before its output folder exists, where all workers can see it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_folder(output: str | Path, *, beside: bool = True) -> Iterator[Path]:
    """Yield a temporary folder on the file system of the output, gone when the block ends.

    The workers of a cluster share the file system of the output, and rarely the temporary folder of the machine
    where a run was started; that one is taken only where nothing can be written beside the output, or where `beside`
    is false because no worker needs it.
    """
    near = Path(os.path.abspath(output)).parent
    while not near.is_dir():
        near = near.parent
    writable = beside and os.access(near, os.W_OK | os.X_OK)
    with tempfile.TemporaryDirectory(prefix=".regroup_dask_", dir=near if writable else None) as folder:
        yield Path(folder)
