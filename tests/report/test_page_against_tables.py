"""Every number of the page is the one in the tables and stores of its folder, read here without the code of the report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.report.page import write_page
from tests.report.output_folder import write_output

LABELS = (0, 1, 0, 1, 0, -1, 1, 2)


class Reader(HTMLParser):
    """Tables by the name of their region, texts by the class or id of their element, data scripts by their id."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: dict[str, str] = {}
        self.cards: dict[str, str] = {}
        self.members: list[str] = []
        self.cells: list[str] = []
        self._region = self._script = self._card = ""
        self._in_cell = self._in_member = self._in_matrix = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if values.get("role") == "region":
            self._region = values.get("aria-label", "")
        elif tag == "table":
            self.tables[self._region] = []
        elif tag == "tr":
            self.tables[self._region].append([])
        elif tag in ("td", "th"):
            self.tables[self._region][-1].append("")
            self._in_cell = True
        elif tag == "script" and values.get("type") == "application/json":
            self._script = values["id"]
        elif tag == "article":
            self._card = values["aria-labelledby"]
        elif tag == "figure" and values.get("class") == "member":
            self.members.append("")
            self._in_member = True
        elif tag == "text" and values.get("class", "").startswith("on-"):
            self.cells.append("")
            self._in_matrix = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "script":
            self._script = ""
        elif tag == "article":
            self._card = ""
        elif tag == "figcaption":
            self._in_member = False
        elif tag == "text":
            self._in_matrix = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[self._region][-1][-1] += data
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        if self._card:
            self.cards[self._card] = self.cards.get(self._card, "") + " " + data
        if self._in_member:
            self.members[-1] += " " + data
        if self._in_matrix:
            self.cells[-1] += data


class Written(NamedTuple):
    page: Reader
    classes: list[dict[str, Any]]
    superclasses: list[dict[str, Any]]
    pairs: xr.Dataset
    class_maps: xr.Dataset
    record: dict[str, Any]
    folder: Path


def scramble(folder: Path) -> None:
    """Give every pair and class numbers of its own, so that no two places of the page could be exchanged unseen."""
    random = np.random.default_rng(7)
    pairs = xr.open_zarr(folder / "pairs.zarr", consolidated=False).load()
    n_classes = pairs.sizes["class_i"]
    for name, low in (("correlation", 0.3), ("similarity", 0.6), ("distance_sigma", 0.01), ("confidence", 5.0)):
        values = np.triu(random.uniform(low, 0.95 if low < 1 else 40, (n_classes, n_classes)), 1)
        values += values.T
        np.fill_diagonal(values, 0 if name == "distance_sigma" else 1)
        pairs[name].values[:] = values
    pairs["distance"].values[:] = 1 - pairs["similarity"].values
    turns = Rotation.random(n_classes * n_classes, random_state=3).as_quat(canonical=True)
    pairs["rotation_quaternion"].values[:] = turns.reshape(n_classes, n_classes, 4)
    pairs["shift_angstrom"].values[:] = random.normal(0, 5, (n_classes, n_classes, 3))
    pairs.drop_encoding().to_zarr(folder / "pairs.zarr", mode="w", consolidated=False)
    table = pq.read_table(folder / "classes.parquet")
    rows = table.to_pylist()
    for row in rows:
        if row["superclass"] >= 0:
            row["similarity_to_superclass"], row["stability"] = random.uniform(0.5, 1, 2)
            row["rotation_quaternion"] = Rotation.random(random_state=row["class_id"]).as_quat(canonical=True).tolist()
            row["shift_angstrom"] = random.normal(0, 8, 3).tolist()
    pq.write_table(table.from_pylist(rows, schema=table.schema), folder / "classes.parquet")
    maps = xr.open_zarr(folder / "classes.zarr", consolidated=False).load()
    maps["resolution_angstrom"].values[:] = random.uniform(4, 20, len(rows))
    maps["particle_radius_angstrom"].values[:] = random.uniform(30, 90, len(rows))
    maps.drop_encoding().to_zarr(folder / "classes.zarr", mode="w", consolidated=False)
    record = json.loads((folder / "run.json").read_text())
    record["grouping"] = {
        "candidate_superclasses": [1, 2, 3, 4],
        "evidence_curve": [-12345.6, -1.5, 0.0, -7.25],
        "stability_curve": [1.0, 0.91, 0.87, 0.5],
        "eigengap_curve": [0.1, 0.3, 0.05, 0.01],
        "separation_curve": [None, 1.25, 0.5, -0.25],
    }
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = write_output(tmp_path_factory.mktemp("agreement") / "OUT", labels=LABELS)
    scramble(folder)
    reader = Reader()
    reader.feed(write_page(folder).read_text(encoding="utf-8"))
    return Written(
        reader,
        pq.read_table(folder / "classes.parquet").to_pylist(),
        pq.read_table(folder / "superclasses.parquet").to_pylist(),
        xr.open_zarr(folder / "pairs.zarr", consolidated=False).load(),
        xr.open_zarr(folder / "classes.zarr", consolidated=False).load(),
        json.loads((folder / "run.json").read_text()),
        folder,
    )


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-").replace("°", "").replace("Å", "").strip())


def turned(row: dict[str, Any]) -> float:
    return float(np.degrees(Rotation.from_quat(row["rotation_quaternion"]).magnitude()))


def median_confidence(written: Written, row: dict[str, Any]) -> float | None:
    others = [
        other["class_id"]
        for other in written.classes
        if other["superclass"] == row["superclass"] and other["class_id"] != row["class_id"]
    ]
    if not others:
        return None
    return float(np.median(written.pairs["confidence"].sel(class_i=row["class_id"], class_j=others)))


def test_cards(written: Written) -> None:
    total = written.record["n_particles"]
    for row in written.superclasses:
        card = " ".join(written.page.cards[f"card-{row['superclass']}"].split())
        assert f" {row['n_particles']:,} " in f" {card} "
        assert f"{100 * row['n_particles'] / total:.1f} % of particles" in card.replace(" % ", " % ")
        assert f"frame of class {row['reference_class']}" in card
        assert f"stability {row['stability']:.2f}" in card
        members = {int(value) for value in re.findall(r"class (\d+) [\d,]+", card.split("frame of class")[1])}
        assert members == {entry["class_id"] for entry in written.classes if entry["superclass"] == row["superclass"]}


def test_table_of_classes(written: Written) -> None:
    head, *rows = written.page.tables["Table of classes"]
    names = [name.split(",")[0] for name in head]
    seen = {int(row[0].split()[0]): dict(zip(names, row, strict=True)) for row in rows}
    assert sorted(seen) == [row["class_id"] for row in written.classes]
    for row in written.classes:
        shown, statistics = seen[row["class_id"]], written.class_maps.sel(class_id=row["class_id"])
        assert number(shown["particles"]) == row["n_particles"]
        assert number(shown["resolution"]) == pytest.approx(float(statistics["resolution_angstrom"]), abs=0.051)
        assert number(shown["radius"]) == pytest.approx(float(statistics["particle_radius_angstrom"]), abs=0.51)
        if row["superclass"] < 0:
            assert shown["superclass"] == "too small"
            continue
        assert int(shown["superclass"]) == row["superclass"]
        assert number(shown["similarity"]) == pytest.approx(row["similarity_to_superclass"], abs=0.00051)
        assert number(shown["stability"]) == pytest.approx(row["stability"], abs=0.0051)
        assert number(shown["turned"]) == pytest.approx(turned(row), abs=0.051)
        assert [number(value) for value in shown["shift x"].split(",")] == pytest.approx(row["shift_angstrom"], abs=0.051)
        expected = median_confidence(written, row)
        if expected is not None:
            assert number(shown["confidence"]) == pytest.approx(expected, abs=0.051)


def test_members(written: Written) -> None:
    captions = {int(match[1]): text for text in written.page.members if (match := re.search(r"Class (\d+)", text))}
    assert sorted(captions) == [row["class_id"] for row in written.classes if row["superclass"] >= 0]
    references = {row["reference_class"] for row in written.superclasses}
    for row in written.classes:
        if row["superclass"] < 0:
            continue
        text = " ".join(captions[row["class_id"]].split())
        assert f"particles {row['n_particles']:,}" in text
        if row["class_id"] in references:
            assert "frame" in text
            continue
        assert f"similarity {row['similarity_to_superclass']:.3f}" in text
        assert f"turned by {turned(row):.1f}°" in text
        assert f"shifted by {np.linalg.norm(row['shift_angstrom']):.1f} Å" in text


def test_pairs_that_are_pointed_at(written: Written) -> None:
    data = json.loads(written.page.scripts["pair-values"])
    square = {"class_i": data["ids"], "class_j": data["ids"]}
    assert sorted(data["ids"]) == written.pairs["class_i"].values.tolist()
    for name, tolerance in (("similarity", 6e-5), ("correlation", 6e-5), ("distance_sigma", 6e-5), ("confidence", 6e-4)):
        np.testing.assert_allclose(data["values"][name], written.pairs[name].sel(square).values, atol=tolerance)
    turns = written.pairs["rotation_quaternion"].sel(square).values
    degrees = np.degrees(2 * np.arccos(np.clip(np.abs(turns[..., 3]), 0, 1)))
    np.testing.assert_allclose(data["values"]["rotation_degrees"], degrees, atol=0.051)
    shifts = np.linalg.norm(written.pairs["shift_angstrom"].sel(square).values, axis=-1)
    np.testing.assert_allclose(data["values"]["shift_angstrom"], shifts, atol=0.051)
    labels = {row["class_id"]: row["superclass"] for row in written.classes}
    assert data["superclass"] == [labels[class_id] for class_id in data["ids"]]


def test_matrix_and_its_table(written: Written) -> None:
    ids = json.loads(written.page.scripts["pair-values"])["ids"]
    off = ~np.eye(len(ids), dtype=bool)
    square = {"class_i": ids, "class_j": ids}
    shown = np.array([float(text) for text in written.page.cells]).reshape(2, -1)
    for values, name in zip(shown, ("similarity", "correlation"), strict=True):
        np.testing.assert_allclose(values, written.pairs[name].sel(square).values[off], atol=0.0051)
    head, *rows = written.page.tables["Table of the similarity of the structures"]
    assert [int(value) for value in head[1:]] == ids
    table = np.array([[float(value) for value in row[1:]] for row in rows])
    np.testing.assert_allclose(table, written.pairs["similarity"].sel(square).values, atol=0.00051)


@pytest.mark.parametrize(("rule", "words"), [("argmax", "where particles went"), ("sum", "sum of class posteriors")])
def test_flow(written: Written, rule: str, words: str) -> None:
    counted: dict[tuple[str, str], float] = {}
    for path in sorted(written.folder.glob("*/**/*.parquet")):
        place = re.search(r"superclass=(\d+)", str(path))
        if place is None and "remaining" not in str(path):
            continue
        for row in pq.read_table(path).to_pylist():
            origin = f"class {row['assigned_class_id']}"
            if rule == "argmax":
                shares = {f"superclass {place[1]}" if place else "remaining": 1.0}
            else:
                shares = {f"superclass {index}": value for index, value in enumerate(row["superclass_posterior"])}
            for target, share in shares.items():
                counted[origin, target] = counted.get((origin, target), 0.0) + share
    _, *rows = written.page.tables[f"The flow as a table, {words}"]
    shown = {(row[0].strip(), row[1].strip()): (number(row[2]), number(row[3])) for row in rows}
    total = sum(counted.values())
    assert sorted(shown) == sorted(key for key, value in counted.items() if value / total >= 1e-4)
    for key, (particles, percent) in shown.items():
        assert particles == pytest.approx(counted[key], abs=0.51)
        assert percent == pytest.approx(100 * counted[key] / total, abs=0.051)


def test_curves(written: Written) -> None:
    head, *rows = written.page.tables["Curves as a table"]
    grouping = written.record["grouping"]
    assert [row[0] for row in rows] == ["1", "2", "3 (chosen)", "4"]
    for column, name in enumerate(("evidence", "stability", "eigengap", "separation"), 1):
        assert name in head[column]
        for row, expected in zip(rows, grouping[f"{name}_curve"], strict=True):
            if expected is None:
                assert row[column] == "–"
            else:
                assert number(row[column]) == pytest.approx(expected, abs=0.051 if name == "evidence" else 5.1e-5)


def test_how_it_was_made(written: Written) -> None:
    _, *stages = written.page.tables["Times"]
    assert {row[0]: number(row[1]) for row in stages} == pytest.approx(written.record["seconds"], abs=0.0051)
    _, *settings = written.page.tables["Settings"]
    assert [row[2] for row in settings] == list(written.record["settings"])
    _, *inputs = written.page.tables["Inputs"]
    assert [[row[0], row[2]] for row in inputs] == [
        [entry["path"], entry["sha256"]] for entry in written.record["fingerprints"]
    ]
    assert dict(row[:2] for row in written.page.tables["Versions"][1:]) == written.record["versions"]
