"""Pages of memory are asked for once while work goes on, and given back after it."""

import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from regroup_dask.tasks.kept_memory import MAP_BYTES, give_back, kept_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults of Linux")
N_BYTES, N_TIMES = 8 * 2**20, 20
PAGES = N_BYTES // resource.getpagesize()


def _pages_asked_for() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(N_TIMES):
        np.ones(N_BYTES, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _kept() -> int:
    with kept_memory():
        return _pages_asked_for()


def test_arrays_are_made_of_memory_that_was_freed_before() -> None:
    # Huge pages, where the system makes them, are few even for memory that is new each time.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_kept).result() < 3 * PAGES
    assert _kept() < 3 * PAGES


def arrays_of_maps() -> None:
    """To be run in a process of its own: in one that has held much, a large array too is made of what was freed."""
    with kept_memory(MAP_BYTES):
        assert _pages_asked_for() < 3 * PAGES
        before = _resident_bytes()
        large = np.ones(MAP_BYTES + 2**20, np.uint8)
        held = _resident_bytes()
        del large
        assert held > before + MAP_BYTES // 2
        assert _resident_bytes() < before + MAP_BYTES // 2


def test_arrays_of_maps_are_made_of_memory_that_was_freed_before_and_large_ones_are_given_back() -> None:
    code = f"from {__name__} import arrays_of_maps; arrays_of_maps()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_it_is_given_back() -> None:
    with kept_memory():
        held = np.ones(64 * 2**20, np.uint8)
        del held
        before = _resident_bytes()
        give_back()
        assert _resident_bytes() > before - 2**20, "a task is inside"
    give_back()
    assert _resident_bytes() < before - 48 * 2**20


def _resident_bytes() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()
