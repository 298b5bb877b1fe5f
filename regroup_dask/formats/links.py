"""A file under a second name."""

from __future__ import annotations

import os
import shutil

from regroup_dask.formats import storage, storing


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Hard-link a file, or copy it where links cannot be made (a store copies by itself); what was there is replaced."""
    if storage.is_remote(source) or storage.is_remote(target):
        storing.copy_file(source, target)
        return
    if os.path.lexists(target):
        os.unlink(target)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
