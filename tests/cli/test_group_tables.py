"""What ``group`` shows is what the groupings have: members, frames, hands, stability, and the evidence that decides."""

from __future__ import annotations

import io
import re

import numpy as np
import xarray as xr
from rich.console import Console

from regroup_dask.cli.group_tables import show_counts, show_groups


def grouping(labels: list[int], *, evidence: list[float | None] | None = None, stability: float = 1.0) -> xr.Dataset:
    count, members = max(labels) + 1, np.array(labels)
    similar = [0.9 + 0.01 * index for index in range(len(labels))]
    return xr.Dataset(
        {
            "superclass": ("class_id", members),
            "mirrored": ("class_id", [index == 4 for index in range(len(labels))]),
            "similarity_to_superclass": ("class_id", similar),
            "superclass_stability": ("superclass_id", np.full(count, stability)),
            "reference_class": ("superclass_id", [int(np.flatnonzero(members == label)[0]) for label in range(count)]),
        },
        coords={"class_id": np.arange(len(labels)), "superclass_id": np.arange(count)},
        attrs={} if evidence is None else {"candidate_superclasses": [1, 2, 3, 4], "evidence_curve": evidence},
    )


def shown(show, *given, **options) -> str:
    stream = io.StringIO()
    show(Console(file=stream, width=140), *given, **options)
    return stream.getvalue()


def test_one_grouping() -> None:
    text = shown(show_groups, grouping([0, 1, 0, 2, 1], stability=0.5))
    assert "3 superclasses" in text
    assert re.search(r"│ +0 │ 0\*, 2 +│ +0\.900 │ +0\.50 │", text)
    assert re.search(r"│ +1 │ 1\*, 4' +│ +0\.910 │", text)
    assert re.search(r"│ +2 │ 3\* +│ +- │", text)
    assert "' a class of the opposite hand" in text
    by_hand = shown(show_groups, grouping([0, 0, 1, 1], stability=float("nan")))
    assert "stability" not in by_hand
    assert "opposite hand" not in by_hand


def test_the_evidence_of_several_numbers() -> None:
    curve = [-50321.4, -2.25, 0.0, None]
    several = ([0, 0, 1, 1, 1], [0, 1, 0, 2, 1], [0, 1, 2, 3, 1])
    text = shown(show_counts, [grouping(labels, evidence=curve) for labels in several])
    assert re.search(r"│ 2 │.*│ +-2\.2 │", text)
    assert re.search(r"│ 3 │.*│ +0\.0 │", text)
    assert re.search(r"│ 4 │.*│ +- │", text)
    assert "fewest superclasses within 3" in " ".join(text.split())
    assert "-50,321" in shown(show_counts, [grouping([0, 0], evidence=curve)])
    assert "vidence" not in shown(show_counts, [grouping([0, 0, 1], evidence=[None] * 4), grouping([0, 1, 2])])
