"""The prepared maps of a run: a file for each, so that a tile takes each of its maps in one read.

A file holds the arrays of one `PreparedMap` side by side, behind a line of JSON that says their names, types and shapes,
and ends with the CRC-32 of all before it. (As arrays of a zarr group a map took eleven reads and 12 ms, four times as
long as a comparison; this way it takes less than half of that.)
"""

from __future__ import annotations

import json
import mmap
import struct
import threading
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import storage, storing
from regroup_dask.science.prepared_map import PreparedMap
from regroup_dask.tasks import cluster_settings

FOLDER = "prepared"
# Vectorised sums begin where the memory is aligned, so that their last bits depend on where an array happens to lie.
ALIGNMENT = 64
# A cache that is fuller than this takes the memory of maps that it drops.
GROWING_UP_TO = 0.9
_LENGTH = struct.Struct("<Q")
_SUM = struct.Struct("<I")

_cache: OrderedDict[tuple[str, int], PreparedMap] = OrderedDict()
_cache_bytes = 0
# Files whose sum was found right, and their sizes: to sum one up takes three times as long as to read it, and a map that was
# dropped from the cache is read again.
_sound: dict[tuple[str, int], int] = {}
_cache_lock = threading.Lock()


def prepared_path(store: Path, index: int) -> Path:
    """File of one prepared map beside the working maps of a store."""
    return store / FOLDER / f"map_{index:06d}.bin"


def create_folder(store: Path) -> None:
    """Make the folder of the prepared maps."""
    storing.make_folder(store / FOLDER)


def write_prepared(store: Path, index: int, prepared: PreparedMap) -> None:
    """Write one prepared map; the file appears when it is whole."""
    described, parts, at = [], [], 0
    for name, value in prepared._asdict().items():
        array = np.ascontiguousarray(value)
        described.append([name, array.dtype.str, list(array.shape), at])
        padded = array.tobytes() + bytes(-array.nbytes % ALIGNMENT)
        parts.append(padded)
        at += len(padded)
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + _LENGTH.size) % ALIGNMENT)
    whole = b"".join([_LENGTH.pack(len(header)), header, *parts])
    storing.write_bytes(prepared_path(store, index), whole + _SUM.pack(zlib.crc32(whole)))


def read_prepared(store: Path, index: int, *, growing: bool = False, sound_bytes: int | None = None) -> PreparedMap:
    """Read one prepared map.

    Parameters
    ----------
    store, index
        Where it is.
    growing
        Memory for it has yet to come from the system (`_room`).
    sound_bytes
        Size of the file when its sum was found right before; it is not summed up again unless its size is another.

    Raises
    ------
    DamagedStoreError
        Its file is damaged or missing.
    """
    path = prepared_path(store, index)
    try:
        content = _aligned_bytes(path, growing=growing)
    except FileNotFoundError as error:
        raise _damaged(path, index, "is missing") from error
    body = content[: -_SUM.size]
    short = len(content) < _LENGTH.size + _SUM.size
    if short or (len(content) != sound_bytes and zlib.crc32(body.data) != _SUM.unpack(content[-_SUM.size :].tobytes())[0]):
        raise _damaged(path, index, "is damaged")
    (length,) = _LENGTH.unpack(body[: _LENGTH.size].tobytes())
    first = _LENGTH.size + length
    fields = {}
    for name, kind, shape, at in json.loads(body[_LENGTH.size : first].tobytes()):
        dtype = np.dtype(kind)
        n_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        fields[name] = body[first + at : first + at + n_bytes].view(dtype).reshape(shape)
    return PreparedMap(**fields)


def cached_prepared(store: Path, index: int, token: str) -> PreparedMap:
    """Read one prepared map, from this process's cache when it was read before.

    The cache is bounded by the setting ``regroup.map-cache``; to Dask it is unmanaged memory of the worker. `token`
    tells one preparation from the next at the same path.

    Raises
    ------
    DamagedStoreError
        Its file is damaged or missing.
    """
    global _cache_bytes
    key = (f"{store}|{token}", index)
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    limit = cluster_settings.n_bytes("map-cache")
    prepared = read_prepared(store, index, growing=_cache_bytes < GROWING_UP_TO * limit, sound_bytes=_sound.get(key))
    with _cache_lock:
        _sound[key] = prepared_path(store, index).stat().st_size
        if key not in _cache:
            _cache[key] = prepared
            _cache_bytes += _n_bytes(prepared)
            while _cache_bytes > limit and len(_cache) > 1:
                _, dropped = _cache.popitem(last=False)
                _cache_bytes -= _n_bytes(dropped)
    return prepared


def _n_bytes(prepared: PreparedMap) -> int:
    return sum(value.nbytes for value in prepared)


def _room(size: int, *, growing: bool) -> np.ndarray:
    """Memory for so many bytes.

    New memory is asked for with all its pages at once where the system can: to touch them one by one takes longer than to
    read a map, and so may large pages, which a virtual machine has yet to be given. What was given back by maps that were
    dropped needs no new pages.
    """
    if growing and hasattr(mmap, "MAP_POPULATE"):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
    return np.empty(size, np.uint8)


def _aligned_bytes(path: Path, *, growing: bool) -> np.ndarray:
    """The bytes of a file, uint8, read into memory that begins at a multiple of `ALIGNMENT`."""
    with storage.open_reading(path) as stream:
        stream.seek(0, 2)
        size = stream.tell()
        stream.seek(0)
        room = _room(size + ALIGNMENT, growing=growing)
        start = -room.ctypes.data % ALIGNMENT
        content = room[start : start + size]
        done = 0
        while done < size and (count := stream.readinto(content.data[done:])):  # type: ignore[attr-defined]
            done += count
    return content[:done]


def _damaged(path: Path, index: int, what: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"What was prepared of map {index} in {path} {what}: give the same command with --resume, and it is made again.",
        index,
    )
