"""A result as a notebook shows it: a row per superclass with pictures, numbers and classes, and what is left over."""

from __future__ import annotations

import logging
from html import escape
from pathlib import Path

from regroup_dask.formats.notebook_html import CELL, QUIET, html_box, html_list
from regroup_dask.report import answer
from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.common_frame import in_one_frame
from regroup_dask.report.output_contents import OutputContents, read_output
from regroup_dask.report.pictures import data_uri, shaded_png
from regroup_dask.report.superclass_views import draw_superclasses, superclass_maps
from regroup_dask.report.surface import DIRECTION_WORDS, DIRECTIONS

logger = logging.getLogger(__name__)

MOST_PICTURED = 24
PIXELS = 144
SHOWN = 72
HEAD = "padding:2px 16px 2px 0;font-weight:400;border:none"


def result_html(folder: Path) -> str:
    """Return a result as HTML, from what its folder holds.

    Parameters
    ----------
    folder
        An output folder. Of one that is gone, or cannot be read, only the name is shown.
    """
    try:
        contents = read_output(folder)
    except Exception as error:
        logger.info("the result in %s cannot be shown: %s", folder, error)
        return html_box("regroup_dask result", str(folder), [html_list(["The folder cannot be read any more."])])
    headline = answer.headline(contents)
    warnings = answer.warnings_in_words(contents)
    notes = html_list(answer.remaining_lines(contents, None))
    told = f'<div style="margin-top:6px"><b>To know</b>{html_list(warnings)}</div>' if warnings else ""
    page = contents.folder / "report.html"
    look = page if page.is_file() else contents.folder
    foot = f'<div style="{QUIET}">Look at <code>{escape(str(look))}</code></div>'
    return html_box(headline["title"], headline["particles"], [_table(contents), notes, told, foot])


def _table(contents: OutputContents) -> str:
    cards = answer.superclass_cards(contents, None)
    pictures = _pictures(contents)
    titles = ["", *([""] if pictures else []), "particles", "share", "stability", "classes, largest first"]
    head = "".join(f'<th scope="col" style="{HEAD};{_side(title)};{QUIET}">{escape(title)}</th>' for title in titles)
    rows = []
    for card in cards:
        dot = f'<span style="display:inline-block;width:10px;height:10px;border-radius:50%;background:{card["colour"]}"></span>'
        cells = [f'<span style="white-space:nowrap">{dot} <b>superclass {card["superclass"]}</b></span>']
        if pictures:
            cells.append(pictures[card["superclass"]])
        cells.append("–" if card["particles"] is None else f"{card['particles']:,}")
        cells.append("–" if card["share"] is None else f"{card['share']:.1%}")
        stability = card["stability"]
        words = escape(card["stability_words"])
        cells.append(words if stability is None else f'{stability:.2f} <span style="{QUIET}">{words}</span>')
        members = [
            f"{entry['class_id']}"
            + ("*" if entry["class_id"] == card["reference_class"] else "")
            + ("′" if entry["mirrored"] else "")
            for entry in card["members"]
        ]
        cells.append(", ".join(members))
        body = "".join(
            f'<td style="{CELL};vertical-align:middle;{_side(title)}">{cell}</td>'
            for title, cell in zip(titles, cells, strict=True)
        )
        rows.append(f'<tr style="background:none">{body}</tr>')
    key = "* the class whose frame the superclass has"
    if any(entry["mirrored"] for card in cards for entry in card["members"]):
        key += "; ′ a class of the opposite hand"
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:8px 0;border:none;font-size:13px">'
        f'<thead><tr style="background:none">{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<div style="{QUIET};font-size:12px">{key}</div>'
    )


def _side(title: str) -> str:
    return f"text-align:{'right' if title in ('particles', 'share') else 'left'}"


def _pictures(contents: OutputContents) -> list[str]:
    """Three views of each superclass, or nothing where there are too many or no maps."""
    if not 1 <= len(contents.superclasses) <= MOST_PICTURED:
        return []
    try:
        maps = superclass_maps(contents.volumes, None, contents.groups)
        if maps is None:
            return []
        turned, _ = in_one_frame(maps, contents.pairs, contents.groups)
        drawn = draw_superclasses(turned, pixels=PIXELS).drawn
    except Exception as error:
        logger.info("the pictures of %s cannot be drawn: %s", contents.folder, error)
        return []
    return [
        '<span style="white-space:nowrap">'
        + "".join(
            f'<img width="{SHOWN}" height="{SHOWN}" style="display:inline;margin:0" '
            f'alt="superclass {entry.superclass}, {DIRECTION_WORDS[direction]}" title="{DIRECTION_WORDS[direction]}" src="'
            + data_uri(
                shaded_png(entry.views[direction].shade, entry.views[direction].alpha, superclass_colour(entry.superclass))
            )
            + '">'
            for direction in DIRECTIONS
        )
        + "</span>"
        for entry in drawn
    ]
