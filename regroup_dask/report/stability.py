"""How many superclasses: what the numbers say for every K, and what one more or one less would change."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from regroup_dask.errors import InputError
from regroup_dask.grouping import group_pairs, next_grouping
from regroup_dask.report.count_decision import CURVE_WORDS, decide
from regroup_dask.science.block_model import Edges, agglomerate, make_edges
from regroup_dask.science.local_search import STRONG_EVIDENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

LARGEST_CURVE = 24
MOST_GROUPED_ANEW = 16
CURVE_NAMES = {
    "stability": ("stability_curve", "stability"),
    "eigengap": ("eigengap_curve", "eigengap"),
    "separation": ("separation_curve", "separation"),
    "evidence": ("evidence_curve", "evidence"),
}
BY_PLACE = (
    "Told from this grouping: the union of two superclasses, and the split of one, that the maps speak for most. Grouped "
    "from the beginning they may fall otherwise."
)
BY_DISTANCE = "Told from this grouping: its two most alike superclasses, and the one that falls apart most."
SAME = "the grouping stays as it is"
CANDIDATES = ("candidate_superclasses", "candidates", "n_superclasses_tried")


def count_curves(pairs: xr.Dataset | None, recorded: dict[str, Any], *, measure: str = "similarity") -> xr.Dataset | None:
    """What is known of every number of superclasses.

    Parameters
    ----------
    pairs
        The pairs, for the eigengap where it was not recorded.
    recorded
        Attributes of the grouping, as in run.json.
    measure
        ``"similarity"`` or ``"correlation"``.

    Returns
    -------
    xarray.Dataset or None
        ``evidence``, ``stability``, ``eigengap``, ``separation`` on ``n_superclasses``, those that are known.
    """
    tried = next((recorded[name] for name in CANDIDATES if isinstance(recorded.get(name), list | tuple)), None)
    parts = []
    for name, keys in CURVE_NAMES.items():
        values = next((recorded[key] for key in keys if isinstance(recorded.get(key), list | tuple)), None)
        if values is None or tried is None or len(values) != len(tried):
            continue
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        if np.isfinite(numbers).any():
            parts.append(xr.Dataset({name: ("n_superclasses", numbers)}, coords={"n_superclasses": list(tried)}))
    if pairs is not None and not any("eigengap" in part and part.sizes["n_superclasses"] > 1 for part in parts):
        parts = [part for part in parts if "eigengap" not in part]
        parts.append(_eigengaps(pairs[measure if measure in pairs else "correlation"].values))
    if not parts:
        return None
    curves = xr.merge(parts, join="outer")
    return curves.sel(n_superclasses=curves["n_superclasses"] <= LARGEST_CURVE)


def _eigengaps(similarity: np.ndarray) -> xr.Dataset:
    """Gaps between neighbouring eigenvalues of the normalised affinity (von Luxburg 2007)."""
    affinity = np.clip(np.nan_to_num(similarity), 0, None)
    degree = np.sqrt(np.maximum(affinity.sum(axis=1), 1e-12))
    values = np.sort(np.linalg.eigvalsh(affinity / degree[:, None] / degree[None, :]))[::-1]
    return xr.Dataset(
        {"eigengap": ("n_superclasses", values[:-1] - values[1:])},
        coords={"n_superclasses": np.arange(1, len(values))},
    )


def neighbour_groupings(pairs: xr.Dataset, groups: xr.Dataset, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Say in words what one superclass less and one more would change.

    Where the maps were compared place by place, that tells which union of two superclasses and which split of one is
    likeliest. Else few classes are grouped once more, as ``regroup-dask group`` would; of many that takes longer than all
    the rest of a page: there the two superclasses that are most alike are named, and the one that falls apart most.

    Parameters
    ----------
    pairs
        The pairs.
    groups
        The grouping to compare with.
    settings
        Settings of the run.

    Returns
    -------
    list of dict
        ``n_superclasses``, ``sentences``, and ``how``: a sentence about what was done, empty if grouped once more.
    """
    chosen = int(groups.sizes["superclass_id"])
    found = []
    for count in (chosen - 1, chosen + 1):
        if not 1 <= count <= pairs.sizes["class_i"] - 1:
            continue
        how, other = "", None
        if settings.get("similarity") != "correlation":
            how, other = BY_PLACE, next_grouping(pairs, groups, count)
        try:
            if other is None and pairs.sizes["class_i"] > MOST_GROUPED_ANEW:
                how, other = BY_DISTANCE, _next_grouping(pairs, groups, count)
            elif other is None:
                how, other = "", _grouped_anew(pairs, count, settings)
        except InputError as error:
            logger.warning("no grouping into %d superclasses for the report: %s", count, error)
            continue
        found.append({"n_superclasses": count, "sentences": describe_change(groups, other), "how": how})
    return found


def _grouped_anew(pairs: xr.Dataset, count: int, settings: dict[str, Any]) -> xr.Dataset:
    return group_pairs(
        pairs,
        count,
        similarity=settings.get("similarity", "structure"),
        frame=settings.get("frame", "superclass"),
        seed=settings.get("seed", 0),
        n_resamplings=0,
    )


def _next_grouping(pairs: xr.Dataset, groups: xr.Dataset, count: int) -> xr.Dataset:
    """Unite the two superclasses of least mean distance, or split the one whose two parts are furthest apart.

    Mean distances weigh each pair by its inverse variance, as in `science.block_model.agglomeration`.
    """
    known = np.isin(groups["class_id"].values, pairs["class_i"].values) & (groups["superclass"].values >= 0)
    class_ids, labels = groups["class_id"].values[known], groups["superclass"].values[known]
    chosen = pairs.sel(class_i=class_ids, class_j=class_ids)
    edges = _edges(chosen)
    weight = 1 / (edges.variance + edges.shared_variance[:, None] + edges.shared_variance[None])

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        """Mean distance of two sets of classes; those never compared are far from each other."""
        weights = weight[np.ix_(first, second)]
        total = float(weights.sum())
        return float((weights * edges.distance[np.ix_(first, second)]).sum()) / total if total > 0 else np.inf

    families = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    after = labels.copy()
    if count < len(families):
        pairs_of_families = itertools.combinations(families, 2)
        kept, gone = min(pairs_of_families, key=lambda two: (apart(families[two[0]], families[two[1]]), two))
        after[families[gone]] = kept
    else:
        halves = {}
        for label, members in families.items():
            if len(members) > 1:
                square = np.ix_(members, members)
                own = edges._replace(
                    distance=edges.distance[square],
                    variance=edges.variance[square],
                    shared_variance=edges.shared_variance[members],
                )
                part = agglomerate(own, 2)
                halves[label] = (members[part == 0], members[part == 1])
        widest = max(halves, key=lambda label: (apart(*halves[label]), -label))
        after[halves[widest][1]] = max(families) + 1
    return xr.Dataset({"superclass": ("class_id", after)}, coords={"class_id": class_ids})


def _edges(pairs: xr.Dataset) -> Edges:
    if "distance" in pairs and "distance_sigma" in pairs:
        shared = pairs["shared_sigma"].values if "shared_sigma" in pairs else None
        return make_edges(pairs["distance"].values, pairs["distance_sigma"].values, shared)
    distance = 1 - pairs["similarity" if "similarity" in pairs else "correlation"].values.astype(np.float64)
    return make_edges(distance, np.full_like(distance, 0.01), None)


def describe_change(groups: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Say what another grouping of the same classes does to each superclass."""
    now = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    then = dict(zip(other["class_id"].values.tolist(), other["superclass"].values.tolist(), strict=True))
    shared = [class_id for class_id in now if class_id in then and now[class_id] >= 0]
    pieces: dict[int, dict[int, list[int]]] = {}
    for class_id in shared:
        pieces.setdefault(now[class_id], {}).setdefault(then[class_id], []).append(class_id)
    targets: dict[int, set[int]] = {}
    for superclass, parts in pieces.items():
        for target in parts:
            targets.setdefault(target, set()).add(superclass)
    sentences = []
    for superclass, parts in sorted(pieces.items()):
        if len(parts) > 1:
            words = " | ".join(_listed(members) for members in sorted(parts.values(), key=lambda part: (-len(part), part)))
            sentences.append(f"superclass {superclass} is split: classes {words}")
    for sources in sorted(targets.values(), key=sorted):
        if len(sources) > 1 and all(len(pieces[source]) == 1 for source in sources):
            sentences.append("superclasses " + _listed(sorted(sources), last=" and ") + " become one")
        elif len(sources) > 1:
            sentences.append("parts of superclasses " + _listed(sorted(sources), last=" and ") + " come together")
    return sentences or [SAME]


def _listed(values: list[int], last: str = ", ") -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + last + words[-1]


def plot_stability(curves: xr.Dataset, chosen: int, *, ink: str = "black", accent: str = "#0072b2") -> Figure:
    """Plot what decides the number of superclasses, stability and eigengap against it, with the chosen one marked.

    Parameters
    ----------
    curves
        From `count_curves`.
    chosen
        The number of superclasses of the run.
    ink, accent
        Colours of axes and of the curves.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    deciding = decide(curves, chosen).deciding
    titles = {**CURVE_WORDS, "stability": "stability of the grouping", "separation": "separation (log ratio of distances)"}
    names = [name for name in titles if name in curves and np.isfinite(curves[name]).sum() > 1]
    names.sort(key=lambda name: name != deciding)
    # A fixed layout: matplotlib's own draws everything twice, which is most of the time of a small figure.
    count = max(len(names), 1)
    figure = Figure(figsize=(3.6 * count, 2.6))
    figure.subplots_adjust(left=0.55 / (3.6 * count), right=1 - 0.1 / (3.6 * count), bottom=0.19, top=0.87, wspace=0.22)
    for axes, name in zip(np.ravel(figure.subplots(1, max(len(names), 1))), names, strict=False):
        line = curves[name].where(np.isfinite(curves[name])).dropna("n_superclasses")
        counts = line["n_superclasses"].values
        axes.axvline(chosen, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7)
        axes.plot(counts, line.values, color=accent, linewidth=1.6, marker="o", markersize=4)
        if chosen in counts:
            axes.plot([chosen], [float(line.sel(n_superclasses=chosen))], "o", color=accent, markersize=9)
        _set_height(axes, name, line.values)
        if name == "evidence":
            axes.axhline(-STRONG_EVIDENCE, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7)
        words = ("decides: " if name == deciding else "") + titles[name]
        axes.set_title(words + ("" if axes.get_yscale() == "linear" else ", log scale"), fontsize=10, color=ink, loc="left")
        axes.set_xlabel(f"superclasses K (chosen: {chosen})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(ink)
        axes.tick_params(colors=ink)
        axes.xaxis.label.set_color(ink)
    return figure


def _set_height(axes: Axes, name: str, values: np.ndarray) -> None:
    """Show what falls by orders of magnitude, eigengaps and evidence, on a logarithmic scale; else begin at 0."""
    if name == "evidence":
        # Straight down to ten below the best, where it is decided; as powers of ten further down.
        from matplotlib.ticker import NullLocator

        axes.set_yscale("symlog", linthresh=10)
        ticks = [value for value in (0, -10, -1e3, -1e5, -1e7) if value >= min(float(values.min()), -10)]
        axes.set_yticks(ticks, [f"{value:,.0f}".replace("-", "−") for value in ticks], minor=False)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=1.5 * min(float(values.min()), -10), top=2)
    elif name == "eigengap" and values.max() > 0 and np.median(values) < 0.1 * values.max():
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        # Plain numbers: powers of ten need a typesetter of formulas, whose start takes as long as the figure.
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=max(float(values[values > 0].min()), 1e-3 * float(values.max())) * 0.7)
    else:
        axes.set_ylim(bottom=min(0.0, float(values.min())), top=1.05 if name == "stability" else None)
