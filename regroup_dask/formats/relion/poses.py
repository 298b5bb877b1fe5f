"""Poses in star files: RELION's angles and origins to and from rotation matrices and angstrom.

RELION's matrix A of (rot, tilt, psi) takes the volume to the image; P, its transpose, takes the particle to
the volume and is what the rest of this package calls a particle's rotation: P = Rz(rot) Ry(tilt) Rz(psi).
An origin moves the image by +origin to centre it, in angstrom from 3.1 on (rlnOriginXAngst) and in pixels
before (rlnOriginX).

Priors of a local search (rlnAngleTiltPrior, rlnOriginXPriorAngst, ...) are poses too and move with the class.
RELION takes the pose itself where a prior is missing, and so do we: a file with priors of tilt and psi only
(filaments, particles picked on a membrane) has them moved with its own rot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats.relion.star_columns import FLOAT
from regroup_dask.formats.rotations import matrices_of_angles

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ANGLE_PRIORS = ("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior")
ORIGINS_ANGSTROM = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
ORIGINS_PIXEL = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")
ORIGIN_PRIORS_ANGSTROM = ("rlnOriginXPriorAngst", "rlnOriginYPriorAngst", "rlnOriginZPriorAngst")
ORIGIN_PRIORS_PIXEL = ("rlnOriginXPrior", "rlnOriginYPrior", "rlnOriginZPrior")


class PoseColumns(NamedTuple):
    """The columns of a star file that hold poses."""

    origins: tuple[str, ...]
    """origins in x and y, and z for subtomograms; () where the file has none"""
    in_pixels: bool
    angle_priors: tuple[str, ...]
    """those of `ANGLE_PRIORS` that are there"""
    origin_priors: tuple[str, ...]
    """one for each origin, or ()"""

    @property
    def n_dimensions(self) -> int:
        """2 for images, 3 for subtomograms."""
        return 3 if len(self.origins) == 3 else 2


class PixelSize(NamedTuple):
    """How to know the pixel size of a row's image: from columns of its own, or from its optics group."""

    columns: tuple[str, ...]
    by_group: tuple[tuple[int, float], ...] = ()

    def single(self) -> float | None:
        """Return the pixel size in angstrom if all optics groups have the same."""
        sizes = {size for _, size in self.by_group}
        return sizes.pop() if len(sizes) == 1 else None

    def of_rows(self, table: pa.Table) -> np.ndarray:
        """Pixel size of each row in angstrom, f64[n]; NaN where it cannot be known."""
        if self.by_group:
            sizes = np.full(table.num_rows, np.nan)
            groups = table.column("rlnOpticsGroup").to_numpy()
            for group, size in self.by_group:
                sizes[groups == group] = size
            return sizes
        first = table.column(self.columns[0]).to_numpy().astype(np.float64)
        if len(self.columns) == 1:
            return first
        with np.errstate(divide="ignore", invalid="ignore"):
            return first * 1e4 / table.column(self.columns[1]).to_numpy()  # detector pixel in micrometre


def find_pose_columns(path: str, columns: Sequence[str], types: Sequence[int]) -> PoseColumns | None:
    """Find the pose columns of a file, or None where it has no three angles.

    Raises
    ------
    InputError
        A pose column holds text.
    """
    if not set(ANGLES) <= set(columns):
        return None
    in_pixels = not set(ORIGINS_ANGSTROM[:2]) <= set(columns) and set(ORIGINS_PIXEL[:2]) <= set(columns)
    names, priors = (
        (ORIGINS_PIXEL, ORIGIN_PRIORS_PIXEL) if in_pixels else (ORIGINS_ANGSTROM, ORIGIN_PRIORS_ANGSTROM)
    )
    origins = tuple(name for name in names if name in columns) if set(names[:2]) <= set(columns) else ()
    found = PoseColumns(
        origins,
        in_pixels,
        tuple(name for name in ANGLE_PRIORS if name in columns),
        priors[: len(origins)] if origins and set(priors[: len(origins)]) <= set(columns) else (),
    )
    used = (*ANGLES, *found.origins, *found.angle_priors, *found.origin_priors)
    _check_numbers(path, used, columns, types)
    return found


def find_pixel_size(
    path: str, columns: Sequence[str], types: Sequence[int], optics: Sequence[dict[str, str]]
) -> PixelSize | None:
    """Find where the file says the pixel size of its images, or None.

    Raises
    ------
    InputError
        The columns or optics groups that say it hold text.
    """
    found = None
    if optics and {"rlnImagePixelSize", "rlnOpticsGroup"} <= set(optics[0]) and "rlnOpticsGroup" in columns:
        try:
            by_group = tuple((int(row["rlnOpticsGroup"]), float(row["rlnImagePixelSize"])) for row in optics)
        except ValueError:
            raise InputError(f"{path}: the number or pixel size of an optics group is no number") from None
        found = PixelSize(("rlnOpticsGroup",), by_group)
    elif "rlnImagePixelSize" in columns or "rlnPixelSize" in columns:
        found = PixelSize(("rlnImagePixelSize" if "rlnImagePixelSize" in columns else "rlnPixelSize",))
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(columns):
        found = PixelSize(("rlnDetectorPixelSize", "rlnMagnification"))
    if found is not None:
        _check_numbers(path, found.columns, columns, types)
    return found


def poses_of_rows(
    poses: PoseColumns, table: pa.Table, pixel_size: PixelSize | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation f64[n, 3, 3], particle to volume, and shift f64[n, 2|3] in angstrom of each row."""
    angles = np.stack([_numbers(table, name) for name in ANGLES], axis=1)
    if not poses.origins:
        return matrices_of_angles(angles), np.zeros((table.num_rows, 2))
    shift = np.stack([_numbers(table, name) for name in poses.origins], axis=1)
    if poses.in_pixels:
        if pixel_size is None:
            raise ValueError("origins in pixels need a pixel size")
        shift = shift * pixel_size.of_rows(table)[:, None]
    return matrices_of_angles(angles), shift


def priors_of_rows(
    poses: PoseColumns, table: pa.Table, pixel_size: PixelSize | None
) -> tuple[np.ndarray, np.ndarray]:
    """Like `poses_of_rows` for the prior pose; the pose itself stands in for priors that are missing."""
    angles = [
        _numbers(table, prior if prior in poses.angle_priors else name)
        for name, prior in zip(ANGLES, ANGLE_PRIORS, strict=True)
    ]
    with_priors = poses._replace(origins=poses.origin_priors or poses.origins)
    _, shift = poses_of_rows(with_priors, table, pixel_size)
    return matrices_of_angles(np.stack(angles, axis=1)), shift


def _check_numbers(path: str, names: Sequence[str], columns: Sequence[str], types: Sequence[int]) -> None:
    for name in names:
        if types[list(columns).index(name)] > FLOAT:
            raise InputError(f"{path}: the column _{name} holds values that are no numbers")


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy().astype(np.float64)
