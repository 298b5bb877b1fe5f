"""Why there are as many superclasses as there are: which curve decides, what it says of this number, and what ``auto`` takes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.science.local_search import STRONG_EVIDENCE, fewest_groups

CURVE_WORDS = {
    "evidence": "log evidence, below the best",
    "stability": "stability",
    "eigengap": "eigengap",
    "separation": "separation",
}
"""The curves in the order in which they are shown, with what they are."""

CURVE_MEANING = {
    "stability": "stability is the mean adjusted Rand index of groupings when {disturbed}, 1 where they stay the same",
    "eigengap": "a high eigengap at K speaks for K superclasses",
    "separation": "separation is the logarithm of the least distance between superclasses over the largest within",
}


class CountDecision(NamedTuple):
    """What decides the number of superclasses.

    Attributes
    ----------
    deciding
        Name of the curve that decides ``-k auto``; empty where none is known.
    automatic_count
        What ``-k auto`` takes by it; None where the curve alone does not say.
    sentences
        The rule, and what it says of the number that was taken.
    others
        What the other curves are, in one sentence; they decide nothing.
    """

    deciding: str
    automatic_count: int | None
    sentences: tuple[str, ...]
    others: str


def decide(curves: xr.Dataset, chosen: int) -> CountDecision:
    """Say which curve decides the number of superclasses, and what it says of this one.

    Parameters
    ----------
    curves
        From `regroup_dask.report.stability.count_curves`.
    chosen
        The number of superclasses of the run.

    Notes
    -----
    The rules are those of `regroup_dask.science.grouping.group_classes` and `regroup_dask.science.sparse_grouping.group_sparse`.
    """
    known = [name for name in CURVE_WORDS if name in curves and int(curves[name].notnull().sum()) > 1]
    if "evidence" in known:
        deciding, count, sentences = _by_evidence(curves["evidence"].dropna("n_superclasses"), chosen)
    elif "separation" in known:
        deciding, count, sentences = "separation", None, _BY_SEPARATION
    else:
        deciding, count, sentences = "", None, ()
    return CountDecision(deciding, count, sentences, _others([name for name in known if name != deciding], deciding))


_BY_SEPARATION = (
    "What decides is how far the superclasses are apart, because these classes were not grouped place by place: -k auto takes as "
    "many superclasses as differ by more than their uncertainty; where differences fade out without a gap, the number where "
    "separation times stability is largest. Of more than 60 classes, and where only the nearest were compared, it begins with "
    "twice as many, unites them two by two, and takes the number that describes all pairs in the fewest words, so that a single "
    "odd class is no superclass.",
)


def _by_evidence(line: xr.DataArray, chosen: int) -> tuple[str, int, tuple[str, ...]]:
    """The rule of the evidence, and what it says of the number that was taken and of its neighbours."""
    counts, values = line["n_superclasses"].values.astype(int), line.values.astype(np.float64)
    count = int(counts[fewest_groups(values) - 1])
    rule = (
        "What decides is the evidence: the natural logarithm of how likely the maps, compared place by place, are with K "
        f"structures behind them. -k auto takes the fewest superclasses that are within {STRONG_EVIDENCE:g} (odds of 20 to 1) of "
        f"the best number; here that is {count}."
    )
    told = dict(zip(counts.tolist(), values.tolist(), strict=True))
    around = [f"with {number} it is {below_best(told[number])}" for number in (chosen - 1, chosen, chosen + 1) if number in told]
    found = f"{around[0][0].upper()}{around[0][1:]}{''.join(f', {words}' for words in around[1:])}." if around else ""
    if chosen in told and chosen != count:
        found += f" The {chosen} of this run {'was' if chosen == 1 else 'were'} not what the evidence would have taken."
    return "evidence", count, (rule, found) if found else (rule,)


def below_best(value: float) -> str:
    """A log evidence, less that of the best number, in words."""
    if value == 0:
        return "best"
    return f"{-value:,.1f} below the best" if value > -100 else f"{math.floor(-value + 0.5):,} below the best"


def _others(names: list[str], deciding: str) -> str:
    """What the curves that do not decide are."""
    disturbed = "the places are drawn anew" if deciding == "evidence" else "noise is added"
    words = [CURVE_MEANING[name].format(disturbed=disturbed) for name in names if name in CURVE_MEANING]
    if not words:
        return ""
    text = "; ".join(words)
    role = {1: "", 2: " Neither decides."}.get(len(words), " They decide nothing.") if deciding else ""
    return f"{text[0].upper()}{text[1:]}.{role}"
