"""The columnar encodings of ``.cs``, unpacked once into one NumPy file per column.

Both have a magic of six bytes, the length of a JSON header as u32, the header (``dtype``, ``compression``,
``compressed_fields``, and in the newer ``length``), and then each column as a u32 length and its bytes.

* ``\\x95CSDAT``: compressed columns are raw LZ4 blocks; strings are u64 offsets into a heap of NUL-terminated
  strings that makes the rest of the file.
* ``\\x94CSDAT`` (2022): compressed columns are Snappy blocks; strings are fixed-width as in NumPy.

A compressed column can only be decompressed whole, so row ranges need the columns laid out plainly; this
reads the file once, with one column (and the heap of strings) in memory at a time. The reader of
cryosparc-tools fills a whole table in memory and follows string offsets unchecked, which a damaged file must
not make us do; the tests hold the two against each other.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.cryosparc.dataset_file import MAX_HEADER_BYTES, column_path

TEXT_BYTES = 8 * 2**20
COMPRESSIONS = {"lz4": "lz4_raw", "snap": "snappy"}


def unpack_columns(path: str, scratch: str) -> tuple[str, np.dtype, int]:
    """Lay out the columns of a columnar file in a new folder under ``scratch``.

    Returns
    -------
    folder, dtype, n_rows
        dtype is the record the columns would make, strings as ``S`` as wide as the longest.

    Raises
    ------
    InputError
        The file is damaged or truncated.
    """
    folder = tempfile.mkdtemp(prefix="columns-", dir=scratch)
    try:
        with storage.open_reading(path) as stream:
            dtype, n_rows = _unpack(stream, folder)
    except _DamageError as error:
        shutil.rmtree(folder)
        raise InputError(f"{path} is a damaged CryoSPARC file: {error}; copy it again") from None
    return folder, dtype, n_rows


class _DamageError(Exception):
    pass


def _unpack(stream: BinaryIO, folder: str) -> tuple[np.dtype, int]:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    magic = stream.read(6)
    header_size = _read_length(stream)
    if header_size > min(MAX_HEADER_BYTES, size):
        raise _DamageError(f"its header of {header_size} bytes does not fit")
    try:
        header: dict[str, Any] = json.loads(stream.read(header_size))
        fields = [(str(f[0]), np.dtype(f[1]), tuple(map(int, f[2])) if len(f) > 2 else ()) for f in header["dtype"]]
        compressed = set(header["compressed_fields"])
        codec = COMPRESSIONS[header["compression"]] if compressed else None
    except (ValueError, TypeError, KeyError, LookupError, SyntaxError, RecursionError) as error:
        raise _DamageError(f"its header cannot be understood ({error})") from None
    if any(kind.base.kind not in "uifcSO" or kind.subdtype or kind.names for _, kind, _ in fields):
        raise _DamageError("its header names types that no column has")
    if any(not 0 < extent < 2**16 for _, _, shape in fields for extent in shape):
        raise _DamageError("its header has a column of an impossible shape")
    places, n_rows = _locate(stream, fields, header, magic, size)
    heap_start = stream.tell()

    described = []
    for index, (name, kind, shape) in enumerate(fields):
        if kind.kind == "S" and not kind.itemsize:
            raise _DamageError(f"column {name} has strings of no width")
        stored = np.dtype("<u8") if kind.kind == "O" else kind
        expected = n_rows * stored.itemsize * int(np.prod(shape, dtype=np.int64))
        if n_rows:
            start, length = places[index]
            stream.seek(start)
            values = _decode(stream.read(length), codec if name in compressed else None, expected, name)
        else:
            values = b""
        column = np.frombuffer(values, stored).reshape(n_rows, *shape)
        if kind.kind == "O":
            stream.seek(heap_start)
            texts, inverse = _strings(column, stream.read(), name)
            _save_texts(column_path(folder, index), texts, inverse, column.shape)
            described.append((name, texts.dtype, shape))
        else:
            np.save(column_path(folder, index), column)
            described.append((name, column.dtype, shape))
    try:
        return np.dtype(described), n_rows
    except ValueError as error:
        raise _DamageError(str(error)) from None


def _locate(
    stream: BinaryIO, fields: list, header: dict[str, Any], magic: bytes, size: int
) -> tuple[list[tuple[int, int]], int]:
    """Find the byte range of every column, and the number of rows."""
    n_rows = header.get("length")
    places: list[tuple[int, int]] = []
    if n_rows != 0 or magic == b"\x94CSDAT":
        for name, kind, _ in fields:
            length = _read_length(stream)
            start = stream.tell()
            if start + length > size:
                raise _DamageError(f"it ends within column {name}")
            places.append((start, length))
            stream.seek(length, os.SEEK_CUR)
            # Identifiers do not compress and are stored plainly, which tells the number of rows for sure.
            if name == "uid" and kind == np.dtype("<u8"):
                if n_rows is not None and n_rows * 8 != length:
                    raise _DamageError(f"its header says {n_rows} rows, its uids are {length // 8}")
                n_rows = length // 8
    if not isinstance(n_rows, int) or all(name != "uid" for name, _, _ in fields):
        raise _DamageError("it has no column uid")
    return places, n_rows


def _read_length(stream: BinaryIO) -> int:
    data = stream.read(4)
    if len(data) < 4:
        raise _DamageError("it ends too early")
    return int(struct.unpack("<I", data)[0])


def _decode(data: bytes, codec: str | None, expected: int, name: str) -> bytes:
    if codec is not None and expected:
        # A block cannot expand more than 255 times (LZ4), which bounds what a hostile header can make us
        # allocate.
        if expected > 256 * len(data) + 64:
            raise _DamageError(f"column {name} is too short")
        try:
            data = pa.decompress(data, decompressed_size=expected, codec=codec, asbytes=True)
        except (OSError, pa.ArrowException) as error:
            raise _DamageError(f"column {name} cannot be decompressed ({error})") from None
    if len(data) != expected:
        raise _DamageError(f"column {name} has {len(data)} bytes instead of {expected}")
    return data


def _save_texts(path: str, texts: np.ndarray, inverse: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write ``texts[inverse]`` as a NumPy file, some rows at a time: as fixed-width text it is the largest column by far."""
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": texts.dtype.str, "fortran_order": False, "shape": shape})
        step = max(1, TEXT_BYTES // texts.dtype.itemsize)
        for start in range(0, len(inverse), step):
            texts[inverse[start : start + step]].tofile(stream)


def _strings(offsets: np.ndarray, heap: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Look up NUL-terminated strings of the heap: those that there are, and which of them each row has."""
    unique, inverse = np.unique(offsets, return_inverse=True)
    if len(unique) and int(unique[-1]) >= max(len(heap), 1):
        raise _DamageError(f"column {name} refers to text beyond the end")
    texts = []
    for offset in unique.tolist():
        end = heap.find(b"\0", offset)
        texts.append(heap[offset : end if end >= 0 else len(heap)])
    width = max([1, *map(len, texts)])
    if len(offsets) * width > 64 * (len(heap) + 8 * len(offsets)) + 2**20:
        raise _DamageError(f"column {name} has a string of {width} bytes")
    return np.array(texts, dtype=f"S{width}"), inverse.reshape(-1)
