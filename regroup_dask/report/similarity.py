"""The matrix of similarities, ordered by superclass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.dendrogram import Tree, class_tree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "viridis"
NUMBERS_UP_TO = 24
HOVER_UP_TO = 150

MEASURE_WORDS = {"similarity": "similarity of the structures", "correlation": "plain correlation of the maps"}


class MatrixOrder(NamedTuple):
    """Classes of a matrix from first to last: positions in `pairs`, ids, superclasses, and the tree that joins them."""

    positions: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    superclass: NDArray[np.int64]
    tree: Tree


def matrix_order(pairs: xr.Dataset, groups: xr.Dataset) -> MatrixOrder:
    """Order the classes of a dataset of pairs by superclass, likest next to each other.

    Parameters
    ----------
    pairs
        ``similarity`` (or ``correlation``) on (class_i, class_j).
    groups
        As of `regroup_dask.group`.
    """
    class_ids = pairs["class_i"].values
    known = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    superclass = np.array([known.get(int(class_id), -1) for class_id in class_ids], np.int64)
    measure = "similarity" if "similarity" in pairs else "correlation"
    tree = class_tree(pairs[measure].values, superclass)
    return MatrixOrder(tree.order, class_ids[tree.order], superclass[tree.order], tree)


def colour_range(values: NDArray[np.floating]) -> tuple[float, float]:
    """Round limits for colours: from the lowest value off the diagonal, to 1."""
    off = values[~np.eye(len(values), dtype=bool)]
    off = off[np.isfinite(off)]
    lowest = float(off.min()) if off.size else 0.0
    return min(math.floor(lowest * 10) / 10, 0.9), 1.0


def colour_table() -> NDArray[np.float64]:
    """The colours of the matrix, 0..1 ``[256, 3]``."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](np.linspace(0, 1, 256)))[:, :3]


def pair_values(pairs: xr.Dataset, positions: NDArray[np.int64]) -> dict[str, list[list[float | None]]]:
    """Numbers of every pair in the order of the matrix, rounded, for people who point at a cell."""
    decimals = {"similarity": 4, "correlation": 4, "distance": 4, "distance_sigma": 4, "confidence": 3}
    square = np.ix_(positions, positions)
    tables = {name: pairs[name].values[square] for name in decimals if name in pairs}
    aligned = bool(pairs.attrs.get("align", 1)) and "rotation_quaternion" in pairs
    if aligned:
        quaternions = pairs["rotation_quaternion"].values[square]
        n_classes = len(positions)
        turns = Rotation.from_quat(quaternions.reshape(-1, 4)).magnitude().reshape(n_classes, n_classes)
        tables["rotation_degrees"] = np.degrees(turns)
        tables["shift_angstrom"] = np.linalg.norm(pairs["shift_angstrom"].values[square], axis=-1)
        tables["mirrored"] = pairs["mirrored"].values[square].astype(float)
        decimals |= {"rotation_degrees": 1, "shift_angstrom": 1, "mirrored": 0}
    return {name: _rounded(values, decimals[name]) for name, values in tables.items()}


def _rounded(values: NDArray[np.floating], decimals: int) -> list[list[Any]]:
    return [[None if not math.isfinite(value) else round(float(value), decimals) for value in row] for row in values]


def telling_pairs(pairs: xr.Dataset, groups: xr.Dataset) -> list[str]:
    """Say which pairs a grouping stands or falls by: the most alike apart, and the least alike together."""
    measure = "similarity" if "similarity" in pairs else "correlation"
    order = matrix_order(pairs, groups)
    values = pairs[measure].values
    sigma = pairs["distance_sigma"].values if measure == "similarity" and "distance_sigma" in pairs else None
    labels = np.empty(len(values), np.int64)
    labels[order.positions] = order.superclass
    upper = np.triu(np.isfinite(values), 1) & (labels[:, None] >= 0) & (labels[None, :] >= 0)
    same = labels[:, None] == labels[None, :]
    sentences = []
    for chosen, best, words in (
        (upper & ~same, np.argmax, "Most alike of different superclasses"),
        (upper & same, np.argmin, "Least alike within a superclass"),
    ):
        candidates = np.argwhere(chosen)
        if not len(candidates):
            continue
        first, second = candidates[best(values[chosen])]
        spread = "" if sigma is None or not np.isfinite(sigma[first, second]) else f" ± {sigma[first, second]:.3f}"
        places = sorted({int(labels[first]), int(labels[second])})
        where = f"superclass {places[0]}" if len(places) == 1 else f"superclasses {places[0]} and {places[1]}"
        ids = sorted(int(value) for value in pairs["class_i"].values[[first, second]])
        sentences.append(f"{words}: classes {ids[0]} and {ids[1]} ({where}), {values[first, second]:.3f}{spread}.")
    return sentences


def plot_similarity(pairs: xr.Dataset, groups: xr.Dataset, *, measure: str = "similarity") -> Figure:
    """Plot the matrix of similarities, ordered by superclass, under the tree that joins the classes.

    Parameters
    ----------
    pairs
        As of `regroup_dask.compare`.
    groups
        As of `regroup_dask.group`.
    measure
        ``"similarity"`` or ``"correlation"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    order = matrix_order(pairs, groups)
    values = pairs[measure].values[np.ix_(order.positions, order.positions)]
    n_classes = len(values)
    low, high = colour_range(values)
    side = min(max(3.6, 0.34 * n_classes + 1.2), 10)
    figure = Figure(figsize=(side + 1.2, side + 1.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 5))
    top, main = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    for bracket in order.tree.brackets:
        colour = superclass_colour(bracket.superclass)
        top.plot(
            [bracket.left, bracket.left, bracket.right, bracket.right],
            [bracket.left_height, bracket.height, bracket.height, bracket.right_height],
            color=colour,
            linewidth=1.2,
        )
    top.set(xlim=(-0.5, n_classes - 0.5), ylabel="1 − similarity", xticks=[])
    top.spines[["top", "right", "bottom"]].set_visible(False)
    image = main.imshow(values, cmap=COLOURS, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    names = [str(class_id) for class_id in order.class_ids]
    main.set(xticks=range(n_classes), yticks=range(n_classes), xlabel="class", ylabel="class")
    main.set_xticklabels(names, fontsize=7, rotation=0 if n_classes < 30 else 90)
    main.set_yticklabels(names, fontsize=7)
    for label, superclass in zip(main.get_yticklabels(), order.superclass, strict=True):
        label.set_color(superclass_colour(int(superclass)))
        label.set_fontweight("bold")
    for boundary in np.flatnonzero(np.diff(order.superclass)) + 0.5:
        main.axhline(boundary, color="white", linewidth=1.5)
        main.axvline(boundary, color="white", linewidth=1.5)
    if n_classes <= NUMBERS_UP_TO:
        middle = (low + high) / 2
        for (row, column), value in np.ndenumerate(values):
            ink = "black" if value > middle else "white"
            main.text(column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color=ink)
    figure.colorbar(image, ax=main, label=MEASURE_WORDS[measure], shrink=0.8)
    return figure
