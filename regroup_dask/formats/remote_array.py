"""Arrays in files: mapped where they lie on this machine, read by ranges or copied here where they do not."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections import OrderedDict
from typing import Any, cast

import numpy as np

from regroup_dask.formats import storage, storing

COPIES_BYTES = 16 * 2**30
"""Copies of remote files that a process keeps on its disk, at most; the one asked for last is always kept."""

_copies: OrderedDict[tuple[str, Any], np.ndarray] = OrderedDict()
_copies_lock = threading.Lock()


class RangeArray:
    """An array in a remote file; indexing it reads the needed range of its first axis, as a new array.

    Parameters
    ----------
    url : str
    dtype : numpy.dtype
    offset : int
        Bytes before the first value.
    shape : tuple of int
    """

    def __init__(self, url: str, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> None:
        self.url, self.dtype, self.offset, self.shape = url, dtype, offset, shape
        self.axes = tuple(range(len(shape)))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        if isinstance(first, int | np.integer):
            position = range(len(self))[int(first)]
            return self._planes(position, position + 1)[(0, *rest)]
        chosen = range(*first.indices(len(self)))
        if not len(chosen):
            return self._planes(0, 0)[(slice(None), *rest)]
        begin, end = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
        back = slice(None, None, chosen.step) if chosen.step != 1 else slice(None)
        return self._planes(begin, end)[(back, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def transpose(self, axes: tuple[int, ...]) -> RangeArray:
        """Exchange axes; the first stays the first, because it is the one that ranges are cut along."""
        if axes[0] != 0:
            raise ValueError(f"an array that is read by ranges keeps its first axis: {axes}")
        turned = RangeArray(self.url, self.dtype, self.offset, self.shape)
        turned.axes = tuple(self.axes[axis] for axis in axes)
        turned.shape = tuple(self.shape[axis] for axis in axes)
        return turned

    def _planes(self, begin: int, end: int) -> np.ndarray:
        stored = tuple(self.shape[self.axes.index(axis)] for axis in range(self.ndim))[1:]
        step = math.prod(stored) * self.dtype.itemsize
        data = storage.read_range(self.url, self.offset + begin * step, self.offset + end * step)
        return np.frombuffer(data, self.dtype).reshape(end - begin, *stored).transpose(self.axes)


def mapped(
    path: storage.PathOrUrl, dtype: Any, *, offset: int, shape: tuple[int, ...], by_ranges: bool = True
) -> np.ndarray:
    """Return an array in a file without reading it.

    Parameters
    ----------
    by_ranges
        Whether it will be cut along its first axis. If not, a remote file is copied to this machine first.
    """
    kind = np.dtype(dtype)
    if not storage.is_remote(path):
        return np.memmap(path, dtype=kind, mode="r", offset=offset, shape=shape)
    if by_ranges:
        # Indexed like an array, which is all that is done with it.
        return cast(np.ndarray, RangeArray(str(path), kind, offset, shape))
    return _copied(str(path), lambda name: np.memmap(name, dtype=kind, mode="r", offset=offset, shape=shape))


def load_mapped(path: storage.PathOrUrl) -> np.ndarray:
    """Return the array of a NumPy file, memory-mapped; a remote file is copied to this machine, once per process."""
    if not storage.is_remote(path):
        return cast(np.ndarray, np.load(path, mmap_mode="r", allow_pickle=False))
    return _copied(str(path), lambda name: np.load(name, mmap_mode="r", allow_pickle=False))


def _copied(url: str, opened: Any) -> np.ndarray:
    """Map a copy that has no name any more: its room is free again when nothing refers to it."""
    key = (url, storage.change_stamp(url))
    with _copies_lock:
        if key in _copies:
            _copies.move_to_end(key)
            return _copies[key]
    descriptor, name = tempfile.mkstemp(prefix="regroup_dask_")
    os.close(descriptor)
    try:
        storing.copy_file(url, name)
        values: np.ndarray = opened(name)
    finally:
        os.unlink(name)
    with _copies_lock:
        _copies[key] = values
        while sum(kept.nbytes for kept in _copies.values()) > COPIES_BYTES and len(_copies) > 1:
            _copies.popitem(last=False)
    return values
