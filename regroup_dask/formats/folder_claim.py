"""A folder that one process makes: held while it is made, and removed when nothing comes of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

REMOVAL_ATTEMPTS = 100


def hold(descriptor: int, busy: Exception) -> None:
    """Lock an open file for this process, or raise ``busy``; the lock goes with the process, however it ends.

    File systems without locks have no such protection.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise busy from None


def remove_while_written(folder: Path) -> None:
    """Remove a folder that tasks already under way on other processes may still write to."""
    for _ in range(REMOVAL_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of some folders, the innermost first, that have nothing in them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
