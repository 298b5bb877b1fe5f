"""The line charts of the page: what speaks for each number of superclasses, and the FSC between members.

`regroup_dask.report.plot_stability` and `plot_fsc` draw the same with matplotlib.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.count_decision import CURVE_WORDS
from regroup_dask.report.line_chart import Axis, Line, decade_ticks, line_chart, round_ticks, whole_ticks
from regroup_dask.report.members import FSC_LIMIT, resolution_ticks
from regroup_dask.science.local_search import STRONG_EVIDENCE

ACCENT = "var(--accent)"


def count_charts(curves: xr.Dataset, chosen: int, deciding: str = "") -> list[str]:
    """One chart for each curve of at least two values, the chosen number marked, first the curve that decides.

    Parameters
    ----------
    curves
        From `regroup_dask.report.stability.count_curves`.
    chosen
        The number of superclasses of the run.
    deciding
        Name of the curve that decides ``-k auto``, from `regroup_dask.report.count_decision.decide`.
    """
    charts = []
    for name in sorted(CURVE_WORDS, key=lambda name: name != deciding):
        if name not in curves or int(curves[name].notnull().sum()) < 2:
            continue
        line = curves[name].dropna("n_superclasses")
        counts, values = line["n_superclasses"].values, line.values.astype(np.float64)
        up, words = _height_axis(name, values)
        values = 1 - values if name == "evidence" else values
        low, high = int(counts.min()), int(counts.max())
        across = Axis(low - 0.4, high + 0.4, whole_ticks(low, high), "superclasses K")
        marked = None
        if chosen in counts:
            marked = (float(chosen), float(values[counts == chosen][0]), ACCENT)
        words = name + words
        title = f"Decides: {words}" if name == deciding else f"{words[0].upper()}{words[1:]}"
        meaning = CURVE_WORDS[name] + words.removeprefix(name)
        charts.append(
            line_chart(
                [Line(counts, values, ACCENT, dots=True)],
                across=across,
                up=up,
                title=title,
                label=f"{meaning[0].upper()}{meaning[1:]} against the number of superclasses; {chosen} is marked. The table "
                "below has the numbers.",
                dashed_x=float(chosen) if low <= chosen <= high else None,
                dashed_y=1 + STRONG_EVIDENCE if name == "evidence" else None,
                marked=marked,
            )
        )
    return charts


def _height_axis(name: str, values: NDArray[np.float64]) -> tuple[Axis, str]:
    """The axis of a curve, and what its title adds: logarithmic for what falls by orders of magnitude."""
    lowest, highest = float(values.min()), float(values.max())
    if name == "evidence":
        # Drawn is how far below the best. The best is 0 and at the top; others lie below it by up to hundreds of thousands.
        most = max(1 - lowest, 10.0)
        ticks = tuple((1.0 + value, f"{value:,.0f}".replace("-", "−")) for value in (0, 10, 1e3, 1e5, 1e7) if value < most)
        return Axis(most * 1.5, 0.8, ticks, logarithmic=True), ", log scale"
    if name == "eigengap" and highest > 0 and np.median(values) < 0.1 * highest:
        positive = values[values > 0]
        low = max(float(positive.min()), 1e-3 * highest) * 0.7
        return Axis(low, highest * 1.3, decade_ticks(low, highest * 1.3), logarithmic=True), ", log scale"
    if name == "stability":
        return Axis(min(0.0, lowest), 1.05, round_ticks(min(0.0, lowest), 1.0)), ""
    low, high = min(0.0, lowest), max(highest, 1e-9)
    return Axis(low, high + 0.06 * (high - low), round_ticks(low, high)), ""


def fsc_chart(frequency: NDArray[np.float64], fsc: NDArray[np.float64], *, superclass: int) -> str:
    """The FSC of every pair of members of a superclass, and their median.

    Parameters
    ----------
    frequency
        1 / angstrom, (S,).
    fsc
        (M, M, S).
    superclass
        For its colour and its words.
    """
    curves = fsc[np.triu_indices(len(fsc), 1)][:, 1:]
    at, colour = frequency[1:], superclass_colour(superclass)
    opacity = max(0.18, min(0.8, 3 / max(len(curves), 1)))
    lines = [Line(at, curve, colour, 0.9, opacity) for curve in curves]
    if len(curves) > 1:
        with np.errstate(all="ignore"):
            lines.append(Line(at, np.nanmedian(curves, axis=0), colour, 2.4))
    ticks = tuple((1 / value, str(value)) for value in resolution_ticks(float(at[-1])))
    return line_chart(
        lines,
        across=Axis(0.0, float(at[-1]), ticks, "resolution (Å)"),
        up=Axis(-0.08, 1.02, ((0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1"))),
        label=f"Fourier shell correlation between the members of superclass {superclass}",
        width=236,
        height=172,
        dashed_y=FSC_LIMIT,
    )
