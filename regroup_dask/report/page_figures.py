"""Geometry and pictures of the figures that the page draws itself, because people point at them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr

from regroup_dask.report import flow as flow_figure
from regroup_dask.report.colours import ink_on, superclass_colour
from regroup_dask.report.pictures import colour_png, data_uri
from regroup_dask.report.similarity import (
    HOVER_UP_TO,
    MEASURE_WORDS,
    NUMBERS_UP_TO,
    colour_range,
    colour_table,
    matrix_order,
    pair_values,
    telling_pairs,
)

TREE_HEIGHT = 84.0
STRIP = 16.0
LABELS = 34.0
FLOW_LABEL, TALLEST_FLOW = 13.0, 2400.0


def matrix_figure(pairs: xr.Dataset, groups: xr.Dataset) -> dict[str, Any]:
    """Everything the template needs to draw the matrix of similarities, its tree and its legend.

    Parameters
    ----------
    pairs
        As of `regroup_dask.compare`.
    groups
        As of `regroup_dask.group`.
    """
    order = matrix_order(pairs, groups)
    n_classes = len(order.positions)
    cell = _cell_size(n_classes)
    side = n_classes * cell
    left, top = LABELS + STRIP + 4, TREE_HEIGHT + STRIP + 6
    measures = [_measure(pairs, order.positions, name) for name in ("similarity", "correlation") if name in pairs]
    return {
        "n_classes": n_classes,
        "cell": cell,
        "side": side,
        "left": left,
        "top": top,
        "width": left + side + 6,
        "height": top + side + LABELS * 0.7,
        "measures": measures,
        "labels": [
            {
                "class_id": int(class_id),
                "at": (index + 0.5) * cell,
                "shown": cell >= 11 or index % int(np.ceil(11 / cell)) == 0,
                "colour": superclass_colour(int(superclass)),
            }
            for index, (class_id, superclass) in enumerate(zip(order.class_ids, order.superclass, strict=True))
        ],
        "blocks": _blocks(order.superclass, cell),
        "tree": _tree_paths(order.tree.brackets, cell),
        "font": min(11.0, max(6.0, cell * 0.36)),
        "sentences": telling_pairs(pairs, groups),
        "data": _hover_data(pairs, order) if n_classes <= HOVER_UP_TO else None,
        "table": _table(pairs, order, measures[0]["name"]) if n_classes <= 2 * NUMBERS_UP_TO else None,
    }


def _cell_size(n_classes: int) -> float:
    return float(np.clip(round(560 / max(n_classes, 1)), 5, 42))


def _measure(pairs: xr.Dataset, positions: np.ndarray, name: str) -> dict[str, Any]:
    values = pairs[name].values[np.ix_(positions, positions)]
    low, high = colour_range(values)
    share = np.clip((values - low) / (high - low), 0, 1)
    table = colour_table()
    cells = []
    if len(values) <= NUMBERS_UP_TO:
        luminance = table @ np.array([0.2126, 0.7152, 0.0722])
        for (row, column), value in np.ndenumerate(values):
            if row == column or not np.isfinite(value):
                continue
            dark_ink = luminance[int(np.nan_to_num(share[row, column]) * 255)] > 0.42
            text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.1f}"
            cells.append({"row": row, "column": column, "text": text, "dark": bool(dark_ink)})
    ticks = [low + (high - low) * step / 4 for step in range(5)]
    return {
        "name": name,
        "words": MEASURE_WORDS[name],
        "picture": data_uri(colour_png(np.where(np.isfinite(values), share, np.nan), table)),
        "cells": cells,
        "ticks": [f"{tick:.2f}" for tick in ticks],
        "legend": data_uri(colour_png(np.linspace(0, 1, 128)[None, :], table)),
    }


def _blocks(superclass: np.ndarray, cell: float) -> list[dict[str, Any]]:
    edges = [0, *(np.flatnonzero(np.diff(superclass)) + 1).tolist(), len(superclass)]
    return [
        {
            "superclass": int(superclass[begin]),
            "begin": begin * cell,
            "size": (end - begin) * cell,
            "colour": superclass_colour(int(superclass[begin])),
            "ink": ink_on(superclass_colour(int(superclass[begin]))),
        }
        for begin, end in itertools.pairwise(edges)
        if end > begin
    ]


def _tree_paths(brackets: tuple[Any, ...], cell: float) -> list[dict[str, str]]:
    highest = max((bracket.height for bracket in brackets), default=0.0) or 1.0

    def up(height: float) -> float:
        # The root of the height: joins within superclasses are low and would not be seen.
        return TREE_HEIGHT * (1 - 0.94 * float(np.sqrt(max(height, 0.0) / highest)))

    paths = []
    for bracket in brackets:
        left, right = (bracket.left + 0.5) * cell, (bracket.right + 0.5) * cell
        path = f"M{left:.1f} {up(bracket.left_height):.1f}V{up(bracket.height):.1f}H{right:.1f}V{up(bracket.right_height):.1f}"
        colour = "currentColor" if bracket.superclass < 0 else superclass_colour(bracket.superclass)
        paths.append({"path": path, "colour": colour})
    return paths


def _hover_data(pairs: xr.Dataset, order: Any) -> dict[str, Any]:
    names = pairs["name"].values[order.positions].tolist() if "name" in pairs.coords else []
    return {
        "ids": [int(value) for value in order.class_ids],
        "superclass": [int(value) for value in order.superclass],
        "names": [str(name) for name in names],
        "values": pair_values(pairs, order.positions),
    }


def _table(pairs: xr.Dataset, order: Any, name: str) -> dict[str, Any]:
    values = pairs[name].values[np.ix_(order.positions, order.positions)]
    return {
        "ids": [int(value) for value in order.class_ids],
        "rows": [[f"{value:.3f}" if np.isfinite(value) else "–" for value in row] for row in values],
    }


def flow_figures(flow: xr.Dataset) -> list[dict[str, Any]]:
    """Geometry of the ribbons, for every rule of assignment that is known."""
    words = {
        "particles": "where particles went",
        "expected_particles": "sum of class posteriors",
    }
    figures = []
    for name, text in words.items():
        if name not in flow:
            continue
        n_bars = int((flow[name].sum("destination") > 0).sum())
        height = float(np.clip(30 * n_bars, 200, max(900, min(FLOW_LABEL * 1.25 * n_bars, TALLEST_FLOW))))
        laid = flow_figure.lay_out_flow(flow[name], least_slot=FLOW_LABEL / height)
        if laid.total <= 0:
            continue
        figures.append(
            {
                "name": name,
                "words": text,
                "height": height,
                "classes": [_flow_bar(bar, height, flow_figure.class_words(bar.identity)) for bar in laid.classes],
                "destinations": [
                    _flow_bar(bar, height, flow_figure.destination_words(bar.identity)) for bar in laid.destinations
                ],
                "ribbons": [_flow_ribbon(ribbon, height, laid.total) for ribbon in laid.ribbons],
            }
        )
    return figures


def _flow_bar(bar: flow_figure.Bar, height: float, words: str) -> dict[str, Any]:
    return {
        "words": words,
        "particles": bar.particles,
        "begin": round(bar.begin * height, 2),
        "size": round(max((bar.end - bar.begin) * height, 0.6), 2),
        "middle": round((bar.begin + bar.end) / 2 * height, 2),
        "colour": superclass_colour(bar.identity),
    }


def _flow_ribbon(ribbon: flow_figure.Ribbon, height: float, total: float) -> dict[str, Any]:
    (top, bottom), (far_top, far_bottom) = (
        tuple(round(value * height, 2) for value in side) for side in (ribbon.left, ribbon.right)
    )
    path = f"M120 {top}C225 {top} 225 {far_top} 330 {far_top}V{far_bottom}C225 {far_bottom} 225 {bottom} 120 {bottom}Z"
    return {
        "path": path,
        "colour": superclass_colour(ribbon.destination),
        "origin": flow_figure.class_words(ribbon.class_id),
        "target": flow_figure.destination_words(ribbon.destination),
        "particles": ribbon.particles,
        "percent": 100 * ribbon.particles / total,
        "words": (
            f"{flow_figure.class_words(ribbon.class_id)} to {flow_figure.destination_words(ribbon.destination)}: "
            f"{ribbon.particles:,.0f} particles, {100 * ribbon.particles / total:.1f} %"
        ),
    }


def spread_labels(middles: list[float], *, distance: float, height: float) -> list[float]:
    """Move labels apart so that none overlaps, keeping their order and each as near its place as that allows."""
    placed: list[float] = []
    for middle in middles:
        placed.append(max(middle, placed[-1] + distance) if placed else max(middle, distance / 2))
    limit = height + distance / 2
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - distance
    return placed
