"""One thread for each kernel, whoever started the worker."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_limits: Any = None
_arrow_threads = 0
_controller: ThreadpoolController | None = None
_modules_then = 0


def _known_libraries() -> ThreadpoolController:
    """Libraries with threads of their own; looking for them takes milliseconds, so only when modules were imported."""
    global _controller, _modules_then
    if _controller is None or len(sys.modules) != _modules_then:
        _modules_then = len(sys.modules)
        _controller = ThreadpoolController()
    return _controller


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS, OpenMP and Arrow to one thread while any task of this process is inside.

    A worker with a nanny has one thread already; one without has as many as the machine has cores. The limit belongs
    to the process, so it is taken by the first task to come and given back by the last to go: with several worker
    threads a task must not lift the limit under its neighbour.
    """
    global _inside, _limits, _arrow_threads
    with _lock:
        if _inside == 0:
            _limits = _known_libraries().limit(limits=1)
            arrow = sys.modules.get("pyarrow")
            if arrow is not None:
                _arrow_threads = arrow.cpu_count()
                arrow.set_cpu_count(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                assert _limits is not None
                _limits.restore_original_limits()
                arrow = sys.modules.get("pyarrow")
                if arrow is not None and _arrow_threads:
                    arrow.set_cpu_count(_arrow_threads)
                _limits, _arrow_threads = None, 0
