"""The members of a superclass side by side: central slices, projections, significant differences, FSC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from regroup_dask.report.aligned_members import AlignedMembers, align_members, member_fsc, move_classes
from regroup_dask.report.colours import LESS_DENSITY, MORE_DENSITY, rgb, superclass_colour
from regroup_dask.report.superclass_views import surface_extent
from regroup_dask.report.surface import DIRECTIONS, as_seen, surface_threshold, without_dust

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FSC_LIMIT = 0.5
LARGEST_FSC_GROUP = 24


class MemberImages(NamedTuple):
    """Pictures of one map, each a strip of three directions.

    Attributes
    ----------
    slices, projections
        Greys 0..1 ``[rows, 3 * rows]``.
    differences
        Colours 0..1 ``[rows, 3 * rows, 3]``: the average in grey, on it what is significantly more or less in this
        map; None where the noise is not known.
    """

    slices: NDArray[np.float32]
    projections: NDArray[np.float32]
    differences: NDArray[np.float32] | None


def member_images(members: AlignedMembers) -> tuple[MemberImages, ...]:
    """Pictures of the average of a superclass, then of each member, at one scale of greys and of size."""
    crop = _crop(members)
    cut = [_stretched(volume, crop) for volume in (members.average, *members.maps)]
    base = _project(cut[0])
    # One scale for all, from the average: gains are equal already, so what looks weaker is weaker.
    slice_range, projection_range = _limits(_slices(cut[0])), _limits(base)
    images = []
    for index, volume in enumerate(cut):
        differences = None
        if index and np.isfinite(members.limit[index - 1]):
            differences = _differences(members.deviation[index - 1][crop], members.limit[index - 1], base)
        images.append(
            MemberImages(_scaled(_slices(volume), slice_range), _scaled(_project(volume), projection_range), differences)
        )
    return tuple(images)


def _crop(members: AlignedMembers) -> tuple[slice, slice, slice]:
    """A cube about what the average shows, so that the pictures are of the particle and not of the solvent."""
    box = members.average.shape[0]
    threshold = surface_threshold(members.average)
    lowest, highest = surface_extent([without_dust(members.average, threshold)], [threshold])
    half = int(min(np.ceil((highest - lowest).max() / 2 * 1.1 + 2), box // 2))
    begin = np.clip(np.rint((lowest + highest) / 2).astype(int) + box // 2 - half, 0, box - 2 * half)
    first, second, third = (slice(int(start), int(start) + 2 * half) for start in begin)
    return first, second, third


def _stretched(volume: NDArray[np.float32], crop: tuple[slice, slice, slice]) -> NDArray[np.float32]:
    return volume[crop] - np.float32(np.median(volume))


def _slices(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    views = [as_seen(volume, direction) for direction in DIRECTIONS]
    return np.concatenate([view[view.shape[0] // 2] for view in views], axis=1)


def _project(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([as_seen(volume, direction).sum(axis=0) for direction in DIRECTIONS], axis=1)


def _limits(image: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(image, (1, 99.7))
    return float(low), float(high if high > low else low + 1)


def _scaled(image: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.float32]:
    low, high = limits
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def _differences(deviation: NDArray[np.float32], limit: float, base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Strongest deviation along each line of sight, coloured where it is significant, on the average in grey."""
    extremes = []
    for direction in DIRECTIONS:
        seen = as_seen(deviation, direction)
        high, low = seen.max(axis=0), seen.min(axis=0)
        extremes.append(np.where(high >= -low, high, low))
    extreme = np.concatenate(extremes, axis=1)
    grey = 0.62 * _scaled(base, _limits(base))[..., None] * np.ones(3)
    # Full colour at twice the limit; at the limit it is already seen.
    strength = np.where(np.abs(extreme) > limit, np.clip(np.abs(extreme) / limit - 1, 0, 1) * 0.6 + 0.4, 0)[..., None]
    colour = np.where(extreme[..., None] > 0, np.array(rgb(MORE_DENSITY)) / 255, np.array(rgb(LESS_DENSITY)) / 255)
    return (grey * (1 - strength) + colour * strength).astype(np.float32)


def fsc_of_members(pairs: xr.Dataset | None, members: AlignedMembers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FSC between the members: what the comparison of pairs kept, else that of the moved maps.

    Returns
    -------
    frequency, fsc
        1 / angstrom (S,), and float64 (M, M, S).
    """
    box = members.average.shape[0]
    chosen = members.class_ids[:LARGEST_FSC_GROUP]
    if pairs is not None and "fsc" in pairs:
        fsc = pairs["fsc"].sel(class_i=chosen, class_j=chosen).values.astype(float)
        known: dict[Any, Any] = pairs.attrs
        extent = known.get("working_box", box) * known.get("working_voxel_size_angstrom", members.voxel_size_angstrom)
    else:
        fsc = member_fsc(members._replace(maps=members.maps[:LARGEST_FSC_GROUP]))
        extent = box * members.voxel_size_angstrom
    return np.arange(fsc.shape[-1]) / extent, fsc


def resolution_ticks(finest: float) -> list[int]:
    """Round resolutions, in angstrom, that stand far enough apart on an axis of frequencies up to `finest`."""
    spaced: list[int] = []
    for tick in (50, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3):
        if 1 / tick <= finest and (not spaced or 1 / tick - 1 / spaced[-1] > 0.13 * finest):
            spaced.append(tick)
    return spaced


def plot_fsc(frequency: NDArray[np.float64], fsc: NDArray[np.float64], *, superclass: int = 0, ink: str = "black") -> Figure:
    """Plot the FSC of every pair of members of a superclass, and their median.

    Parameters
    ----------
    frequency
        1 / angstrom, (S,).
    fsc
        (M, M, S).
    superclass
        For its colour.
    ink
        Colour of axes and text.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3, 2.3))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.21, top=0.97)
    upper = np.triu_indices(len(fsc), 1)
    curves = fsc[upper][:, 1:]
    at = frequency[1:]
    colour = superclass_colour(superclass)
    axes.axhline(0, color=ink, linewidth=0.6, alpha=0.5)
    axes.axhline(FSC_LIMIT, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    for curve in curves:
        axes.plot(at, curve, color=colour, linewidth=0.9, alpha=max(0.18, min(0.8, 3 / max(len(curves), 1))))
    if len(curves) > 1:
        axes.plot(at, np.nanmedian(curves, axis=0), color=colour, linewidth=2.2)
    axes.set(ylim=(-0.08, 1.02), xlim=(0, at[-1]), xlabel="resolution (Å)", ylabel="FSC")
    spaced = resolution_ticks(float(at[-1]))
    axes.set_xticks([1 / tick for tick in spaced], [str(tick) for tick in spaced])
    axes.spines[["top", "right"]].set_visible(False)
    for part in (*axes.spines.values(),):
        part.set_color(ink)
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    return figure


def plot_members(class_maps: xr.Dataset, groups: xr.Dataset, superclass: int) -> Figure:
    """Plot the members of a superclass side by side, aligned: slices, projections, significant differences.

    Parameters
    ----------
    class_maps
        ``density`` (class_id, z, y, x) with its voxel size as an attribute, and statistics where known.
    groups
        As of `regroup_dask.group`.
    superclass
        Which one.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    members = align_members(move_classes(class_maps, groups), groups, superclass, statistics=class_maps)
    images = member_images(members)
    names = ["average", *(f"class {class_id}" for class_id in members.class_ids)]
    figure = Figure(figsize=(2.6 * len(images), 2.8), layout="constrained")
    axes = figure.subplots(3, len(images), squeeze=False)
    for column, (image, name) in enumerate(zip(images, names, strict=True)):
        strips = (image.slices, image.projections, image.differences)
        for axis, strip in zip(axes[:, column], strips, strict=True):
            axis.set_axis_off()
            if strip is not None:
                axis.imshow(strip, cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(name, fontsize=9)
    for axis, label in zip(axes[:, 0], ("slices", "projections", "differences"), strict=True):
        axis.text(-0.02, 0.5, label, rotation=90, ha="right", va="center", fontsize=7, transform=axis.transAxes)
    return figure
