"""Work on a large file in pieces, wherever the caller wants it done: formats know nothing of clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

MOST_THREADS = 8


class RunPieces(Protocol):
    """Run an importable function over small picklable pieces; the results come in their order."""

    def __call__(self, function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
        """Run ``function(piece)`` for each piece."""
        ...


def in_this_process(function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
    """Run the pieces here, on a few threads: reading and the loops over bytes let go of the interpreter."""
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)), len(pieces))
    if threads < 2:
        return [function(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, pieces))
