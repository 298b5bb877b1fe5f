"""The page: complete, self-contained, the same every time, and there whatever is missing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from regroup_dask.errors import InputError
from regroup_dask.report.page import write_page
from tests.report.output_folder import write_output

VOID = {"meta", "link", "img", "input", "br"}
SVG_CLOSED = {"path", "rect", "image", "use", "circle", "line"}


class Checker(HTMLParser):
    """Collects what a browser would complain of, or go and fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.unclosed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("src", "href", "xlink:href"):
            if values.get(name):
                self.addresses.append(str(values[name]))
        if tag == "img":
            self.images.append(values)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a" and str(values.get("href", "")).startswith("#"):
            self.targets.append(str(values["href"])[1:])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.unclosed.append(tag)


def checked(path: Path) -> tuple[str, Checker]:
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.unclosed
    assert not checker.stack
    return text, checker


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "OUT"
    write_output(folder, labels=(0, 1, 0, 1, 0, -1), warnings=("Class 3 has little signal.",))
    return write_page(folder)


def test_says_the_answer(page: Path) -> None:
    text, _ = checked(page)
    assert "5 classes in 2 superclasses" in text
    assert "Class 3 has little signal." in text
    assert re.search(r"Class 5 \(50 particles\): smaller than the minimum of 40", text)
    assert "regroup-dask run job -k 2 -o OUT" in text


def test_names_the_pairs_that_were_corrected(page: Path) -> None:
    text = re.sub(r"<[^>]*>|\s+", " ", page.read_text(encoding="utf-8"))
    said = re.search(r"1 pair whose first pose the other pairs contradicted .*?: ([^.]*)\.", re.sub(r" +", " ", text))
    assert said is not None
    assert said.group(1).strip() == "0–1"


def test_needs_nothing_else(page: Path) -> None:
    text, checker = checked(page)
    assert all(address.startswith(("data:", "#")) for address in checker.addresses)
    assert "@import" not in text
    assert not re.search(r"url\((?!#|data:)", text)
    assert "default-src 'none'" in text


def test_every_picture_is_described_and_every_link_lands(page: Path) -> None:
    _, checker = checked(page)
    assert len(checker.images) >= 6 + 3 * 5
    assert all(image.get("alt") for image in checker.images)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in checker.images)
    assert len(set(checker.ids)) == len(checker.ids)
    assert set(checker.targets) <= set(checker.ids)


def test_is_the_same_every_time(page: Path) -> None:
    before = page.read_bytes()
    assert write_page(page.parent) == page
    assert page.read_bytes() == before
    assert [path.name for path in page.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "options",
    [
        {"particles": False},
        {"pairs": False},
        {"maps": False},
        {"volumes": False},
        {"maps": False, "volumes": False, "pairs": False, "particles": False},
        {"align": False},
        {"labels": (0, 0, 0)},
        {"labels": (0, 1, 2)},
        {"labels": (0, -1)},
        {"labels": (0,)},
        {"box": 25},
    ],
    ids=str,
)
def test_is_there_whatever_is_missing(tmp_path: Path, options: dict) -> None:
    path = write_page(write_output(tmp_path / "OUT", **options))
    text, _ = checked(path)
    assert "superclass" in text


def test_is_there_without_counts_or_optional_columns(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT")
    shutil.rmtree(folder / "particles")
    shutil.rmtree(folder / "remaining")
    (folder / "run.json").write_text('{"settings": {}, "seconds": {}}')
    checked(write_page(folder))


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    evil = '</script><script>alert("x")</script>'
    folder = write_output(tmp_path / "OUT", labels=(0, 1, 0), names=(evil, "b & c <d>", "'quoted\""), warnings=(evil,))
    text, _ = checked(write_page(folder))
    assert "<script>alert" not in text


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        write_page(tmp_path)


@pytest.mark.slow
def test_stays_small_with_many_classes(tmp_path: Path) -> None:
    labels = tuple(index % 12 for index in range(50))
    path = write_page(write_output(tmp_path / "OUT", labels=labels))
    assert path.stat().st_size < 10 * 10**6


def test_the_page_of_a_run_that_ends_now_states_its_own_time(tmp_path: Path) -> None:
    """Within a run its own time is not yet in run.json: the page has what drawing it took; later it has what was kept."""
    folder = write_output(tmp_path / "OUT")
    text = write_page(folder).read_text(encoding="utf-8")
    assert re.search(r"Writing the report</th><td[^>]*>0\.75<", text)
    assert "Time, 6.5 s together" in text
    record = json.loads((folder / "run.json").read_text())
    del record["seconds"]["Writing the report"]
    (folder / "run.json").write_text(json.dumps(record))
    text = write_page(folder).read_text(encoding="utf-8")
    own = re.search(r"Writing the report</th><td[^>]*>(\d+\.\d\d)<", text)
    assert own is not None
    assert float(own.group(1)) > 0
    assert "{seconds of" not in text
