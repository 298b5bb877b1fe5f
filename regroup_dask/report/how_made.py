"""How a result was made: command, settings, versions, inputs with fingerprints, times."""

from __future__ import annotations

from typing import Any

from regroup_dask.formats.fingerprint import OF_STAMPS

SETTING_WORDS = {
    "n_superclasses": ("Superclasses (K)", ""),
    "minimum_class_size": ("Minimum class size", "particles"),
    "exclude_classes": ("Excluded classes", ""),
    "align": ("Align pairs of classes", ""),
    "maximum_shift_angstrom": ("Maximum shift between two maps", "Å"),
    "mask_inner_radius": ("Spherical mask, inner radius", "of half the box"),
    "mask": ("Mask", ""),
    "class_prefix": ("Prefix of posterior columns", ""),
    "posteriors": ("A particle goes by", ""),
    "minimum_posterior": ("Minimum superclass posterior", ""),
    "update_poses": ("Particle poses follow their class", ""),
    "hand": ("Opposite hand", ""),
    "frame": ("Frame", ""),
    "similarity": ("Measure grouped by", ""),
    "pairs": ("Pairs of classes compared", ""),
    "seed": ("Seed", ""),
}

VALUE_WORDS = {
    "posteriors": {"argmax": "its best class", "sum": "the largest summed posterior"},
    "hand": {"detect": "looked for", "off": "not looked for"},
    "frame": {"superclass": "of each superclass's largest class", "common": "of the largest class of all"},
    "similarity": {"structure": "similarity of the structures", "correlation": "plain correlation"},
}

THIS_PAGE = "Writing the report"
OWN_SECONDS, ALL_SECONDS = "{seconds of this page}", "{seconds of all}"


def setting_rows(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name in words, value in words, and name in the program, of every setting."""
    settings = record.get("settings", {})
    align = bool(settings.get("align"))
    rows = []
    for name, value in settings.items():
        words, unit = SETTING_WORDS.get(name, (name.replace("_", " "), ""))
        if name == "update_poses" and value is None:
            value = align
        rows.append((words, _value_words(name, value, unit), name))
    return rows


def _value_words(name: str, value: Any, unit: str) -> str:
    if value is None or value == [] or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    text = VALUE_WORDS.get(name, {}).get(str(value), f"{value:,}" if isinstance(value, int) else f"{value}")
    return f"{text} {unit}".strip()


def input_rows(record: dict[str, Any]) -> list[dict[str, str]]:
    """Path, size and SHA-256 of every input, or of the stamps of the store that it lies in."""
    return [
        {
            "path": str(entry.get("path", "")),
            "size": size_words(int(entry.get("bytes", 0))),
            "sha256": str(entry.get("sha256") or entry.get(OF_STAMPS, "")),
        }
        for entry in record.get("fingerprints") or []
    ]


def size_words(count: int) -> str:
    """A number of bytes as people say it."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def stage_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds of every stage, and their share of the longest; of this page a mark that is replaced when it is drawn."""
    seconds = {str(name): float(value) for name, value in (record.get("seconds") or {}).items() if name != THIS_PAGE}
    longest = max(seconds.values(), default=0.0)
    rows: list[dict[str, Any]] = [
        {"stage": name, "seconds": f"{value:,.2f}", "share": value / longest if longest else 0.0}
        for name, value in seconds.items()
    ]
    return [*rows, {"stage": THIS_PAGE, "seconds": OWN_SECONDS, "share": None}]


def found_lines(record: dict[str, Any]) -> list[str]:
    """What the program found in the input, in its own sentences."""
    return [str(line) for line in record.get("found") or []]
