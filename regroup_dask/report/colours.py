"""Colours that people with any colour vision can tell apart, the same for a superclass in every figure."""

from __future__ import annotations

# Okabe and Ito (2008), "Color universal design"; the yellow and the black are left out, which do not show on a
# white and on a black page.
SUPERCLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8a7a3d", "#7a7a9e")
REMAINING_COLOUR = "#8c8c8c"
MORE_DENSITY = "#e66100"
LESS_DENSITY = "#3c7fd8"


def superclass_colour(superclass: int) -> str:
    """Colour of a superclass, as ``#rrggbb``; they repeat after eight, and grey is for what remains (-1)."""
    if superclass < 0:
        return REMAINING_COLOUR
    return SUPERCLASS_COLOURS[superclass % len(SUPERCLASS_COLOURS)]


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    luminance = sum(weight * (part / 255) ** 2.2 for weight, part in zip((0.2126, 0.7152, 0.0722), rgb(colour), strict=True))
    return "#000000" if luminance > 0.179 else "#ffffff"


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
