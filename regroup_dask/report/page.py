"""The page that every run leaves: one file that opens from disk and needs nothing else."""

from __future__ import annotations

import logging
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from regroup_dask.formats import storage, storing
from regroup_dask.report import answer, class_rows, how_made, page_figures
from regroup_dask.report.aligned_members import align_members, move_classes
from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.common_frame import in_one_frame
from regroup_dask.report.count_decision import CURVE_WORDS, decide
from regroup_dask.report.members import fsc_of_members, member_images
from regroup_dask.report.methods import methods_paragraph
from regroup_dask.report.next_steps import next_steps
from regroup_dask.report.output_contents import OutputContents, read_flow, read_output
from regroup_dask.report.page_charts import count_charts, fsc_chart
from regroup_dask.report.pictures import data_uri, grey_png, rgb_png, shaded_png
from regroup_dask.report.stability import count_curves, neighbour_groupings
from regroup_dask.report.superclass_views import (
    draw_superclasses,
    scale_bar,
    superclass_maps,
)
from regroup_dask.report.surface import DIRECTION_WORDS, DIRECTIONS

logger = logging.getLogger(__name__)

PAGE = "report.html"
FEW_SUPERCLASSES = 12
MOST_PICTURED = 120


def write_page(folder: Path) -> Path:
    """Write the report of a run into its output folder.

    Parameters
    ----------
    folder
        An output folder with run.json, classes.parquet and superclasses.parquet; pairs.zarr, classes.zarr,
        volumes.zarr and particles/ are shown where they are there.

    Returns
    -------
    pathlib.Path
        ``folder/report.html``, which is replaced in one step.

    Raises
    ------
    InputError
        The folder has no run.json.
    """
    began = time.perf_counter()
    contents = read_output(storage.location(folder))
    text = _with_own_time(render_page(contents), contents.record, began)
    target = contents.folder / PAGE
    storing.write_bytes(target, text.encode())
    return target


def _with_own_time(text: str, record: dict[str, Any], began: float) -> str:
    """Put in what the page itself took: as the run recorded it, or, within the run, as is known when all is drawn."""
    seconds = record.get("seconds") or {}
    own = float(seconds.get(how_made.THIS_PAGE, time.perf_counter() - began))
    others = sum(value for name, value in seconds.items() if name != how_made.THIS_PAGE)
    return text.replace(how_made.OWN_SECONDS, _number(own)).replace(how_made.ALL_SECONDS, _number(others + own, 1))


def render_page(contents: OutputContents) -> str:
    """Return the page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: "–" if value is None else f"{round(value):,}"
    environment.filters["number"] = _number
    environment.filters["signed"] = _signed
    return environment.get_template("page.html").render(**page_contents(contents))


def _template(name: str) -> str:
    return (resources.files("regroup_dask.report") / "templates" / name).read_text(encoding="utf-8")


def _number(value: float | None, decimals: int = 2) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    rounded = round(value, decimals) + 0.0
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def _signed(values: list[float], decimals: int = 1) -> str:
    return ", ".join(_number(value, decimals) for value in values)


def page_contents(contents: OutputContents) -> dict[str, Any]:
    """Everything the template shows."""
    count = len(contents.superclasses)
    flow = read_flow(
        contents.folder,
        contents.classes,
        count,
        without_map=contents.record.get("settings", {}).get("exclude_classes") or (),
    )
    pictured = _pictured(contents.groups)
    moved = None if contents.class_maps is None else move_classes(contents.class_maps, pictured)
    corrected = class_rows.corrected_pairs(contents.pairs)
    known = contents.pairs is not None and "corrected" in contents.pairs
    paragraph, references = _methods(contents, len(corrected) if known else None)
    return {
        "headline": answer.headline(contents),
        "cards": answer.superclass_cards(contents, flow),
        "views": _views(contents, moved),
        "remaining": answer.remaining_lines(contents, flow),
        "steps": next_steps(
            contents.folder,
            n_superclasses=count,
            n_classes=contents.groups.sizes["class_id"],
            shown="OUT",
        ),
        "n_remaining": contents.record.get("n_particles_remaining"),
        "warnings": answer.warnings_in_words(contents),
        "matrix": _matrix(contents),
        "flows": [] if flow is None else _with_labels(page_figures.flow_figures(flow)),
        "rules_differ": contents.record.get("n_particles_rules_differ"),
        "posteriors": contents.record.get("settings", {}).get("posteriors", "argmax"),
        "choice": _choice(contents),
        "members": _members(contents, moved, pictured),
        "rows": class_rows.class_rows(contents),
        "corrected": corrected,
        "contradictions": class_rows.contradicting_pairs(contents.pairs, contents.groups),
        "aligned": bool(contents.record.get("settings", {}).get("align")),
        "record": contents.record,
        "settings": how_made.setting_rows(contents.record),
        "inputs": how_made.input_rows(contents.record),
        "found": how_made.found_lines(contents.record),
        "stages": how_made.stage_rows(contents.record),
        "total_seconds": how_made.ALL_SECONDS,
        "methods": paragraph,
        "references": references,
    }


def _methods(contents: OutputContents, n_corrected: int | None) -> tuple[str, list[str]]:
    pairs = contents.pairs
    if pairs is None:
        return methods_paragraph(contents.record, {})
    return methods_paragraph(
        contents.record,
        dict(pairs.attrs),
        [str(name) for name in pairs.data_vars],
        every_pair=bool(np.isfinite(pairs["correlation"].values).all()),
        n_corrected=n_corrected,
    )


def _views(contents: OutputContents, moved: xr.DataArray | None) -> dict[str, Any] | None:
    maps = superclass_maps(contents.volumes, moved, contents.groups)
    if maps is None:
        return None
    turned, any_turned = in_one_frame(maps, contents.pairs, contents.groups)
    # They are shown about 170 points wide, beside each other, and 100 where there are many.
    count = turned.sizes["superclass"]
    drawn = draw_superclasses(turned, pixels=320 if count <= 2 else 256 if count <= FEW_SUPERCLASSES else 208)
    bar = scale_bar(drawn.width_angstrom)
    return {
        "pictures": [
            [
                {
                    "uri": data_uri(
                        shaded_png(
                            entry.views[direction].shade,
                            entry.views[direction].alpha,
                            superclass_colour(entry.superclass),
                        )
                    ),
                    "direction": direction,
                    "words": DIRECTION_WORDS[direction],
                }
                for direction in DIRECTIONS
            ]
            for entry in drawn.drawn
        ],
        "thresholds": [entry.threshold for entry in drawn.drawn],
        "bar_angstrom": bar,
        "bar_percent": round(100 * bar / drawn.width_angstrom, 2),
        "turned": any_turned,
    }


def _matrix(contents: OutputContents) -> dict[str, Any] | None:
    if contents.pairs is None or contents.pairs.sizes["class_i"] < 2:
        return None
    return page_figures.matrix_figure(contents.pairs, contents.groups)


def _with_labels(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for figure in figures:
        for side in ("classes", "destinations"):
            middles = [bar["middle"] for bar in figure[side]]
            placed = page_figures.spread_labels(middles, distance=page_figures.FLOW_LABEL, height=figure["height"])
            for bar, at in zip(figure[side], placed, strict=True):
                bar["label"] = round(at, 2)
    return figures


def _choice(contents: OutputContents) -> dict[str, Any]:
    settings = contents.record.get("settings", {})
    chosen = len(contents.superclasses)
    measure = "correlation" if settings.get("similarity") == "correlation" else "similarity"
    curves = count_curves(contents.pairs, contents.record.get("grouping") or {}, measure=measure)
    decision = None if curves is None else decide(curves, chosen)
    figures = [] if curves is None or decision is None else count_charts(curves, chosen, decision.deciding)
    neighbours = [] if contents.pairs is None else neighbour_groupings(contents.pairs, contents.groups, settings)
    table = []
    if curves is not None:
        for count in curves["n_superclasses"].values:
            values = {str(name): float(curves[name].sel(n_superclasses=count)) for name in curves.data_vars}
            table.append({"count": int(count), "values": values, "chosen": int(count) == chosen})
    return {
        "chosen": chosen,
        "automatic": settings.get("n_superclasses") == "auto",
        "figures": figures,
        "decision": decision,
        "names": {} if curves is None else {name: words for name, words in CURVE_WORDS.items() if name in curves},
        "table": table,
        "neighbours": neighbours,
    }


def _pictured(groups: xr.Dataset) -> xr.Dataset:
    """The classes whose pictures the page shows: all, or of many the largest of each superclass."""
    labels = groups["superclass"].values
    if len(labels) <= MOST_PICTURED:
        return groups
    each = max(2, MOST_PICTURED // int(groups.sizes["superclass_id"]))
    sizes = groups["n_particles"].values if "n_particles" in groups.coords else np.zeros(len(labels))
    chosen: list[int] = []
    for superclass in np.unique(labels):
        members = np.flatnonzero(labels == superclass)
        chosen.extend(members[np.argsort(-sizes[members], kind="stable")][:each].tolist())
    return groups.isel(class_id=sorted(chosen))


def _members(contents: OutputContents, moved: xr.DataArray | None, pictured: xr.Dataset) -> list[dict[str, Any]]:
    by_id = {row["class_id"]: row for row in contents.classes}
    sections = []
    for row in contents.superclasses:
        superclass = row["superclass"]
        entry: dict[str, Any] = {
            "superclass": superclass,
            "colour": superclass_colour(superclass),
            "reference_class": row["reference_class"],
            "volume": row["volume"],
            "average": None,
            "members": [],
            "fsc": None,
        }
        if moved is not None:
            aligned = align_members(moved, pictured, superclass, statistics=contents.class_maps)
            pictures = member_images(aligned)
            entry["average"] = _strip_uris(pictures[0])
            shares = aligned.significant_share
            strips = dict(zip(aligned.class_ids.tolist(), pictures[1:], strict=True))
            share_of = dict(zip(aligned.class_ids.tolist(), shares.tolist(), strict=True))
            order = aligned.class_ids.tolist()
            if len(order) > 1:
                frequency, fsc = fsc_of_members(contents.pairs, aligned)
                entry["fsc"] = fsc_chart(frequency, fsc, superclass=superclass)
        else:
            strips, share_of = {}, {}
            order = pictured["class_id"].values[pictured["superclass"].values == superclass].tolist()
        entry["not_shown"] = row["n_classes"] - len(order)
        for class_id in order:
            member = by_id[class_id]
            entry["members"].append(
                {
                    "class_id": class_id,
                    "name": member["name"],
                    "particles": member["n_particles"],
                    "similarity": member.get("similarity_to_superclass"),
                    "stability": member.get("stability"),
                    "strips": None if class_id not in strips else _strip_uris(strips[class_id]),
                    "significant_share": share_of.get(class_id),
                    "is_reference": class_id == row["reference_class"],
                    "confidence": class_rows.alignment_confidence(contents.pairs, contents.groups, class_id),
                    **class_rows.pose_words(member),
                }
            )
        sections.append(entry)
    return sections


def _strip_uris(images: Any) -> dict[str, str | None]:
    return {
        "slices": data_uri(grey_png(images.slices)),
        "projections": data_uri(grey_png(images.projections)),
        "differences": None if images.differences is None else data_uri(rgb_png(images.differences)),
    }
