"""Arrays in pickles, as cryoDRGN keeps them.

A pickle is a program, and one from a stranger is never run here: `read_arrays` follows its instructions with stand-ins
for NumPy's constructors and nothing else, and puts the arrays together from the bytes that are left.

`create_array_file` lays out a pickle whose arrays are filled later and from many places, so that none of them is ever
held whole. It names NumPy's constructors as versions before 2 did, which later ones understand too.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage

MAX_PICKLE_BYTES = 16 * 2**30
ARRAY_MAKERS = {("numpy._core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "_reconstruct")}
BUFFER_MAKERS = {("numpy._core.numeric", "_frombuffer"), ("numpy.core.numeric", "_frombuffer")}
"""Of protocol 5, which Python 3.14 writes by default."""
PLAIN_TYPE = re.compile(r"[<>|=]?([iu][1248]|f[248]|b1)")


def read_array(path: str | Path) -> np.ndarray:
    """Read a pickled array of numbers without running the pickle.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, or holds anything else than one array of numbers.
    """
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise InputError(f"{path} is a pickle that holds {len(arrays)} arrays: only one array of numbers is read.")
    return arrays[0]


def read_arrays(path: str | Path) -> tuple[np.ndarray, ...]:
    """Read a pickled array of numbers, or a tuple of arrays, without running the pickle.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, or holds anything else.
    """
    try:
        if storage.size_bytes(path) > MAX_PICKLE_BYTES:
            raise InputError(f"{path} is larger than labels or poses can be.")
        data = storage.read_bytes(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = _Reader(io.BytesIO(data)).load()
        several = isinstance(found, tuple) and found and all(isinstance(item, _ArrayStandIn) for item in found)
        return tuple(_array_of(item, data) for item in found) if several else (_array_of(found, data),)
    except _RefusedError as error:
        raise InputError(f"{path} is a pickle that holds {error}: only one array of numbers is read.") from None
    except Exception:
        # A damaged pickle fails in any way there is; nothing of it has been run.
        raise InputError(f"{path} cannot be read as a pickled array of numbers: copy it again.") from None


class _RefusedError(Exception):
    pass


class _ArrayStandIn:
    """What a pickle says of an array: shape, type, order and bytes."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()


class _TypeStandIn:
    """What a pickle says of a dtype: its name, and its byte order."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name, self.order = str(name), "|"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = str(state[1])


class _NamedArray:
    """Stands for the class numpy.ndarray, which a pickle hands to its maker of arrays."""


def _make_array(*_: Any) -> _ArrayStandIn:
    return _ArrayStandIn()


def _array_of_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _ArrayStandIn:
    """An array whose bytes come first, as protocol 5 has it."""
    if order not in ("C", "F") or axes is not None:
        raise _RefusedError("an array in an unknown order")
    array = _ArrayStandIn()
    array.state = (1, shape, kind, order == "F", content)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as old protocols write them."""
    if encoding != "latin1" or not isinstance(text, str):
        raise _RefusedError("text of an unknown encoding")
    return text.encode("latin1")


def _no_bytes(*given: Any) -> bytes:
    """Empty bytes as old protocols write them."""
    if given:
        raise _RefusedError("bytes made of other things")
    return b""


class _Reader(pickle._Unpickler):
    """Finds stand-ins only; the reader in Python, because the one in C has been crashed by damaged files."""

    def load_bytearray8(self) -> None:
        """Read bytes as they are there; Python's own makes room first for as many as a damaged file may say."""
        read, append = self.read, self.append  # type: ignore[attr-defined]
        (n_bytes,) = struct.unpack("<Q", read(8))
        append(read(n_bytes))

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_MAKERS:
            return _make_array
        if (module, name) in BUFFER_MAKERS:
            return _array_of_buffer
        if (module, name) == ("numpy", "ndarray"):
            return _NamedArray
        if (module, name) == ("numpy", "dtype"):
            return _TypeStandIn
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in (("__builtin__", "bytes"), ("builtins", "bytes")):
            return _no_bytes
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("references to other files")


def _array_of(found: Any, data: bytes) -> np.ndarray:
    if isinstance(found, list | tuple) and all(type(item) is int for item in found):
        return np.array(found, np.int64)
    if not isinstance(found, _ArrayStandIn) or len(found.state) != 5:
        raise _RefusedError(f"a {type(found).__name__.strip('_')}")
    _, shape, kind, fortran, content = found.state
    if not isinstance(kind, _TypeStandIn) or not PLAIN_TYPE.fullmatch(kind.name) or kind.order not in "<>|=":
        raise _RefusedError("an array of other things than numbers")
    known = isinstance(content, bytes) and isinstance(shape, tuple)
    if not known or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise _RefusedError("an array of objects")
    order = kind.order if kind.order in "<>" else ""
    dtype = np.dtype(order + kind.name.lstrip("<>|="))
    size = 1
    for extent in shape:
        size *= extent
    if size * dtype.itemsize != len(content) or len(content) > len(data):
        raise _RefusedError("an array whose size and bytes disagree")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


@dataclass(frozen=True)
class ArrayFile:
    """A pickle of arrays whose rows are written in any order; small and picklable."""

    path: str
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]

    @property
    def arrays(self) -> range:
        """Numbers of its arrays."""
        return range(len(self.dtypes))

    def as_stored(self, array: int, rows: np.ndarray) -> np.ndarray:
        """Bytes of rows of one of the arrays."""
        return np.ascontiguousarray(rows, self.dtypes[array]).reshape(-1).view(np.uint8)

    def write(self, array: int, first_row: int, rows: np.ndarray) -> None:
        """Write rows of one of the arrays; doing so again changes nothing."""
        shape, dtype = self.shapes[array], np.dtype(self.dtypes[array])
        if rows.shape[1:] != shape[1:] or not 0 <= first_row <= shape[0] - len(rows):
            raise ValueError(f"{self.path} has the shape {shape}: no place for {rows.shape} from row {first_row}")
        if not len(rows):
            return
        data = memoryview(self.as_stored(array, rows).data)
        position = self.offsets[array] + first_row * dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            while data:
                written = os.pwrite(descriptor, data, position)
                data, position = data[written:], position + written
        finally:
            os.close(descriptor)


def create_array_file(path: str | Path, arrays: Sequence[tuple[str, tuple[int, ...]]]) -> ArrayFile:
    """Make a pickle of one array of zeros, or of a tuple of two or three.

    Parameters
    ----------
    path : path
    arrays : sequence of (str, tuple of int)
        Little-endian type, such as ``<f4``, and shape of each.
    """
    file = array_file(path, arrays)
    heads, end = pickle_around(arrays)
    with open(path, "wb") as stream:
        for head, offset, dtype, shape in zip(heads, file.offsets, file.dtypes, file.shapes, strict=True):
            stream.write(head)
            position = offset + _n_bytes(dtype, shape)
            stream.truncate(position)
            stream.seek(position)
        stream.write(end)
    return file


def array_file(path: str | Path, arrays: Sequence[tuple[str, tuple[int, ...]]]) -> ArrayFile:
    """Say where the rows of such a pickle lie, without making it."""
    offsets, position = [], 0
    for head, (dtype, shape) in zip(pickle_around(arrays)[0], arrays, strict=True):
        position += len(head)
        offsets.append(position)
        position += _n_bytes(dtype, shape)
    dtypes, shapes = tuple(dtype for dtype, _ in arrays), tuple(shape for _, shape in arrays)
    return ArrayFile(str(path), dtypes, shapes, tuple(offsets))


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))


def pickle_around(arrays: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[list[bytes], bytes]:
    """What stands in such a pickle before the bytes of each array, and at its end."""
    heads, before = [], b"\x80\x04"
    for dtype, shape in arrays:
        heads.append(before + _array_head(dtype, shape) + b"\x8e" + struct.pack("<Q", _n_bytes(dtype, shape)))
        before = b"tb"
    return heads, before + {1: b"", 2: b"\x86", 3: b"\x87"}[len(arrays)] + b"."


def write_array(path: str | Path, values: np.ndarray) -> None:
    """Write one array of numbers as a pickle; the same values give the same bytes."""
    dtype = values.dtype.newbyteorder("<").str
    create_array_file(path, [(dtype, values.shape)]).write(0, 0, values)


def _array_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Instructions that make an array, up to its bytes: version, shape, type and order of its state."""
    kind, name = np.dtype(dtype), np.dtype(dtype).str[1:].encode()
    order = kind.str[:1].encode()
    numbers = b"".join(_integer(extent) for extent in shape)
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(",
            numbers + b"t",
            b"cnumpy\ndtype\nX" + struct.pack("<I", len(name)) + name + b"\x89\x88\x87R",
            b"(K\x03X\x01\x00\x00\x00" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        ]
    )


def _integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
