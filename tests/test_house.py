"""The house rules, as tests: one-way imports, lint, types, a light import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", "."],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
    ],
    ids=["ruff", "mypy", "import-linter"],
)
def test_house_rules(command):
    result = run(sys.executable, *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_the_package_loads_nothing_heavy():
    heavy = "dask distributed xarray zarr numba pandas matplotlib sklearn pyarrow scipy"
    code = f"import sys, regroup_dask; print([m for m in '{heavy}'.split() if m in sys.modules])"
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_the_command_line_helps_without_loading_anything_heavy():
    heavy = "dask distributed xarray zarr numba pandas matplotlib sklearn"
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom regroup_dask.cli import main\n"
        "for name in ('run', 'align', 'group', 'info', 'report', 'demo'):\n"
        "    result = CliRunner().invoke(main, [name, '--help']); assert result.exit_code == 0, result.output\n"
        f"print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_dask_has_the_command_too():
    result = run(sys.executable, "-m", "dask", "regroup", "run", "no such folder", "-k", "2", "-o", "no such output")
    assert result.returncode == 2
    assert "no such folder" in result.stderr
    assert "Traceback" not in result.stderr
