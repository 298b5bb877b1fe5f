"""The first screen in words and numbers: superclasses, what remains and why, warnings."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.output_contents import OutputContents

FIRM, MOSTLY_FIRM = 0.95, 0.8


def headline(contents: OutputContents) -> dict[str, str]:
    """Title, sentence about classes and sentence about particles."""
    grouped = sum(row["superclass"] >= 0 for row in contents.classes)
    count = len(contents.superclasses)
    title = f"{grouped} {_plural('class', grouped)} in {count} {_plural('superclass', count)}"
    total, remaining = contents.record.get("n_particles"), contents.record.get("n_particles_remaining") or 0
    if total is None:
        particles = "No particles were given: the maps alone were grouped."
    else:
        particles = f"{total - remaining:,} of {total:,} particles regrouped ({_percent(total - remaining, total)})"
        particles += f", {remaining:,} remaining."
        if not remaining:
            particles = f"All {total:,} particles regrouped, none remaining."
    return {"title": title, "particles": particles, "source": _source(contents.record)}


def superclass_cards(contents: OutputContents, flow: xr.Dataset | None) -> list[dict[str, Any]]:
    """What a card says of each superclass."""
    total = contents.record.get("n_particles")
    names = {row["class_id"]: row["name"] for row in contents.classes}
    cards = []
    for row in contents.superclasses:
        superclass = row["superclass"]
        members = [entry for entry in contents.classes if entry["superclass"] == superclass]
        members.sort(key=lambda entry: (-(entry["n_particles"] or 0), entry["class_id"]))
        stability = _stability(row, members)
        cards.append(
            {
                "superclass": superclass,
                "colour": superclass_colour(superclass),
                "particles": row["n_particles"],
                "share": None if not total or row["n_particles"] is None else row["n_particles"] / total,
                "stability": stability,
                "stability_words": stability_words(stability),
                "reference_class": row["reference_class"],
                "reference_name": names.get(row["reference_class"], ""),
                "volume": row["volume"],
                "members": [
                    {
                        "class_id": entry["class_id"],
                        "name": entry["name"],
                        "particles": entry["n_particles"],
                        "came": _came(flow, entry["class_id"], superclass),
                        "stability": entry.get("stability"),
                        "mirrored": entry["mirrored"],
                    }
                    for entry in members
                ],
            }
        )
    return cards


def _stability(row: dict[str, Any], members: list[dict[str, Any]]) -> float | None:
    if isinstance(row.get("stability"), float):
        return float(row["stability"])
    values = [entry["stability"] for entry in members if entry.get("stability") is not None]
    values = [value for value in values if np.isfinite(value)]
    return float(np.mean(values)) if values else None


def stability_words(stability: float | None) -> str:
    """Say how firm a grouping is."""
    if stability is None:
        return "not measured"
    if stability >= FIRM:
        return "firm"
    return "mostly firm" if stability >= MOSTLY_FIRM else "uncertain"


def _came(flow: xr.Dataset | None, class_id: int, superclass: int) -> int | None:
    if flow is None or class_id not in flow["class_id"].values:
        return None
    return int(flow["particles"].sel(class_id=class_id, destination=superclass))


def remaining_lines(contents: OutputContents, flow: xr.Dataset | None) -> list[str]:
    """Say what belongs to no superclass, and why."""
    settings = contents.record.get("settings", {})
    lines = []
    minimum = settings.get("minimum_class_size", 0)
    reasons = {
        "too_small": f"smaller than the minimum of {minimum:,} particles",
        "excluded": "excluded by hand",
    }
    known = set()
    for row in contents.classes:
        if row["superclass"] >= 0:
            continue
        known.add(row["class_id"])
        reason = row.get("note") or reasons.get(row["status"], str(row["status"]).replace("_", " "))
        size = "" if row["n_particles"] is None else f" ({row['n_particles']:,} particles)"
        lines.append(f"Class {row['class_id']}{size}: {reason}.")
    if flow is None or -1 not in flow["destination"].values:
        return lines
    left = flow["particles"].sel(destination=-1)
    silent = int(left.sel(class_id=-1)) if -1 in left["class_id"].values else 0
    if silent:
        lines.append(f"{silent:,} particles have no class posterior.")
    listed = {row["class_id"] for row in contents.classes}
    for class_id in left["class_id"].values.tolist():
        if class_id >= 0 and class_id not in listed:
            known.add(class_id)
            count = int(left.sel(class_id=class_id))
            lines.append(f"Class {class_id} ({count:,} particles): excluded by hand; it has no map.")
    doubtful = sum(
        int(left.sel(class_id=value)) for value in left["class_id"].values.tolist() if value >= 0 and value not in known
    )
    if doubtful:
        limit = settings.get("minimum_posterior")
        why = "for another reason" if limit is None else f"because their superclass posterior is below {limit:g}"
        lines.append(f"{doubtful:,} particles of classes that were grouped remain {why}.")
    return lines


def warnings_in_words(contents: OutputContents) -> list[str]:
    """Warnings of the run, and what the stability says, as sentences."""
    sentences = [str(text) for text in contents.record.get("warnings", [])]
    sentences += doubts_in_words(contents.classes)
    mirrored = [row["class_id"] for row in contents.classes if row["superclass"] >= 0 and row["mirrored"]]
    # The run says it itself where it was sure of the hand; classes that a person moved it has not seen.
    if mirrored and not any("opposite hand" in sentence.lower() for sentence in sentences):
        subject = "Class" if len(mirrored) == 1 else "Classes"
        verb = "has" if len(mirrored) == 1 else "have"
        sentences.append(
            f"{subject} {', '.join(map(str, mirrored))} {verb} the opposite hand to most of the particles, and "
            f"{'was' if len(mirrored) == 1 else 'were'} inverted for the average."
        )
    return sentences


def doubts_in_words(classes: list[dict[str, Any]]) -> list[str]:
    """Say which classes are not firmly in one superclass, from the rows of classes.parquet."""
    shaky = [
        row["class_id"]
        for row in classes
        if row["superclass"] >= 0 and row.get("stability") is not None and row["stability"] < MOSTLY_FIRM
    ]
    if not shaky:
        return []
    subject = "Class" if len(shaky) == 1 else "Classes"
    verb = "is" if len(shaky) == 1 else "are"
    return [
        f"{subject} {', '.join(map(str, shaky))} {verb} not firmly in one superclass (stability below "
        f"{MOSTLY_FIRM:g}): look at the maps before relying on it."
    ]


def _source(record: dict[str, Any]) -> str:
    given = record.get("inputs") or {}
    if given.get("job"):
        return str(given["job"])
    volumes = given.get("volumes") or []
    if not volumes:
        return ""
    folder = str(volumes[0]).rsplit("/", 1)[0]
    return folder if len(volumes) > 1 else str(volumes[0])


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return word + "es"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
