"""The superclass maps as surfaces from three directions, all at one scale, by one rule for the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.pictures import shades_of
from regroup_dask.report.side_by_side import side_by_side
from regroup_dask.report.surface import (
    DIRECTION_WORDS,
    DIRECTIONS,
    Direction,
    View,
    surface_threshold,
    surface_view,
    without_dust,
)
from regroup_dask.science.fourier import fourier_crop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_BOX = 96
LARGEST_READ_BYTES = 2**30
MARGIN = 1.06
MOST_NAMED = 6


class DrawnSuperclass(NamedTuple):
    """Views of one superclass.

    Attributes
    ----------
    superclass
        Its number.
    threshold
        Density of the surface, in the units of the map.
    views
        One for each direction.
    """

    superclass: int
    threshold: float
    views: dict[Direction, View]


class DrawnSuperclasses(NamedTuple):
    """All superclasses at one scale; `width_angstrom` is the width of every picture."""

    drawn: tuple[DrawnSuperclass, ...]
    width_angstrom: float


def superclass_maps(volumes: xr.Dataset | None, moved_classes: xr.DataArray | None, groups: xr.Dataset) -> xr.DataArray | None:
    """Small maps of the superclasses, for drawing.

    Parameters
    ----------
    volumes
        ``density`` (superclass, z, y, x), or None. Read when it is not large, and cropped in Fourier space.
    moved_classes
        Working maps of the classes in their superclass frames, (class_id, z, y, x), or None; averaged when
        `volumes` would take long to read.
    groups
        As of `regroup_dask.group`.

    Returns
    -------
    xarray.DataArray or None
        (superclass, z, y, x), with the attribute voxel_size_angstrom.
    """
    if volumes is not None and (volumes["density"].nbytes <= LARGEST_READ_BYTES or moved_classes is None):
        density = volumes["density"]
        box = min(DRAWN_BOX, density.sizes["x"])
        box -= (box - density.sizes["x"]) % 2 if box < density.sizes["x"] else 0
        maps = [_reduced(density[index].values, box) for index in range(density.sizes["superclass"])]
        voxel_size = float(density.attrs.get("voxel_size_angstrom", volumes.attrs.get("voxel_size_angstrom", 1.0)))
        voxel_size *= density.sizes["x"] / box
    elif moved_classes is not None:
        labels = groups["superclass"].sel(class_id=moved_classes["class_id"]).values
        count = int(groups.sizes["superclass_id"])
        maps = [moved_classes.values[labels == label].mean(axis=0) for label in range(count)]
        voxel_size = float(moved_classes.attrs["voxel_size_angstrom"])
    else:
        return None
    return xr.DataArray(
        np.stack(maps),
        dims=("superclass", "z", "y", "x"),
        coords={"superclass": np.arange(len(maps))},
        attrs={"voxel_size_angstrom": voxel_size},
    )


def _reduced(volume: NDArray[np.float32], box: int) -> NDArray[np.float32]:
    return volume if volume.shape[0] == box else fourier_crop(np.asarray(volume, np.float32), box)


def draw_superclasses(maps: xr.DataArray, *, pixels: int = 320) -> DrawnSuperclasses:
    """Draw every superclass map from three directions at one scale.

    Parameters
    ----------
    maps
        (superclass, z, y, x) with the attribute voxel_size_angstrom.
    pixels
        Width and height of a picture.

    Returns
    -------
    DrawnSuperclasses
    """
    voxel_size = float(maps.attrs.get("voxel_size_angstrom", 1.0))
    thresholds = [surface_threshold(volume) for volume in maps.values]
    clean = [without_dust(volume, level) for volume, level in zip(maps.values, thresholds, strict=True)]
    lowest, highest = surface_extent(clean, thresholds)
    centre = (lowest + highest) / 2
    half_width = float((highest - lowest).max() / 2 * MARGIN + 0.5)

    def draw(superclass: int, direction: Direction) -> View:
        return surface_view(
            clean[superclass],
            threshold=thresholds[superclass],
            direction=direction,
            half_width=half_width,
            pixels=pixels,
            centre=tuple(centre),
        )

    wanted = [(superclass, direction) for superclass in range(len(clean)) for direction in DIRECTIONS]
    views = dict(zip(wanted, side_by_side(lambda one: draw(*one), wanted), strict=True))
    drawn = tuple(
        DrawnSuperclass(
            superclass, threshold, {direction: views[superclass, direction] for direction in DIRECTIONS}
        )
        for superclass, threshold in enumerate(thresholds)
    )
    return DrawnSuperclasses(drawn, 2 * half_width * voxel_size)


def surface_extent(
    volumes: Sequence[NDArray[np.floating]], thresholds: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest coordinate of what any of the maps has above its threshold.

    Returns
    -------
    lowest, highest
        (z, y, x) in voxels from the origin voxel ``n // 2``.
    """
    size = volumes[0].shape[0]
    lowest, highest = np.full(3, np.inf), np.full(3, -np.inf)
    for volume, threshold in zip(volumes, thresholds, strict=True):
        solid = volume > threshold
        for axis in range(3):
            along = np.flatnonzero(solid.any(axis=tuple(other for other in range(3) if other != axis)))
            if along.size:
                lowest[axis] = min(lowest[axis], along[0] - size // 2)
                highest[axis] = max(highest[axis], along[-1] - size // 2)
    if not np.isfinite(lowest).all():
        return np.full(3, -size / 2), np.full(3, size / 2)
    return lowest, highest


def scale_bar(width_angstrom: float) -> float:
    """A round length, in angstrom, of about a third of a picture."""
    target = width_angstrom / 3
    power = 10.0 ** np.floor(np.log10(max(target, 1e-6)))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target))


def plot_superclasses(volumes: xr.DataArray, groups: xr.Dataset | None = None) -> Figure:
    """Plot the surfaces of superclass maps from three directions.

    Parameters
    ----------
    volumes
        (superclass, z, y, x) with the attribute voxel_size_angstrom.
    groups
        As of `regroup_dask.group`, for the names of the classes; or None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    reduced = superclass_maps(volumes.to_dataset(name="density"), None, xr.Dataset())
    assert reduced is not None
    drawn = draw_superclasses(reduced)
    figure = Figure(figsize=(7, 2.4 * len(drawn.drawn)), layout="constrained")
    axes = figure.subplots(len(drawn.drawn), len(DIRECTIONS), squeeze=False)
    bar = scale_bar(drawn.width_angstrom)
    for row, entry in zip(axes, drawn.drawn, strict=True):
        tones = shades_of(superclass_colour(entry.superclass), 256)
        for axis, direction in zip(row, DIRECTIONS, strict=True):
            view = entry.views[direction]
            image = np.concatenate([tones[np.rint(view.shade * 255).astype(int)], view.alpha[..., None]], axis=2)
            axis.imshow(image, extent=(0, drawn.width_angstrom, 0, drawn.width_angstrom), interpolation="antialiased")
            axis.set_axis_off()
            if entry.superclass == 0:
                axis.set_title(f"{direction} ({DIRECTION_WORDS[direction]})", fontsize=9)
        # Beside the picture, where no surface is; the layout makes room for it.
        words = f"superclass {entry.superclass}\n{_members(groups, entry.superclass)}"
        row[0].text(-0.03, 0.5, words, ha="right", va="center", fontsize=9, transform=row[0].transAxes)
    below = -0.05 * drawn.width_angstrom
    axes[-1, 0].plot([0, bar], [below, below], color="0.3", linewidth=2, clip_on=False)
    axes[-1, 0].text(bar, below, f" {bar:g} Å", va="center", fontsize=9)
    for axis in axes.ravel():
        axis.set(xlim=(0, drawn.width_angstrom), ylim=(2 * below, drawn.width_angstrom))
    return figure


def _members(groups: xr.Dataset | None, superclass: int) -> str:
    if groups is None:
        return ""
    members = groups["class_id"].values[groups["superclass"].values == superclass]
    words = ", ".join(str(member) for member in members[:MOST_NAMED])
    return ("class " if len(members) == 1 else "classes ") + words + (", ..." if len(members) > MOST_NAMED else "")
