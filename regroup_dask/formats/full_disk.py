"""A full disk, in all the ways in which libraries say so."""

from __future__ import annotations

import errno
import os
import re

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: OSError) -> bool:
    """Whether a disk or a quota is full; copying a folder and NumPy's own writing leave out the number of the error."""
    text = str(error)
    said = any(os.strerror(number) in text for number in FULL_DISK)
    return error.errno in FULL_DISK or said or re.search(r"\d+ requested and \d+ written", text) is not None
