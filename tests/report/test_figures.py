"""Figures as functions: they take the datasets and give a matplotlib figure, and leave no global state."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from regroup_dask.report.colours import ink_on, superclass_colour
from regroup_dask.report.methods import methods_paragraph
from regroup_dask.report.output_contents import OutputContents, read_output
from regroup_dask.report.pictures import colour_png, grey_png, shaded_png
from regroup_dask.report.similarity import matrix_order, pair_values, plot_similarity, telling_pairs
from regroup_dask.report.stability import count_curves, describe_change, neighbour_groupings, plot_stability
from regroup_dask.report.superclass_views import plot_superclasses, scale_bar
from tests.report.output_folder import write_output
from tests.science.test_local_model import _local


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> OutputContents:
    return read_output(write_output(tmp_path_factory.mktemp("figures") / "OUT", labels=(0, 1, 2, 0, 1, 2, -1)))


def test_similarity(contents: OutputContents) -> None:
    assert contents.pairs is not None
    for measure in ("similarity", "correlation"):
        figure = plot_similarity(contents.pairs, contents.groups, measure=measure)
        assert isinstance(figure, Figure)
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    order = matrix_order(contents.pairs, contents.groups)
    assert np.all(np.diff(np.flatnonzero(np.diff(order.superclass))) == 2)
    values = pair_values(contents.pairs, order.positions)
    assert values["similarity"][0][0] == 1.0
    first, last = order.positions[[0, -1]]
    assert values["similarity"][0][-1] == pytest.approx(float(contents.pairs["similarity"][first, last]), abs=1e-4)
    assert values["distance_sigma"][0][-1] == pytest.approx(0.01)


def test_telling_pairs_are_the_extremes(contents: OutputContents) -> None:
    assert contents.pairs is not None
    apart, together = telling_pairs(contents.pairs, contents.groups)
    values, labels = contents.pairs["similarity"].values, contents.groups["superclass"].values
    same = labels[:, None] == labels[None, :]
    assert f"{values[~same].max():.3f} ± 0.010" in apart
    assert f"{values[same].min():.3f} ± 0.010" in together


def test_stability_curves_and_neighbours(contents: OutputContents) -> None:
    recorded = {
        "candidate_superclasses": [2, 3, 4],
        "stability_curve": [0.7, 0.95, float("nan")],
        "eigengap_curve": [0.1, 0.4, 0.01],
    }
    curves = count_curves(contents.pairs, recorded)
    assert curves is not None
    assert curves["stability"].sel(n_superclasses=3) == 0.95
    assert len(plot_stability(curves, 3).axes) == 2
    alone = count_curves(contents.pairs, {})
    assert alone is not None
    assert contents.pairs is not None
    affinity = contents.pairs["similarity"].values
    degree = affinity.sum(axis=1)
    eigenvalues = np.sort(np.linalg.eigvals(affinity / degree[:, None]).real)[::-1]
    np.testing.assert_allclose(alone["eigengap"].values, -np.diff(eigenvalues), atol=1e-9)
    found = neighbour_groupings(contents.pairs, contents.groups, {})
    assert [entry["n_superclasses"] for entry in found] == [2, 4]
    assert count_curves(None, {}) is None


def test_changes_are_said_in_words() -> None:
    def grouping(labels: list[int]) -> xr.Dataset:
        return xr.Dataset({"superclass": ("class_id", labels)}, coords={"class_id": np.arange(len(labels))})

    now = grouping([0, 0, 1, 1, 2])
    assert describe_change(now, grouping([5, 5, 3, 3, 1])) == ["the grouping stays as it is"]
    assert describe_change(now, grouping([0, 0, 1, 1, 1])) == ["superclasses 1 and 2 become one"]
    assert describe_change(now, grouping([0, 3, 1, 1, 2])) == ["superclass 0 is split: classes 0 | 1"]
    both = describe_change(now, grouping([0, 1, 1, 1, 2]))
    assert both == ["superclass 0 is split: classes 0 | 1", "parts of superclasses 0 and 1 come together"]


def test_superclasses(contents: OutputContents) -> None:
    assert contents.volumes is not None
    density = contents.volumes["density"].assign_attrs(voxel_size_angstrom=4.0)
    figure = plot_superclasses(density, contents.groups)
    assert len(figure.axes) == 9
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def test_no_pyplot(contents: OutputContents) -> None:
    assert contents.pairs is not None
    before = "matplotlib.pyplot" in sys.modules
    plot_similarity(contents.pairs, contents.groups)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_pictures_say_what_the_arrays_say() -> None:
    image = np.linspace(0, 1, 12).reshape(3, 4)
    grey = np.asarray(Image.open(io.BytesIO(grey_png(image)))) / 255
    np.testing.assert_allclose(grey, image, atol=1 / 255)
    table = np.stack([np.linspace(0, 1, 256)] * 3, axis=1)
    with_hole = np.where(image > 0.9, np.nan, image)
    coloured = np.asarray(Image.open(io.BytesIO(colour_png(with_hole, table))).convert("RGBA")) / 255
    np.testing.assert_array_equal(coloured[..., 3] == 0, np.isnan(with_hole))
    np.testing.assert_allclose(coloured[..., 0][~np.isnan(with_hole)], image[~np.isnan(with_hole)], atol=0.01)
    shaded = np.asarray(Image.open(io.BytesIO(shaded_png(image, (image > 0.5) * 1.0, "#0072b2"))).convert("RGBA"))
    np.testing.assert_array_equal(shaded[..., 3] > 0, image > 0.5)
    assert (np.diff(shaded[2].astype(int).sum(axis=1)) > 0).all()


@pytest.mark.parametrize("superclass", range(-1, 9))
def test_labels_are_read_on_every_colour(superclass: int) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    colour = superclass_colour(superclass)
    high, low = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
    assert (high + 0.05) / (low + 0.05) > 3.0


@pytest.mark.parametrize(("width", "bar"), [(310, 100), (290, 50), (61, 20), (3.1, 1)])
def test_scale_bar_is_round(width: float, bar: float) -> None:
    assert scale_bar(width) == pytest.approx(bar)


def test_methods_say_only_what_was_done(contents: OutputContents) -> None:
    record = {**contents.record, "found": ["RELION job Class3D"]}
    aligned, references = methods_paragraph(record, {"box": 96, "voxel_size_angstrom": 1.5, "working_box": 64})
    assert "RELION" in aligned
    assert "in both hands" in aligned
    assert any("Scheres" in reference for reference in references)
    assert not any("cryoSPARC" in reference for reference in references)
    plain = {**record["settings"], "align": False, "similarity": "correlation", "posteriors": "sum"}
    still, fewer = methods_paragraph({**record, "settings": plain}, {})
    assert "aligned" not in still
    assert "summed class posterior" in still
    assert not any(name in " ".join(fewer) for name in ("Crowther", "Rosenthal", "Singer"))
    assert "spectral clustering" in still
    kept = ("distance", "fsc", "signal_fraction")
    modelled, more = methods_paragraph(record, {}, kept, n_corrected=3)
    assert "spectral clustering" not in modelled
    assert "place by place" not in modelled
    assert "3 pairs that the others contradicted were aligned again" in modelled
    assert any("Holland" in reference for reference in more)
    by_place, most = methods_paragraph(record, {}, (*kept, "place_product"))
    assert "place by place" in by_place
    assert any("Searle" in reference for reference in most)
    listed = methods_paragraph(record, {}, (*kept, "contrast"), every_pair=False)[0]
    assert "average linkage of the differences of the pairs that were compared (shells weighted" in listed
    by_correlation = {**record, "settings": {**record["settings"], "similarity": "correlation"}}
    assert "graph of the pairs" in methods_paragraph(by_correlation, {}, kept, every_pair=False)[0]
    many = {**record, "n_classes_kept": 100}
    assert "differences of the pairs that were compared" in methods_paragraph(many, {}, (*kept, "contrast"))[0]
    assert "differences of the pairs that were compared" not in methods_paragraph(many, {}, kept)[0]
    auto = {**record, "settings": {**record["settings"], "n_superclasses": "auto"}}
    assert "number was chosen" in methods_paragraph(auto, {}, ("distance",))[0]
    assert "strong evidence" in methods_paragraph(auto, {}, ("distance", "place_product"))[0]


def test_reads_from_a_path(tmp_path: Path) -> None:
    assert read_output(write_output(tmp_path / "OUT")).folder == tmp_path / "OUT"


def test_every_figure_is_found_by_name() -> None:
    from regroup_dask import report

    for name in ("superclasses", "similarity", "flow", "stability", "members", "fsc"):
        assert callable(getattr(report, f"plot_{name}"))
        assert f"plot_{name}" in dir(report)
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = report.plot_nothing


def test_one_superclass_less_or_more_is_told_by_place_where_that_is_known() -> None:
    """Maps 0 to 3, 4 to 6 and 7 to 9 differ in places; the page's grouping has the last two together."""
    truth = np.repeat(np.arange(3), (4, 3, 3))
    local = _local(3, truth, coefficients=150)
    ids = np.arange(10, 20)
    places = {f"place_{name}": (tuple(f"{name}_{axis}" for axis in range(np.ndim(values))), values)
              for name, values in local._asdict().items()}  # fmt: skip
    pairs = xr.Dataset(places, coords={"class_i": ids, "class_j": ids})
    groups = xr.Dataset(
        {"superclass": ("class_id", np.minimum(truth, 1)[::-1])}, coords={"class_id": ids[::-1], "superclass_id": [0, 1]}
    )
    less, more = neighbour_groupings(pairs, groups, {})
    assert less["sentences"] == ["superclasses 0 and 1 become one"]
    assert more["sentences"] == ["superclass 1 is split: classes 16, 15, 14 | 19, 18, 17"]
    assert less["how"] == more["how"]
    assert "Told from this grouping" in more["how"]
