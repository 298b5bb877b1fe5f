"""Memory that a task frees is kept for the next array, instead of going back to the system each time.

Dask's nanny sets ``MALLOC_TRIM_THRESHOLD_``, by which glibc gives every freed array of 128 kB and more back to the kernel
at once, and the next one is new pages that the kernel clears first: of a table in text, half of the processor's time, of
preparing a map in a box of 64 too. Work that makes one array after another of a few megabytes keeps them for as long as
such work goes on, and gives all back when there has been none for a second. Systems without glibc are left as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

IDLE_SECONDS = 1.0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Names in malloc.h."""
MAP_BYTES = 32 * 2**20
"""The largest arrays that are kept in the work on maps (and the most that glibc takes): with boxes of 256 and more, where
memory counts and pages are a small part of the time, every array comes from the system as it is asked for."""
DEFAULT_MMAP_MAX, DEFAULT_TRIM_BYTES = 65536, 128 * 1024
KEPT_BYTES = 2**30

_lock = threading.Lock()
_inside = 0
_pending: threading.Timer | None = None


@contextlib.contextmanager
def kept_memory(largest_bytes: int | None = None) -> Iterator[None]:
    """Keep freed memory in this process while any task is inside.

    Parameters
    ----------
    largest_bytes
        Larger arrays are made of new pages, and these given back at once. By default there is no such limit, and Arrow's
        memory is kept like NumPy's.
    """
    global _inside, _pending
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _inside += 1
        if _pending is not None:
            _pending.cancel()
            _pending = None
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        if largest_bytes is None:
            libc.mallopt(M_MMAP_MAX, 0)
            _use_system_memory()
        else:
            libc.mallopt(M_MMAP_THRESHOLD, largest_bytes)
            if _inside == 1:
                libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _pending = threading.Timer(IDLE_SECONDS, give_back)
                _pending.daemon = True
                _pending.start()


def _use_system_memory() -> None:
    import pyarrow as pa

    if pa.default_memory_pool().backend_name != "system":
        pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Give freed memory back to the system, unless a task is inside."""
    libc = _glibc()
    with _lock:
        if _inside or libc is None:
            return
        libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, int(os.environ.get("MALLOC_TRIM_THRESHOLD_", DEFAULT_TRIM_BYTES)))
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
