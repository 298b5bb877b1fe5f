import pytest
from click.testing import CliRunner

from regroup_dask.cli import main
from regroup_dask.cli.options import ClassIds, ManyValues, SuperclassNumber


def invoke(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(("typed", "meant"), [("rum", "run"), ("gruop", "group"), ("aling", "align")])
def test_the_nearest_command_is_suggested(typed, meant):
    result = invoke(typed)
    assert result.exit_code == 2
    assert f"Did you mean {meant}?" in result.output


def test_a_command_like_none_gets_the_list():
    result = invoke("xyzzy")
    assert result.exit_code == 2
    assert "demo, run, group" in result.output


@pytest.mark.parametrize("command", ["demo", "run", "group", "align", "info", "report"])
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_an_unknown_option_is_wrong_usage():
    result = invoke("run", "--superclass", "3")
    assert result.exit_code == 2
    assert "--superclasses" in result.output


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--volumes", "a", "b", "-k", "2"], ["--volumes", "a", "--volumes", "b", "-k", "2"]),
        (
            ["--particles", "p", "--volumes", "a", "b"],
            ["--particles", "p", "--volumes", "a", "--volumes", "b"],
        ),
        (["J1", "-k", "2", "-o", "OUT"], ["J1", "-k", "2", "-o", "OUT"]),
        (["--volumes=a", "--mask", "m"], ["--volumes=a", "--mask", "m"]),
    ],
)
def test_options_of_many_values_are_repeated(given, expected, monkeypatch):
    seen = []
    monkeypatch.setattr("click.Command.parse_args", lambda self, context, args: seen.extend(args) or [])
    ManyValues("run").parse_args(None, given)
    assert seen == expected


def test_values_are_read():
    assert SuperclassNumber().convert("auto", None, None) == "auto"
    assert SuperclassNumber().convert("12", None, None) == 12
    assert ClassIds().convert("3, 0,3", None, None) == (0, 3)


@pytest.mark.parametrize("command", [["group", "none", "-k", "2"], ["report", "none"], ["info", "none"], ["align", "a", "b"]])
def test_what_does_not_exist_is_named(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*command)
    assert result.exit_code == 2, result.output
    assert command[1] in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
