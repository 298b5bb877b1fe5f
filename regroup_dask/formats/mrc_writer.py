"""Write maps as MRC2014, slab by slab, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mrcfile.constants import MAP_ID
from mrcfile.dtypes import HEADER_DTYPE

from regroup_dask.formats import storage, storing
from regroup_dask.formats.mrc_header import HEADER_BYTES
from regroup_dask.formats.slabs import slab_ranges

MRC_FORMAT_VERSION = 20140
LITTLE_ENDIAN_STAMP = (0x44, 0x44, 0, 0)
LABEL = "regroup_dask"


def write_mrc(
    path: str | Path,
    density: np.ndarray | Iterable[np.ndarray],
    *,
    voxel_size_angstrom: float,
    box: int | None = None,
    label: str = LABEL,
) -> None:
    """Write a cubic map in mode 2 (float32), origin and start 0, space group 1.

    The file appears under its name only when it is whole. It is written as a stream rather than through a
    memory map, whose dirty pages would count as this process's memory; no time of writing goes into its
    labels, so that equal maps are equal files.

    Parameters
    ----------
    path : str or Path
    density : float32[z, y, x], or an iterable of consecutive slabs [dz, y, x] of it
        The slabs are taken one at a time, so that a map larger than memory can be written.
    voxel_size_angstrom : float
    box : int, optional
        Voxels per axis; needed with slabs.
    label : str
        First label of the header, up to 79 characters.

    Raises
    ------
    ValueError
        The slabs do not fill a cube of `box` voxels, or the map is no cube.
    """
    if isinstance(density, np.ndarray):
        box = density.shape[0] if box is None else box
        slabs: Iterable[np.ndarray] = (density[begin:end] for begin, end in slab_ranges(density.shape))
    else:
        slabs = density
    if box is None:
        raise ValueError("write_mrc needs box= when it is given slabs")
    statistics = _Statistics()
    planes = 0
    with storing.whole_file(path) as unfinished, open(unfinished, "wb") as stream:
        stream.write(b"\0" * HEADER_BYTES)
        for slab in slabs:
            values = np.ascontiguousarray(slab, dtype="<f4")
            if values.ndim != 3 or values.shape[1:] != (box, box):
                raise ValueError(f"a slab of {path} has shape {values.shape}, not (planes, {box}, {box})")
            planes += values.shape[0]
            statistics.add(values)
            stream.write(values.data)
        if planes != box:
            raise ValueError(f"{path} was given {planes} planes for a box of {box}")
        stream.seek(0)
        stream.write(_header(box, voxel_size_angstrom, statistics, label).tobytes())


def density_range(path: str | Path) -> tuple[float, float]:
    """Lowest and highest density of a map, as `write_mrc` wrote them into its header."""
    header = np.frombuffer(storage.read_range(path, 0, HEADER_BYTES), dtype=HEADER_DTYPE.newbyteorder("<"))[0]
    return float(header["dmin"]), float(header["dmax"])


class _Statistics:
    """Minimum, maximum, mean and standard deviation of values that come in pieces (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.lowest = math.inf
        self.highest = -math.inf

    def add(self, values: np.ndarray) -> None:
        # plane by plane: a float64 copy of a plane is small, of a slab it is not
        for plane in values:
            exact = plane.astype(np.float64)
            count, mean = exact.size, float(exact.mean())
            squares = float(np.square(exact - mean).sum())
            difference, total = mean - self.mean, self.count + count
            self.squares += squares + difference**2 * self.count * count / total
            self.mean += difference * count / total
            self.count = total
            self.lowest = min(self.lowest, float(plane.min()))
            self.highest = max(self.highest, float(plane.max()))

    @property
    def standard_deviation(self) -> float:
        return math.sqrt(self.squares / self.count)


def _header(box: int, voxel_size_angstrom: float, statistics: _Statistics, label: str) -> np.ndarray:
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    for axis in "xyz":
        header[f"n{axis}"] = header[f"m{axis}"] = box
        header["cella"][axis] = box * voxel_size_angstrom
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90.0
    header["mode"] = 2
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"] = statistics.lowest, statistics.highest
    header["dmean"], header["rms"] = statistics.mean, statistics.standard_deviation
    header["ispg"] = 1
    header["nversion"] = MRC_FORMAT_VERSION
    header["map"] = MAP_ID
    header["machst"] = LITTLE_ENDIAN_STAMP
    header["label"][0] = label[:79].encode("ascii", "replace")
    header["nlabl"] = 1
    return header
