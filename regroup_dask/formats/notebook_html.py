"""Small tables as HTML, for notebooks: everything escaped, colours that suit light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

BOX = (
    "font:13px/1.5 system-ui,sans-serif;max-width:960px;border:1px solid rgba(128,128,128,.35);border-radius:6px;"
    "padding:10px 14px;margin:2px 0"
)
QUIET = "opacity:.65"
CELL = "text-align:left;padding:1px 16px 1px 0;vertical-align:top;background:none;border:none"


def html_box(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Put parts that are HTML into a frame with a title and a subtitle that are text."""
    inside = "".join(parts)
    return (
        f'<div style="{BOX}"><div style="font-weight:600">{escape(title)} '
        f'<span style="font-weight:400;{QUIET}">{escape(subtitle)}</span></div>{inside}</div>'
    )


def html_rows(rows: Iterable[tuple[str, object]]) -> str:
    """Lay out names and values, both text, in two columns."""
    head = f"{CELL};font-weight:400;{QUIET};white-space:nowrap"
    cells = "".join(
        f'<tr style="background:none"><th scope="row" style="{head}">{escape(name)}</th>'
        f'<td style="{CELL};overflow-wrap:anywhere">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f'<table style="border-collapse:collapse;margin:6px 0;border:none;font-size:13px"><tbody>{cells}</tbody></table>'


def html_fold(summary: str, inside: str) -> str:
    """Fold HTML away under a line of text."""
    return f'<details style="margin:4px 0"><summary style="cursor:pointer">{escape(summary)}</summary>{inside}</details>'


def html_list(lines: Sequence[str]) -> str:
    """List sentences, which are text."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul style="margin:4px 0;padding-left:18px">{items}</ul>'


def shortened(values: Sequence[object], most: int = 20) -> str:
    """Name the first of many values, and say how many more there are."""
    words = ", ".join(str(value) for value in values[:most])
    return words + (f" and {len(values) - most} more" if len(values) > most else "")
