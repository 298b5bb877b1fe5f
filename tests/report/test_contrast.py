"""Text of the page stands out from what it is written on (WCAG 2.1, 1.4.3: 4.5 to 1), light and dark."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from regroup_dask.report.colours import SUPERCLASS_COLOURS, ink_on, rgb

STYLE = (resources.files("regroup_dask.report") / "templates" / "style.css").read_text(encoding="utf-8")


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [value / 255 for value in rgb(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def colours(block: str) -> dict[str, str]:
    found = re.findall(r"--([a-z-]+):(#[0-9a-f]{3,6})", block)
    return {name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:]) for name, value in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(scheme: str) -> None:
    light, dark = (colours(block) for block in re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)[:2])
    chosen = light if scheme == "light" else {**light, **dark}
    for ground in ("page", "card", "soft", "stage"):
        for ink in ("ink", "muted", "accent"):
            assert contrast(chosen[ink], chosen[ground]) >= 4.5, (ink, ground)
    assert contrast(chosen["warn"], chosen["warn-soft"]) >= 4.5
    assert contrast(chosen["page"], chosen["ink"]) >= 4.5  # the chosen side of a switch


def test_the_measure_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colour", SUPERCLASS_COLOURS)
def test_numbers_on_a_superclass_colour_are_readable(colour: str) -> None:
    assert contrast(ink_on(colour), colour) >= 4.5
