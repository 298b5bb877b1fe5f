"""A matplotlib figure as SVG inside the page, in the colours and letters of the page."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#101112"
"""Drawn in this colour, a line takes the page's colour of text, light or dark."""

ACCENT = "#111213"
"""Drawn in this colour, a line takes the page's colour of emphasis."""


def inline_svg(figure: Figure, *, label: str, salt: str) -> str:
    """Return a figure as one ``<svg>`` element that scales with its place.

    Parameters
    ----------
    figure
        Drawn with `INK` and `ACCENT` where the page's own colours are meant.
    label
        What a screen reader says of it.
    salt
        Makes the ids of its parts its own among the figures of the page.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: _own_id(found.group(1), referenced, salt), text)
    text = re.sub(r'(url\(#|xlink:href="#)([^)"]+)', lambda found: f"{found.group(1)}{salt}-{found.group(2)}", text)
    text = text.replace(INK, "currentColor").replace(ACCENT, "var(--accent)").replace("'DejaVu Sans', 'Bitstream Vera Sans'", "")
    text = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    head = re.search(r"<svg[^>]*>", text)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head.group())
    assert box is not None
    width = box.group().split()[2]
    opening = (
        f'<svg class="chart" role="img" aria-label={quoteattr(label)} {box.group()} style="max-width:{width}pt" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + re.sub(r">\s+<", "><", text[head.end() :]).strip()


def _own_id(name: str, referenced: set[str], salt: str) -> str:
    return f' id="{salt}-{name}"' if name in referenced else ""
