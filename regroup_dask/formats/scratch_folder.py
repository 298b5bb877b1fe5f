"""A folder for what a run needs before its output folder exists, where all workers can see it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from regroup_dask.errors import StoreError
from regroup_dask.formats import storage, storing

logger = logging.getLogger(__name__)


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
            _remove(remote)
        return
    near = Path(tempfile.gettempdir() if storage.is_remote(output) else os.path.abspath(output)).parent
    while not near.is_dir():
        near = near.parent
    writable = beside and os.access(near, os.W_OK | os.X_OK)
    with tempfile.TemporaryDirectory(prefix=".regroup_dask_", dir=near if writable else None) as made:
        yield Path(made)


def _remove(remote: Path) -> None:
    """Remove a folder of a store; one that does not answer must not hide what went wrong before."""
    try:
        storing.remove_folder(remote)
    except StoreError as error:
        logger.warning("%s could not be removed, and can be removed by hand: %s", remote, error)
