"""Where the particles of each class went: ribbons from classes to superclasses, as wide as they have particles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.report.colours import superclass_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_RIBBON = 1e-4


class Bar(NamedTuple):
    """A class (left) or a destination (right): its id, particles, and where it begins and ends, 0..1 downwards."""

    identity: int
    particles: float
    begin: float
    end: float


class Ribbon(NamedTuple):
    """Particles of a class that went to a destination, and where the ribbon lies on both sides, 0..1 downwards."""

    class_id: int
    destination: int
    particles: float
    left: tuple[float, float]
    right: tuple[float, float]


class Flow(NamedTuple):
    """All bars and ribbons of a figure; `total` particles."""

    classes: tuple[Bar, ...]
    destinations: tuple[Bar, ...]
    ribbons: tuple[Ribbon, ...]
    total: float


def lay_out_flow(flow: xr.DataArray, *, gap: float = 0.012, least_slot: float = 0.0) -> Flow:
    """Place bars and ribbons.

    Parameters
    ----------
    flow
        Particles on (class_id, destination); destination -1 is what remains, class -1 has no posterior.
    gap
        Space between bars, as a share of the height; less when there are many.
    least_slot
        Space that every bar has at least, as a share of the height, so that its label fits beside it.

    Returns
    -------
    Flow
        Classes are ordered by the destination of most of their particles, then by size.
    """
    values = np.asarray(flow.values, np.float64)
    total = float(values.sum())
    class_ids, destinations = flow["class_id"].values, flow["destination"].values
    place = np.where(destinations < 0, len(destinations), destinations)
    if total <= 0:
        return Flow((), (), (), 0.0)
    keep = values.sum(axis=1) > 0
    home = place[np.argmax(values, axis=1)]
    rows = sorted(np.flatnonzero(keep), key=lambda row: (home[row], -values[row].sum(), class_ids[row]))
    columns = [column for column in np.argsort(place) if destinations[column] >= 0 or values[:, column].sum() > 0]
    particles = (values[rows].sum(axis=1) / total, values[:, columns].sum(axis=0) / total)
    # One scale for both sides: a ribbon is as wide where it ends as where it begins.
    scale = min(_largest_scale(shares, gap, least_slot) for shares in particles)
    left = _bars([int(class_ids[row]) for row in rows], particles[0], total, scale, least_slot)
    right = _bars([int(destinations[column]) for column in columns], particles[1], total, scale, least_slot)
    left_at, right_at = [bar.begin for bar in left], [bar.begin for bar in right]
    ribbons = []
    for index, row in enumerate(rows):
        for number, column in enumerate(columns):
            share = values[row, column] / total
            if share <= 0:
                continue
            width = share * scale
            if share >= SMALLEST_RIBBON:
                ribbons.append(
                    Ribbon(
                        left[index].identity,
                        right[number].identity,
                        float(values[row, column]),
                        (left_at[index], left_at[index] + width),
                        (right_at[number], right_at[number] + width),
                    )
                )
            left_at[index] += width
            right_at[number] += width
    return Flow(tuple(left), tuple(right), tuple(ribbons), total)


def _largest_scale(shares: np.ndarray, gap: float, least_slot: float) -> float:
    """Height that all particles together may take, if every bar has its slot and there are gaps between them."""
    count = len(shares)
    room = 1 - min(gap, 0.3 / max(count, 1)) * (count - 1)
    least_slot = min(least_slot, 0.8 * room / max(count, 1))
    narrow = np.zeros(count, bool)
    while True:
        # Bars narrower than a slot take the slot; the others share what is left.
        wide = float(shares[~narrow].sum())
        scale = (room - least_slot * narrow.sum()) / wide if wide > 0 else room
        more = shares * scale < least_slot
        if not (more & ~narrow).any():
            return scale
        narrow |= more


def _bars(identities: list[int], shares: np.ndarray, total: float, scale: float, least_slot: float) -> list[Bar]:
    """Bars in slots from 0 to 1; what the slots leave is between them, half of what a slot leaves on either side."""
    count = len(identities)
    widths = shares * scale
    slots = np.maximum(widths, min(least_slot, 0.8 / max(count, 1)))
    between = max(0.0, 1 - float(slots.sum())) / max(count - 1, 1) if count > 1 else 0.0
    bars, at = [], 0.0
    for identity, share, width, slot in zip(identities, shares, widths, slots, strict=True):
        begin = at + (slot - width) / 2
        bars.append(Bar(identity, float(share * total), begin, begin + width))
        at += slot + between
    return bars


def plot_flow(flow: xr.Dataset | xr.DataArray, *, rule: str = "particles") -> Figure:
    """Plot where the particles of each class went.

    Parameters
    ----------
    flow
        Particles on (class_id, destination), or the dataset that `read_flow` gives.
    rule
        Of a dataset: ``"particles"`` (each particle by its best class) or ``"expected_particles"`` (by the sum of
        its posteriors).

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    values = flow[rule] if isinstance(flow, xr.Dataset) else flow
    laid = lay_out_flow(values)
    figure = Figure(figsize=(6.4, min(max(3.2, 0.26 * len(laid.classes) + 1), 12)), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.25, 1.35), ylim=(1.02, -0.02))
    axes.set_axis_off()
    curve = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    for ribbon in laid.ribbons:
        (top, bottom), (far_top, far_bottom) = ribbon.left, ribbon.right
        points = [(0.02, top), (0.5, top), (0.5, far_top), (0.98, far_top)]
        points += [(0.98, far_bottom), (0.5, far_bottom), (0.5, bottom), (0.02, bottom)]
        colour = superclass_colour(ribbon.destination)
        axes.add_patch(PathPatch(Path(points, curve), facecolor=colour, alpha=0.45, edgecolor="none"))
    for bars, at, aside, alignment in ((laid.classes, 0.0, -0.02, "right"), (laid.destinations, 0.98, 1.02, "left")):
        for bar in bars:
            colour = "0.35" if at == 0.0 else superclass_colour(bar.identity)
            axes.add_patch(Rectangle((at, bar.begin), 0.02, bar.end - bar.begin, color=colour))
            text = class_words(bar.identity) if at == 0.0 else destination_words(bar.identity)
            axes.text(aside, (bar.begin + bar.end) / 2, f"{text}  {bar.particles:,.0f}", ha=alignment, va="center", fontsize=8)
    return figure


def class_words(class_id: int) -> str:
    """Name of a class in the figure."""
    return "no posterior" if class_id < 0 else f"class {class_id}"


def destination_words(superclass: int) -> str:
    """Name of a destination in the figure."""
    return "remaining" if superclass < 0 else f"superclass {superclass}"
