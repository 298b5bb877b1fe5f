"""What decides the number of superclasses is said as the program decides it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import xarray as xr

from regroup_dask.report.count_decision import decide
from regroup_dask.report.stability import plot_stability
from regroup_dask.science.sparse_grouping import group_sparse

COUNTS = [1, 2, 3, 4, 5]


def curves(**values: list[float]) -> xr.Dataset:
    return xr.Dataset(
        {name: ("n_superclasses", line) for name, line in values.items()}, coords={"n_superclasses": COUNTS}
    )


EVIDENCE = [-91234.4, -1500.0, -2.9, 0.0, -12.3]
STABLE, GAPS, APART = [1.0, 0.8, 0.9, 0.99, 0.7], [0.1, 0.2, 0.1, 0.05, 0.01], [np.nan, 0.4, 2.0, 1.0, 0.1]


@pytest.mark.parametrize("chosen", [3, 4, 5])
def test_the_evidence_decides_where_it_is_known(chosen: int) -> None:
    decision = decide(curves(evidence=EVIDENCE, stability=STABLE, eigengap=GAPS, separation=APART), chosen)
    assert decision.deciding == "evidence"
    assert decision.automatic_count == 3  # four are no better than three by odds of 20 to 1
    text = " ".join(decision.sentences)
    assert "within 3 (odds of 20 to 1) of the best number; here that is 3." in text
    assert f"with {chosen - 1} it is" in text.lower()
    assert ("were not what the evidence would have taken" in text) == (chosen != 3)
    assert {3: "2.9 below the best", 4: "with 4 it is best", 5: "12.3 below the best"}[chosen] in text
    assert "places are drawn anew" in decision.others
    assert "They decide nothing." in decision.others


def test_large_differences_are_said_in_whole_numbers() -> None:
    assert "with 1 it is 91,234 below the best" in decide(curves(evidence=EVIDENCE), 2).sentences[1].lower()


def test_without_evidence_the_rules_are_those_of_the_program() -> None:
    decision = decide(curves(stability=STABLE, eigengap=GAPS, separation=APART, evidence=[np.nan] * 5), 3)
    assert decision.deciding == "separation"
    assert decision.automatic_count is None
    assert "separation times stability" in decision.sentences[0]
    assert "noise is added" in decision.others
    assert "evidence" not in decision.others
    unknown = decide(curves(stability=STABLE), 3)
    meaning = "Stability is the mean adjusted Rand index of groupings when noise is added, 1 where they stay the same."
    assert unknown == ("", None, (), meaning)


def test_of_listed_pairs_the_separation_decides() -> None:
    labels = np.repeat([0, 1, 2], 4)
    distance = np.where(labels[:, None] == labels[None], 0.01, 0.4) * (1 - np.eye(12))
    found = group_sparse(distance, np.full((12, 12), 0.01), "auto", n_resamplings=5)
    known = {
        name: ("n_superclasses", getattr(found, f"{name}_curve")) for name in ("stability", "eigengap", "separation")
    }
    decision = decide(xr.Dataset(known, coords={"n_superclasses": found.candidate_superclasses}), 3)
    assert decision.deciding == "separation"
    assert found.n_superclasses == 3 == found.candidate_superclasses[np.nanargmax(found.separation_curve)]


def test_the_figure_has_what_decides_first() -> None:
    figure = plot_stability(curves(evidence=EVIDENCE, stability=STABLE, eigengap=GAPS), 4)
    first, *others = figure.axes
    assert first.get_title(loc="left").startswith("decides: log evidence")
    assert not any("decides" in axes.get_title(loc="left") for axes in others)
    assert len(others) == 2
    limit = [line for line in first.lines if np.allclose(line.get_ydata(), -3)]
    assert len(limit) == 1
    bottom, top = first.get_ylim()
    assert bottom < min(EVIDENCE)
    assert top > 0
    figure.savefig(io.BytesIO(), format="png", dpi=40)
