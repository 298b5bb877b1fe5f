"""What is said at the end of a run is there: files that exist, commands that the program has."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from regroup_dask.cli.program import main
from regroup_dask.cli.summary import show_result
from regroup_dask.formats.result_tables import read_table, write_table
from regroup_dask.pipeline import Regrouped
from regroup_dask.report.next_steps import next_steps
from regroup_dask.report.page import write_page
from tests.report.output_folder import write_output


def test_only_what_the_folder_holds_is_named(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT")
    for name, count in (("cryosparc", 1), ("relion", 2)):
        (folder / name).mkdir()
        steps = next_steps(folder, n_superclasses=2, n_classes=6, shown="OUT")
        assert sum("particles_superclass_1." in step.text for step in steps) == count
    assert [step.text for step in steps] == [
        "OUT/cryosparc/particles_superclass_0.csg to particles_superclass_1.csg",
        "OUT/relion/particles_superclass_0.star to particles_superclass_1.star",
        "chimerax OUT/view.cxc",
        "regroup-dask group OUT -k 2-5",
    ]
    assert [step.text for step in next_steps(tmp_path, n_superclasses=1, n_classes=2, shown="OUT")] == []
    assert next_steps(tmp_path, n_superclasses=12, n_classes=100, shown="X")[-1].text == "regroup-dask group X -k 2-14"
    page = write_page(folder).read_text(encoding="utf-8")
    assert all(step.text in page for step in steps)


def test_the_command_that_is_named_is_one(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT")
    command = next_steps(folder, n_superclasses=2, n_classes=6, shown=str(folder))[-1].text
    with main.make_context("regroup-dask", shlex.split(command)[1:]) as context:
        name, found, rest = main.resolve_command(context, shlex.split(command)[1:])
        assert name == "group"
        assert found.make_context("group", list(rest), parent=context).params["counts"] == (2, 3, 4, 5)


def test_the_terminal_says_what_its_columns_are_and_where_to_go_on(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT", labels=(0, 1, 0, 1, 0, -1))
    (folder / "relion").mkdir()
    tables = (read_table(folder, "classes"), read_table(folder, "superclasses"))
    result = Regrouped(folder, None, None, *tables, 0, (), {})  # type: ignore[arg-type]
    stream = io.StringIO()
    show_result(Console(file=stream, width=100), result)
    text = stream.getvalue()
    assert re.search(r"│ +0 │ 0\*, 2, 4 │.*│ +0\.980 │ +1\.00 │", text)
    assert "similarity: of the class least like the rest of its superclass" in " ".join(text.split())
    assert "stability: 1 where" in " ".join(text.split())
    assert "opposite hand" not in text
    assert "Note:" not in text
    assert f"{folder}/relion/particles_superclass_0.star to" in text


def test_the_terminal_has_the_doubts_of_the_page(tmp_path: Path) -> None:
    folder = write_output(tmp_path / "OUT")
    rows = read_table(folder, "classes").to_pylist()
    rows[1]["stability"] = rows[4]["stability"] = 0.3
    classes = pa.Table.from_pylist(rows, schema=read_table(folder, "classes").schema)
    write_table(classes, folder, "classes")
    stream = io.StringIO()
    result = Regrouped(folder, None, None, classes, read_table(folder, "superclasses"), 0, (), {})  # type: ignore[arg-type]
    show_result(Console(file=stream, width=200), result)
    sentence = "Classes 1, 4 are not firmly in one superclass"
    assert f"Note: {sentence}" in stream.getvalue()
    assert sentence in write_page(folder).read_text(encoding="utf-8")
