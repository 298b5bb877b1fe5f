"""The header of an MRC map: what it says, what is assumed where it says nothing, and what is refused.

Real headers lie in many small ways (voxel size 0, machine stamp 0, axis order 3-1-2, no angles). What can be
understood is read and noted; what cannot be meant as a class map is refused with a sentence. The layout is
that of MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192, 146); the header's dtype is the mrcfile package's.
"""

from __future__ import annotations

import bz2
import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from regroup_dask.errors import InputError
from regroup_dask.formats import storage

HEADER_BYTES = 1024
DATA_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
SMALLEST_VOXEL_ANGSTROM = 0.1
LARGEST_VOXEL_ANGSTROM = 100.0
ANISOTROPY_LIMIT = 0.001
ANGLE_LIMIT_DEGREES = 0.01


class MapHeader(NamedTuple):
    """What the header of one map says, as understood here.

    Attributes
    ----------
    path : str
    shape : tuple of int
        (z, y, x), after the axis order has been taken into account.
    dtype : str
        NumPy dtype of the values in the file, byte order included.
    mode : int
        MRC data mode.
    compression : {"", "gzip", "bzip2"}
    data_offset : int
        Bytes before the first value.
    axis_order : tuple of int
        (mapc, mapr, maps): the cell axis of columns, rows, sections; 1, 2, 3 = x, y, z.
    voxel_size_xyz : tuple of float
        Angstrom, as in the header, sensible or not.
    voxel_size_angstrom : float or None
        None when the header's value is 0, absurd or not a number.
    cell_angles : tuple of float
        Degrees.
    start_xyz : tuple of int
        nxstart, nystart, nzstart on the axes x, y, z, in voxels; not applied to the frame.
    origin_xyz : tuple of float
        Angstrom; not applied to the frame.
    space_group : int
    labels : tuple of str
    notes : tuple of str
        What was assumed, a sentence each.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: str
    mode: int
    compression: Literal["", "gzip", "bzip2"]
    data_offset: int
    axis_order: tuple[int, int, int]
    voxel_size_xyz: tuple[float, float, float]
    voxel_size_angstrom: float | None
    cell_angles: tuple[float, float, float]
    start_xyz: tuple[int, int, int]
    origin_xyz: tuple[float, float, float]
    space_group: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def transpose(self) -> tuple[int, int, int]:
        """Axes of the file's array [section, row, column] in the order z, y, x."""
        of_file = self.axis_order[::-1]
        return of_file.index(3), of_file.index(2), of_file.index(1)

    @property
    def file_shape(self) -> tuple[int, int, int]:
        """Sections, rows, columns, as stored."""
        by_axis = dict(zip((3, 2, 1), self.shape, strict=True))
        return by_axis[self.axis_order[2]], by_axis[self.axis_order[1]], by_axis[self.axis_order[0]]

    @property
    def data_bytes(self) -> int:
        """Bytes the values take, uncompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def read_header(path: str | Path) -> MapHeader:
    """Read and check the header of an MRC or CCP4 map, compressed or not.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    MapHeader

    Raises
    ------
    InputError
        The file is missing, not MRC, of a data mode that holds no density, or truncated.
    """
    path = os.fspath(path)
    raw = _start(path)
    compression = _compression(raw)
    if compression:
        try:
            with _open(path, compression) as stream:
                raw = stream.read(HEADER_BYTES)
        except (OSError, EOFError) as error:
            raise InputError(f"{path} cannot be read as a map: {error}.") from error
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path} is no MRC map: it has {len(raw)} bytes and an MRC header alone has 1024.")
    notes: list[str] = []
    header = _in_byte_order(raw, path, notes)
    mode = int(header["mode"])
    if mode not in DATA_TYPES:
        raise InputError(
            f"{path} has MRC data mode {mode}, which holds no density that can be compared; "
            "write it again in mode 2 (32-bit floats)."
        )
    if mode == 0:
        notes.append("its 8-bit values are read as signed, as MRC2014 says")
    axis_order = _axis_order(header, path, notes)
    counts = {
        axis_order[0]: int(header["nx"]),
        axis_order[1]: int(header["ny"]),
        axis_order[2]: int(header["nz"]),
    }
    starts = {
        axis_order[0]: int(header["nxstart"]),
        axis_order[1]: int(header["nystart"]),
        axis_order[2]: int(header["nzstart"]),
    }
    start_xyz = (starts[1], starts[2], starts[3])
    if any(start_xyz):
        notes.append(f"its start (nxstart, nystart, nzstart) = {start_xyz} does not move the frame")
    origin = _triple(header["origin"])
    if any(origin):
        notes.append(f"its origin {origin} does not move the frame")
    voxel_size_xyz = _voxel_sizes(header, counts)
    voxel_size = _sensible_voxel_size(voxel_size_xyz)
    if voxel_size is None and _sensible(min(voxel_size_xyz)) and _sensible(max(voxel_size_xyz)):
        notes.append(f"its voxels are not cubic: {_text(voxel_size_xyz)} A on x, y, z")
    elif voxel_size is None:
        notes.append(f"its header's voxel size {_text(voxel_size_xyz)} A is not a voxel size")
    elif all(abs(value - 1.0) < 1e-6 for value in voxel_size_xyz):
        notes.append(
            "its header's voxel size is exactly 1 A, which many programs write when they do not know it"
        )
    understood = MapHeader(
        path=path,
        shape=(counts[3], counts[2], counts[1]),
        dtype=np.dtype(DATA_TYPES[mode]).newbyteorder(header.dtype["nx"].byteorder).str,
        mode=mode,
        compression=compression,
        data_offset=HEADER_BYTES + int(header["nsymbt"]),
        axis_order=axis_order,
        voxel_size_xyz=voxel_size_xyz,
        voxel_size_angstrom=voxel_size,
        cell_angles=_cell_angles(header, notes),
        start_xyz=start_xyz,
        origin_xyz=origin,
        space_group=int(header["ispg"]),
        labels=_labels(header),
        notes=tuple(notes),
    )
    _check_size(understood)
    return understood


def check_class_map(header: MapHeader) -> None:
    """Refuse a map that cannot be a class map or a mask: not a cube, not orthogonal, voxels not cubic.

    Raises
    ------
    InputError
    """
    z, y, x = header.shape
    if not z == y == x:
        raise InputError(
            f"{header.path} is {x} x {y} x {z} voxels (x, y, z), not a cube; class maps have one box size on "
            "all axes."
        )
    if z < 8:
        raise InputError(f"{header.path} has a box of {z} voxels; maps need at least 8.")
    if any(abs(angle - 90.0) > ANGLE_LIMIT_DEGREES for angle in header.cell_angles):
        raise InputError(
            f"{header.path} has cell angles {_text(header.cell_angles)} degrees; only orthogonal maps can be "
            "compared."
        )
    sizes = header.voxel_size_xyz
    if header.voxel_size_angstrom is None and _sensible(min(sizes)) and _sensible(max(sizes)):
        raise InputError(
            f"{header.path} has voxels of {_text(sizes)} A on x, y, z; "
            f"they may differ by {ANISOTROPY_LIMIT:.1%} at most, so resample the map to cubic voxels."
        )


def _start(path: str) -> bytes:
    try:
        with storage.open_reading(path, buffering=HEADER_BYTES) as stream:
            return stream.read(HEADER_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise InputError(
            f"{path} is a folder, not a map; name the maps in it, as in '{path.rstrip('/')}/*.mrc'."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _compression(start: bytes) -> Literal["", "gzip", "bzip2"]:
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    return "bzip2" if start[:3] == b"BZh" else ""


def _open(path: str, compression: str) -> IO[bytes]:
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(storage.open_reading(path) if storage.is_remote(path) else path, "rb"))
    if compression == "bzip2":
        return cast(IO[bytes], bz2.open(storage.open_reading(path) if storage.is_remote(path) else path, "rb"))
    return storage.open_reading(path, buffering=HEADER_BYTES)


def unpack(header: MapHeader) -> bytes:
    """Values of a compressed map.

    Raises
    ------
    InputError
        The file ends early or is damaged.
    """
    try:
        with _open(header.path, header.compression) as stream:
            stream.read(header.data_offset)
            values = stream.read(header.data_bytes)
    except (OSError, EOFError) as error:
        raise InputError(f"{header.path} cannot be unpacked: {error}.") from error
    if len(values) < header.data_bytes:
        raise _truncated(header, header.data_offset + len(values))
    return values


def _in_byte_order(raw: bytes, path: str, notes: list[str]) -> np.ndarray:
    little = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder("<"))[0]
    big = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(">"))[0]
    stamp = bytes(little["machst"])
    stamped = {b"\x44\x44": little, b"\x44\x41": little, b"\x11\x11": big}.get(stamp[:2])
    if stamped is not None and _plausible(stamped):
        return stamped
    for header, name in ((little, "little"), (big, "big")):
        if _plausible(header):
            notes.append(f"its machine stamp {stamp.hex(' ')} is not one; {name}-endian values are assumed")
            return header
    dimensions = ", ".join(str(int(little[name])) for name in ("nx", "ny", "nz", "mode"))
    raise InputError(f"{path} is no MRC map: nx, ny, nz and mode in its header would be {dimensions}.")


def _plausible(header: np.ndarray) -> bool:
    counts = [int(header[name]) for name in ("nx", "ny", "nz")]
    return (
        all(1 <= count <= 65536 for count in counts)
        and 0 <= int(header["mode"]) <= 101
        and int(header["nsymbt"]) >= 0
    )


def _axis_order(header: np.ndarray, path: str, notes: list[str]) -> tuple[int, int, int]:
    order = int(header["mapc"]), int(header["mapr"]), int(header["maps"])
    if order == (0, 0, 0):
        notes.append("its axis order is not set; columns, rows, sections = x, y, z is assumed")
        return 1, 2, 3
    if sorted(order) != [1, 2, 3]:
        raise InputError(f"{path} has axis order (mapc, mapr, maps) = {order}, which is no order of 1, 2, 3.")
    if order != (1, 2, 3):
        notes.append(f"its axis order is {order}; its axes are brought to x, y, z")
    return order


def _voxel_sizes(header: np.ndarray, counts: dict[int, int]) -> tuple[float, float, float]:
    sizes = []
    for axis, name in ((1, "x"), (2, "y"), (3, "z")):
        sampling = int(header[f"m{name}"])
        # Some programs leave mx, my, mz at 0; the cell then spans the box.
        intervals = sampling if sampling > 0 else counts[axis]
        sizes.append(float(header["cella"][name]) / intervals)
    return sizes[0], sizes[1], sizes[2]


def _sensible(size: float) -> bool:
    return math.isfinite(size) and SMALLEST_VOXEL_ANGSTROM < size <= LARGEST_VOXEL_ANGSTROM


def _sensible_voxel_size(sizes: tuple[float, float, float]) -> float | None:
    if not all(_sensible(size) for size in sizes):
        return None
    if max(sizes) - min(sizes) > ANISOTROPY_LIMIT * min(sizes):
        return None
    # float32 cell / n: six digits are meant, and 3.5999999 is not.
    return float(f"{sum(sizes) / 3:.6g}")


def _cell_angles(header: np.ndarray, notes: list[str]) -> tuple[float, float, float]:
    cell = header["cellb"]
    angles = float(cell["alpha"]), float(cell["beta"]), float(cell["gamma"])
    if angles == (0.0, 0.0, 0.0):
        notes.append("its cell angles are not set; 90 degrees are assumed")
        return 90.0, 90.0, 90.0
    return angles


def _triple(record: np.ndarray) -> tuple[float, float, float]:
    return float(record["x"]), float(record["y"]), float(record["z"])


def _labels(header: np.ndarray) -> tuple[str, ...]:
    texts = (bytes(label).decode("latin-1").replace("\0", " ").strip() for label in header["label"])
    return tuple(text for text in texts if text)


def _text(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _check_size(header: MapHeader) -> None:
    expected = header.data_offset + header.data_bytes
    size = storage.size_bytes(header.path)
    if header.compression == "gzip":
        # The last four bytes of a gzip file are its unpacked size; only if they disagree is it worth
        # unpacking.
        claimed = int.from_bytes(storage.read_range(header.path, size - 4, size), "little")
        if claimed != expected % 2**32:
            unpack(header)
    elif not header.compression and size < expected:
        raise _truncated(header, size)


def _truncated(header: MapHeader, size: int) -> InputError:
    z, y, x = header.shape
    return InputError(
        f"{header.path} is truncated: {x} x {y} x {z} voxels of mode {header.mode} need "
        f"{header.data_offset + header.data_bytes} bytes and it has {size}; copy it again."
    )
