"""Flow of particles: nothing is lost between the files and the figure."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.report.answer import remaining_lines
from regroup_dask.report.flow import lay_out_flow, plot_flow
from regroup_dask.report.output_contents import read_flow, read_output
from regroup_dask.report.page_figures import flow_figures, spread_labels
from tests.report.output_folder import write_output


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=1, max_size=8))
def test_widths_are_particles(counts: list[list[int]]) -> None:
    flow = xr.DataArray(
        np.array(counts),
        dims=("class_id", "destination"),
        coords={"class_id": np.arange(len(counts)), "destination": [0, 1, -1]},
    )
    laid = lay_out_flow(flow)
    assert laid.total == flow.sum()
    for bars in (laid.classes, laid.destinations):
        if laid.total:
            assert sum(bar.particles for bar in bars) == flow.sum()
            assert bars[0].begin >= -1e-9
            assert bars[-1].end <= 1 + 1e-9
        assert all(first.end <= second.begin + 1e-9 for first, second in itertools.pairwise(bars))
    for ribbon in laid.ribbons:
        bar = next(bar for bar in laid.classes if bar.identity == ribbon.class_id)
        assert bar.begin - 1e-9 <= ribbon.left[0] <= ribbon.left[1] <= bar.end + 1e-9
        end = next(bar for bar in laid.destinations if bar.identity == ribbon.destination)
        assert end.begin - 1e-9 <= ribbon.right[0] <= ribbon.right[1] <= end.end + 1e-9


@pytest.mark.parametrize("n_classes", [2, 12, 100])
def test_every_label_has_room_beside_its_bar(n_classes: int) -> None:
    sizes = np.random.default_rng(0).pareto(1.0, n_classes) + 0.001
    flow = xr.DataArray(
        np.stack([sizes, np.zeros(n_classes)], axis=1),
        dims=("class_id", "destination"),
        coords={"class_id": np.arange(n_classes), "destination": [0, -1]},
    )
    (figure,) = flow_figures(flow.to_dataset(name="particles"))
    middles = [bar["middle"] for bar in figure["classes"]]
    placed = spread_labels(middles, distance=13, height=figure["height"])
    np.testing.assert_allclose(placed, middles, atol=1.0)
    width = {bar["words"]: bar["size"] for bar in figure["classes"]}
    assert width[f"class {sizes.argmax()}"] / figure["destinations"][0]["size"] == pytest.approx(
        sizes.max() / sizes.sum(), rel=0.05
    )


def test_counts_come_from_the_particles(tmp_path: Path) -> None:
    contents = read_output(write_output(tmp_path / "OUT", labels=(0, 1, 0, -1)))
    flow = read_flow(contents.folder, contents.classes, 2)
    assert flow is not None
    expected = [[59, 0, 0], [0, 56, 0], [53, 0, 0], [0, 0, 50]]
    np.testing.assert_array_equal(flow["particles"], expected)
    np.testing.assert_allclose(flow["expected_particles"].sel(class_id=0), [59 * 0.9, 59 * 0.1, 0], rtol=1e-5)
    assert float(flow["expected_particles"].sum()) == pytest.approx(218, rel=1e-5)


def test_without_particle_files_the_table_of_classes_counts(tmp_path: Path) -> None:
    classes = [
        {"class_id": 0, "n_particles": 10, "superclass": 0},
        {"class_id": 4, "n_particles": 5, "superclass": -1},
    ]
    flow = read_flow(tmp_path, classes, 1)
    assert flow is not None
    assert flow["particles"].values.tolist() == [[10, 0], [0, 5]]
    assert read_flow(tmp_path, [{"class_id": 0, "n_particles": None, "superclass": 0}], 1) is None


def test_plot_names_every_bar(tmp_path: Path) -> None:
    contents = read_output(write_output(tmp_path / "OUT", labels=(0, 1, 0, -1)))
    flow = read_flow(contents.folder, contents.classes, 2)
    assert flow is not None
    words = " ".join(text.get_text() for text in plot_flow(flow).axes[0].texts)
    for name in ("class 0", "class 3", "superclass 1", "remaining"):
        assert name in words


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 500), min_size=1, max_size=20))
def test_labels_do_not_overlap(middles: list[float]) -> None:
    placed = spread_labels(sorted(middles), distance=14, height=500)
    assert all(second - first >= 14 - 1e-6 for first, second in itertools.pairwise(placed))


def test_an_excluded_class_without_a_map_is_counted_by_its_name(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT", labels=(0, 1, 0, -1))
    extra = pa.table({"assigned_class_id": np.full(7, 9, np.int32)})
    pq.write_table(extra, folder / "remaining" / "frag00001-0.parquet")
    contents = read_output(folder)
    flow = read_flow(folder, contents.classes, 2, without_map=[9])
    assert flow is not None
    assert int(flow["particles"].sel(class_id=9, destination=-1)) == 7
    assert "Class 9 (7 particles): excluded by hand; it has no map." in remaining_lines(contents, flow)
