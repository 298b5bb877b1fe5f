"""Work of the page in a few threads: a run's workers are idle by then, and arrays let other threads go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

MOST_THREADS = 4


def side_by_side(make: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """Call a function on each item, in threads, and return what it gave in the order of the items."""
    with ThreadPoolExecutor(max_workers=min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(make, items))
