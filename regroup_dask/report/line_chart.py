"""Line charts as SVG inside the page: a page has one per superclass, and matplotlib takes longer to start than to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 22.0, 36.0
LABEL_SIZE, LETTER = 10.5, 6.2


class Line(NamedTuple):
    """One line: x and y in the units of the axes, its colour in CSS, its width in points, 0..1 of opacity.

    With `dots` every point of the line is marked.
    """

    x: NDArray[np.floating]
    y: NDArray[np.floating]
    colour: str
    width: float = 1.6
    opacity: float = 1.0
    dots: bool = False


class Axis(NamedTuple):
    """An axis: its ends, places and words of its ticks, what it says, and whether it is logarithmic.

    `low` may be above `high`: the axis then runs the other way.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    words: str = ""
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one."""
        if self.logarithmic:
            value, low, high = (math.log10(max(each, 1e-300)) for each in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return (value - low) / (high - low) if high != low else 0.5


def line_chart(
    lines: Sequence[Line],
    *,
    across: Axis,
    up: Axis,
    label: str,
    title: str = "",
    width: float = 330.0,
    height: float = 230.0,
    dashed_x: float | None = None,
    dashed_y: float | None = None,
    marked: tuple[float, float, str] | None = None,
) -> str:
    """Draw lines as one ``<svg>`` element in the page's own colours and letters.

    Parameters
    ----------
    lines
        What is drawn; values that are not finite are left out.
    across, up
        The axes.
    label
        What a screen reader says of it.
    title
        Above the chart.
    width, height
        In points; the page may show it smaller.
    dashed_x, dashed_y
        A dashed line at this place.
    marked
        A large dot: x, y and its colour.
    """
    left = round(max(LEFT, 9 + LETTER * max((len(words) for _, words in up.ticks), default=0)), 1)
    wide, high = width - left - RIGHT, height - BOTTOM - TOP

    def at(x: float, y: float) -> str:
        share = min(max(up.share(y), 0.0), 1.0)
        return f"{left + across.share(x) * wide:.1f} {TOP + (1 - share) * high:.1f}"

    parts = [
        f'<svg class="chart" role="img" aria-label={quoteattr(label)} viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{width:g}pt" font-size="{LABEL_SIZE}">'
    ]
    if title:
        parts.append(f'<text x="{left}" y="13" font-size="12" font-weight="600">{escape(title)}</text>')
    for value, words in across.ticks:
        x = left + across.share(value) * wide
        parts.append(f'<text x="{x:.1f}" y="{TOP + high + 15:.1f}" text-anchor="middle">{escape(words)}</text>')
        parts.append(f'<path class="axis" d="M{x:.1f} {TOP + high:.1f}v4"/>')
    for value, words in up.ticks:
        y = TOP + (1 - up.share(value)) * high
        parts.append(f'<text x="{left - 7}" y="{y + 3.7:.1f}" text-anchor="end">{escape(words)}</text>')
        parts.append(f'<path class="axis" d="M{left} {y:.1f}h-4"/>')
    parts.append(f'<path class="axis" d="M{left} {TOP}v{high:g}h{wide:g}"/>')
    parts.append(
        f'<text x="{left + wide / 2:.1f}" y="{height - 4:g}" text-anchor="middle">{escape(across.words)}</text>'
    )
    if up.words:
        parts.append(f'<text x="{left + 4}" y="{TOP - 7}" font-size="11">{escape(up.words)}</text>')
    if dashed_x is not None:
        x = left + across.share(dashed_x) * wide
        parts.append(f'<path class="axis dashed" d="M{x:.1f} {TOP}v{high:g}"/>')
    if dashed_y is not None:
        parts.append(f'<path class="axis dashed" d="M{left} {TOP + (1 - up.share(dashed_y)) * high:.1f}h{wide:g}"/>')
    for line in lines:
        points = [at(float(x), float(y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        if not points:
            continue
        opacity = "" if line.opacity >= 1 else f' stroke-opacity="{line.opacity:.2f}"'
        parts.append(
            f'<path d="M{"L".join(points)}" fill="none" stroke="{line.colour}" stroke-width="{line.width:g}"{opacity} '
            'stroke-linejoin="round"/>'
        )
        if line.dots:
            # A line of no length with round ends is a dot: one element for all of them.
            dots = "".join(f"M{point}h0" for point in points)
            parts.append(f'<path d="{dots}" stroke="{line.colour}" stroke-width="5.5" stroke-linecap="round"/>')
    if marked is not None:
        x_mark, y_mark, colour = marked
        parts.append(f'<path d="M{at(x_mark, y_mark)}h0" stroke="{colour}" stroke-width="11" stroke-linecap="round"/>')
    return "".join([*parts, "</svg>"])


def round_ticks(low: float, high: float, *, most: int = 6) -> tuple[tuple[float, str], ...]:
    """Round values from `low` to `high`, at most `most`, with their words."""
    if not high > low:
        return ((low, f"{low:g}"),)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((number * step, f"{round(number * step, 12):g}".replace("-", "−")) for number in range(first, last + 1))


def whole_ticks(low: int, high: int, *, most: int = 8) -> tuple[tuple[float, str], ...]:
    """Whole numbers from `low` to `high`, evenly apart, at most `most`."""
    step = max(1, math.ceil((high - low + 1) / most))
    return tuple((float(value), str(value)) for value in range(low, high + 1) if value % step == 0 or step == 1)


def decade_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Powers of ten within ``low .. high`` as plain numbers, or the ends where there is none."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 5))
    powers = [10.0**power for power in range(first, last + 1, step)]
    return tuple((value, f"{value:g}") for value in powers or (low, high))
