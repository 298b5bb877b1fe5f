"""cryoDRGN: labels and indices of particles, and its analysis folders.

cryoDRGN keeps arrays as pickles. A pickle is a program, and one from a stranger is never run here: `read_labels`
follows its instructions with stand-ins for NumPy's constructors and nothing else, and puts the array together from
the bytes that are left.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.job import Job
from regroup_dask.formats.parquet_particles import open_parquet_particles
from regroup_dask.formats.particles import ParticleSource

MAX_PICKLE_BYTES = 16 * 2**30
ARRAY_MAKERS = {("numpy._core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "_reconstruct")}
PLAIN_TYPE = re.compile(r"[<>|=]?([iu][1248]|f[248]|b1)")
MAP_NAME = re.compile(r"vol_(\d{1,6})\.mrc")


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as cryoDRGN does, one pickle; the same values give the same bytes."""
    with open(path, "wb") as stream:
        pickle.dump(np.ascontiguousarray(values), stream, protocol=4)


def read_array(path: str | Path) -> np.ndarray:
    """Read a pickled array of numbers without running the pickle.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, or holds anything else than one array of numbers.
    """
    try:
        if storage.size_bytes(path) > MAX_PICKLE_BYTES:
            raise InputError(f"{path} is larger than labels can be.")
        data = storage.read_bytes(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        return _array_of(_Reader(io.BytesIO(data)).load(), data)
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

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_MAKERS:
            return _make_array
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
    if not isinstance(content, bytes) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise _RefusedError("an array of objects")
    order = kind.order if kind.order in "<>" else ""
    dtype = np.dtype(order + kind.name.lstrip("<>|="))
    size = 1
    for extent in shape:
        size *= extent
    if size * dtype.itemsize != len(content) or len(content) > len(data):
        raise _RefusedError("an array whose size and bytes disagree")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


def read_labels(folder: str | Path) -> tuple[np.ndarray, dict[int, str]]:
    """Read the labels of an analysis folder (``kmeansN`` or ``analyze.E/kmeansN``) and find its maps.

    Maps are numbered from 0 up to cryoDRGN 3.2 and from 1 later; labels are always from 0.

    Returns
    -------
    labels : i64[n]
        Class of each particle, from 0.
    maps : dict of int to str
        Path of the map of each class.

    Raises
    ------
    InputError
        There are no labels or maps, or the two do not fit together.
    """
    labels = read_array(os.path.join(folder, "labels.pkl"))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(f"{folder}/labels.pkl has shape {labels.shape} and type {labels.dtype}, and is no labels.")
    numbers = {
        int(match[1]): os.path.join(folder, name)
        for name in storage.file_names(folder)
        if (match := MAP_NAME.fullmatch(name))
    }
    if len(numbers) < 2:
        raise InputError(f"{folder} has {len(numbers)} maps vol_NNN.mrc: at least 2 are needed.")
    base, last = min(numbers), int(labels.max())
    if base not in (0, 1) or sorted(numbers) != list(range(base, base + len(numbers))):
        raise InputError(f"{folder}: its maps vol_NNN.mrc are not numbered without gaps from 0 or 1.")
    if labels.min() < 0 or last >= len(numbers):
        raise InputError(f"{folder}: labels.pkl names class {last}, but there are {len(numbers)} maps.")
    return labels.astype(np.int64), {number - base: path for number, path in numbers.items()}


def recognise_cryodrgn_job(folder: str, file_names: Sequence[str]) -> Job | None:
    """Recognise an analysis folder by its labels and maps."""
    if "labels.pkl" not in file_names or not any(MAP_NAME.fullmatch(name) for name in file_names):
        return None
    labels, maps = read_labels(folder)
    first = min(int(match[1]) for name in file_names if (match := MAP_NAME.fullmatch(name)))
    return Job(
        kind="cryodrgn",
        folder=folder,
        iteration=None,
        particle_files=(os.path.join(folder, "labels.pkl"),),
        passthrough_files=(),
        volume_files=maps,
        class_names={class_id: Path(path).stem for class_id, path in maps.items()},
        lines=(
            f"cryoDRGN analysis in {folder}",
            f"particles: {len(labels)} labels, known by their row in what cryoDRGN was given; no poses",
            f"class maps: {len(maps)}, numbered from {first} (class id 0)",
        ),
    )


def open_labels(paths: Sequence[str], *, fragment_rows: int | None, scratch: str | None) -> ParticleSource:
    """Open labels as particles: ``uid`` is the row, ``class_id`` the label; a copy in parquet is read.

    Raises
    ------
    InputError
        There are several files, or one that holds no labels.
    """
    if len(paths) > 1:
        raise InputError(f"labels of cryoDRGN are read alone, but {len(paths)} files were given with {paths[0]}")
    labels = read_array(paths[0])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(f"{paths[0]} has shape {labels.shape} and type {labels.dtype}, and is no labels.")
    if scratch is not None:
        os.makedirs(scratch, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="labels-", dir=scratch)
    if scratch is None:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = os.path.join(folder, "labels.parquet")
    table = pa.table({"uid": np.arange(len(labels)), "class_id": labels.astype(np.int64)})
    pq.write_table(table, copy, row_group_size=2**20)
    return replace(open_parquet_particles([copy], fragment_rows=fragment_rows), files=tuple(paths))
