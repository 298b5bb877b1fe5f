"""Help that teaches: every example can be typed, options stand under titles, shells complete."""

import os
import re
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from regroup_dask import __version__
from regroup_dask.cli import main
from regroup_dask.cli.program import COMMANDS
from regroup_dask.cli.teaching import Example, TeachingCommand

CONTEXT = click.Context(main, info_name="regroup-dask")
EXAMPLES = [
    (name, example) for name in COMMANDS for example in getattr(main.get_command(CONTEXT, name), "examples", ())
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_with_a_purpose(name):
    command = main.get_command(CONTEXT, name)
    assert isinstance(command, TeachingCommand)
    assert command.examples
    text = CliRunner().invoke(main, [name, "--help"]).output
    for example in command.examples:
        assert isinstance(example, Example)
        assert f"# {example.purpose}\n" in text
        assert f"{example.command}\n" in text


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example.command for _, example in EXAMPLES])
def test_every_example_is_understood(name, example):
    typed = example.command
    if "$(" in typed:  # bash and zsh read what the command prints
        typed = re.search(r"\$\((.*)\)", typed).group(1)
    words = Example(typed.split(" > ")[0], "").arguments
    assert words[0] == name
    main.get_command(CONTEXT, name).make_context(name, words[1:], parent=click.Context(main))


def test_options_stand_under_titles_and_parameters_have_the_names_of_the_original_job():
    text = CliRunner().invoke(main, ["run", "--help"]).output
    titles = re.findall(r"^([A-Z][^:\n]*):$", text, re.MULTILINE)
    assert titles == [
        *("Input", "Classes that take part", "Comparing and aligning the maps", "Superclasses", "Particles", "Output"),
        *("Where it runs", "What you see", "Other options", "Examples"),
    ]
    section = text.split("Classes that take part:")[1].split("Comparing")[0]
    assert "--minimum-class-size" in section
    assert "--exclude-classes" in section
    for parameter in (
        *("Number of super classes", "Minimum class size (particles)", "Manually exclude classes"),
        *("Align pairs of classes", "Maximum shift (A)", "Spherical mask inner radius", "Mask"),
        "[Legacy] Class alignment3D prefix",
    ):
        assert re.search(rf"^ +{re.escape(parameter)} +-", text, re.MULTILINE), parameter


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_fits_the_terminal(width):
    text = CliRunner().invoke(main, ["run", "--help"], terminal_width=width).output
    commands = {example.command for _, example in EXAMPLES} | {f"# {example.purpose}" for _, example in EXAMPLES}
    wrapped = [line for line in text.splitlines() if line.strip() not in commands and "  --" not in line]
    assert max(len(line) for line in wrapped) <= max(width, 70)


def test_the_version_is_said():
    assert CliRunner().invoke(main, ["--version"]).output == f"regroup-dask, version {__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("--superclases", "--superclasses"), ("--aling-pairs", "--align-pairs")])
def test_the_nearest_option_is_suggested(typed, meant):
    result = CliRunner().invoke(main, ["run", "J1", typed, "-o", "OUT"])
    assert result.exit_code == 2
    assert meant in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_REGROUP_DASK_COMPLETE" in result.output
    assert "regroup-dask" in result.output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["gr"], ["group"]),
        (["run", "--align"], ["--align-pairs"]),
        (["run", "--frame", ""], ["superclass", "common"]),
        (["run", "-k", "a"], ["auto"]),
        (["run", "--pairs", ""], ["all", "nearest"]),
        (["nonsense", "--x"], []),
    ],
)
def test_words_are_completed_without_loading_anything_heavy(typed, offered):
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({'dask', 'numba', 'pandas', 'xarray'} & set(sys.modules)), file=sys.stderr))\n"
        "from regroup_dask.cli import main; main(prog_name='regroup-dask')"
    )
    words = ["regroup-dask", *typed]
    environment = {
        **os.environ,
        "_REGROUP_DASK_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert [line.split(",", 1)[1] for line in done.stdout.splitlines() if line] == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_itself_completes(tmp_path):
    program = tmp_path / "regroup-dask"
    code = "from regroup_dask.cli import main; main(prog_name='regroup-dask')"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(regroup-dask completion bash)"\n'
        "COMP_WORDS=(regroup-dask run --align); COMP_CWORD=2\n"
        "_regroup_dask_completion regroup-dask --align run\n"
        'echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["--align-pairs"], done.stderr
