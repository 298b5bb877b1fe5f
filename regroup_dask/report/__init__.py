"""Plots and the page a person reads.

Every figure is a function that takes the datasets of a result and returns a `matplotlib.figure.Figure`:
`plot_superclasses`, `plot_similarity`, `plot_flow`, `plot_stability`, `plot_members`, `plot_fsc`.
"""

from __future__ import annotations

import importlib
from typing import Any

_FIGURES = {
    "plot_flow": "flow",
    "plot_fsc": "members",
    "plot_members": "members",
    "plot_similarity": "similarity",
    "plot_stability": "stability",
    "plot_superclasses": "superclass_views",
}


def __getattr__(name: str) -> Any:
    """Import a figure when it is asked for, and not before: drawing needs much that a run does not."""
    if name in _FIGURES:
        return getattr(importlib.import_module(f"{__name__}.{_FIGURES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names that can be asked for."""
    return sorted([*globals(), *_FIGURES])
