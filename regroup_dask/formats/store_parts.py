"""Files that many tasks fill, in an object store: each task writes one part, and a task per file joins them.

In a store nobody can write into the middle of a file. A part holds what one fragment of the particles gives to every
file, section by section, and at its end the lengths and the CRC-32 of the sections as little-endian i64.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import storage, storing

COPY_BYTES = 8 * 2**20


class JoinedFile(NamedTuple):
    """A file that is put together from one section of every part."""

    path: str
    parts: str
    """folder of the parts"""
    n_parts: int
    section: int
    n_sections: int
    before: bytes
    after: bytes
    more: tuple[tuple[bytes, int], ...] = ()
    """further sections of every part, each with the bytes that go before it"""


def write_part(folder: str, index: int, pieces: Iterable[Sequence[Any]], n_sections: int) -> None:
    """Write the part of one fragment; may run twice.

    Parameters
    ----------
    pieces
        Consecutive pieces of all sections: for each section something with bytes, which may be empty.
    """
    sections: list[list[memoryview]] = [[] for _ in range(n_sections)]
    for texts in pieces:
        for section, text in zip(sections, texts, strict=True):
            if len(text):
                section.append(np.ascontiguousarray(text).reshape(-1).view(np.uint8).data)
    lengths = [sum(len(text) for text in section) for section in sections]
    sums = [0] * n_sections
    with storing.opened_writing(_part_path(folder, index)) as stream:
        for number, section in enumerate(sections):
            for text in section:
                stream.write(text)
                sums[number] = zlib.crc32(text, sums[number])
        stream.write(np.array([*lengths, *sums], dtype="<i8").tobytes())


def join_parts(file: JoinedFile) -> None:
    """Put one file together; what is read is sent on, a few megabytes at a time.

    Raises
    ------
    DamagedStoreError
        A part is missing or is not what was written.
    """
    with storing.opened_writing(file.path) as joined:
        for before, section in ((file.before, file.section), *file.more):
            joined.write(before)
            for index in range(file.n_parts):
                _copy_section(file, index, section, joined)
        joined.write(file.after)


def _copy_section(file: JoinedFile, index: int, section: int, joined: BinaryIO) -> None:
    path = _part_path(file.parts, index)
    try:
        start, stop, expected = _range_of_section(path, section, file.n_sections)
        found = 0
        for begin in range(start, stop, COPY_BYTES):
            data = storage.read_range(path, begin, min(begin + COPY_BYTES, stop))
            found = zlib.crc32(data, found)
            joined.write(data)
    except (FileNotFoundError, ValueError):
        raise _damaged(path, index) from None
    if found != expected:
        raise _damaged(path, index)


def _range_of_section(path: str, section: int, n_sections: int) -> tuple[int, int, int]:
    """Begin, end and CRC-32 of a section; a ValueError if the part cannot have been written so."""
    size = storage.size_bytes(path)
    end = size - 16 * n_sections
    index = np.frombuffer(storage.read_range(path, max(end, 0), size), dtype="<i8")
    lengths = index[:n_sections]
    if end < 0 or (lengths < 0).any() or lengths.sum() != end:
        raise ValueError(path)
    start = int(lengths[:section].sum())
    return start, start + int(lengths[section]), int(index[n_sections + section])


def _damaged(path: str, index: int) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path} is damaged or missing: give the same command with --resume, and it is made again.", index
    )


def _part_path(folder: str, index: int) -> str:
    return f"{folder}/{index:06d}.rows"
