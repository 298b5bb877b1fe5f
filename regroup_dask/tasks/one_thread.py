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
_libraries: list[Any] = []
_threads_before: dict[str, int] = {}
_arrow_threads = 0
_modules_then = 0


def _hold_libraries() -> None:
    """Hold every library with threads of its own to one thread.

    Looking for libraries takes milliseconds, so only when modules were imported. SciPy brings a BLAS beside NumPy's: it
    is loaded before the first look, or the task that happens to import it would run with more threads than the others
    and give other last digits. Each task asks anew, because OpenMP's limit belongs to the thread that sets it.
    """
    global _modules_then
    import scipy.linalg  # noqa: F401

    if len(sys.modules) != _modules_then:
        _modules_then = len(sys.modules)
        _libraries[:] = ThreadpoolController().lib_controllers
    for library in _libraries:
        threads = library.get_num_threads()
        if threads is not None and threads != 1:
            _threads_before.setdefault(library.filepath, threads)
            library.set_num_threads(1)


def _let_go_of_libraries() -> None:
    for library in _libraries:
        if library.filepath in _threads_before:
            library.set_num_threads(_threads_before[library.filepath])
    _threads_before.clear()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS, OpenMP and Arrow to one thread while any task of this process is inside.

    A worker with a nanny has one thread already; one without has as many as the machine has cores. The limit belongs
    to the process, so it is taken by the first task to come and given back by the last to go: with several worker
    threads a task must not lift the limit under its neighbour. Libraries that are loaded meanwhile are held from the
    next task on.
    """
    global _inside, _arrow_threads
    with _lock:
        _hold_libraries()
        if _inside == 0:
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
                _let_go_of_libraries()
                arrow = sys.modules.get("pyarrow")
                if arrow is not None and _arrow_threads:
                    arrow.set_cpu_count(_arrow_threads)
                _arrow_threads = 0
