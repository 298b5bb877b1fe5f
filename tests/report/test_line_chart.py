"""Line charts as SVG: where values lie, ticks, and nothing that could break the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr

from regroup_dask.report.line_chart import Axis, Line, decade_ticks, line_chart, round_ticks, whole_ticks
from regroup_dask.report.page_charts import count_charts, fsc_chart


def points(path: str) -> np.ndarray:
    return np.array([[float(value) for value in pair.split()] for pair in re.split(r"[ML]", path)[1:]])


def test_values_lie_where_the_axes_say() -> None:
    x, y = np.array([0.0, 5.0, 10.0]), np.array([0.0, np.nan, 2.0])
    axes = {"across": Axis(0, 10, ((0, "0"), (10, "10"))), "up": Axis(0, 4, ((0, "0"), (2, "2"), (4, "4")))}
    text = line_chart([Line(x, y, "#0072b2", dots=True)], **axes, label='a "label" & <more>')
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == 'a "label" & <more>'
    drawn = points(next(path.get("d") for path in root.iter("path") if path.get("stroke-linejoin")))
    assert len(drawn) == 2
    names = {element.text: element for element in root.iter("text")}
    assert drawn[0, 0] == pytest.approx(40)
    assert drawn[-1, 0] == pytest.approx(float(names["10"].get("x")))
    assert drawn[-1, 1] == pytest.approx(float(names["2"].get("y")) - 3.7, abs=0.11)
    # A value beyond the axis stays within the picture.
    beyond = line_chart([Line(x, np.array([0.0, 9.0, -9.0]), "red")], **axes, label="x")
    heights = points(re.search(r'd="(M[^"]*)" fill="none" stroke="red"', beyond)[1])[:, 1]
    assert heights[1] == pytest.approx(float(names["4"].get("y")) - 3.7, abs=0.11)
    assert heights[2] == pytest.approx(float(names["0"].get("y")) - 3.7, abs=0.11)


def test_ticks() -> None:
    assert [value for value, _ in round_ticks(0, 1)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [words for _, words in round_ticks(-2, 3)] == ["−2", "−1", "0", "1", "2", "3"]
    assert len(round_ticks(0, 1234.5)) <= 6
    assert round_ticks(3, 3) == ((3, "3"),)
    assert [value for value, _ in whole_ticks(1, 24)] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert [words for _, words in decade_ticks(0.0007, 1.3)] == ["0.001", "0.01", "0.1", "1"]
    assert len(decade_ticks(2.0, 9.0)) == 2


def test_a_chart_for_every_curve_that_is_known() -> None:
    curves = xr.Dataset(
        {
            "stability": ("n_superclasses", [1.0, 0.9, np.nan]),
            "evidence": ("n_superclasses", [-1000.0, 0.0, -10.0]),
            "separation": ("n_superclasses", [np.nan, 1.0, np.nan]),
        },
        coords={"n_superclasses": [2, 3, 4]},
    )
    stability, evidence = count_charts(curves, 3, "stability")
    assert "Stability against the number" in stability
    assert "Decides: stability" in stability
    assert [chart.count("dashed") for chart in (stability, evidence)] == [1, 2]  # the number; what is as good as the best
    heights = points(re.search(r'd="(M[^"]*L[^"]*)" fill="none" stroke="var', evidence)[1])[:, 1]
    assert heights[1] < heights[2] < heights[0]  # the best on top
    ElementTree.fromstring(evidence)


def test_fsc_has_a_line_for_every_pair_and_their_median() -> None:
    fsc = np.ones((3, 3, 5)) * np.linspace(1, 0.2, 5)
    chart = fsc_chart(np.arange(5) / 100, fsc, superclass=1)
    assert chart.count('stroke-linejoin="round"') == 4
    assert "superclass 1" in chart
    assert ">50<" in chart
