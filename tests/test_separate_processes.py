"""A cluster of separate processes, working elsewhere, gives the same bytes as this process does."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from regroup_dask import pipeline
from regroup_dask.cli import main
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import inputs_of_job
from tests import small_job

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def scheduler(tmp_path):
    """Scheduler and two workers on loopback; their working directory is not that of the run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": elsewhere, "env": environment}
    processes = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file],
            **quiet,
        )
    ]
    worker = [*dask, "worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield file
    for process in reversed(processes):
        process.kill()
        process.wait(30)


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file but the record and the report, which hold times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "report.html")
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cryosparc", "relion"])
def test_relative_paths_and_workers_elsewhere_give_the_same_bytes(kind, scheduler, tmp_path, monkeypatch):
    job = small_job.make_job(structures=2, members=2, mirrored=(3,), seed=4)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (small_job.write_cryosparc if kind == "cryosparc" else small_job.write_relion)(job, Path("P 1/job"))
    result = CliRunner().invoke(
        main, ["run", "P 1/job", "-k", "2", "--align-pairs", "-o", "OUT", "--scheduler-file", str(scheduler)]
    )
    assert result.exit_code == 0, result.output
    settings = Settings(n_superclasses=2, align=True)
    # RELION's model.star names the maps where they lie, so both have to lie there.
    Path("OUT").rename("FOUND")
    pipeline.regroup_inputs(inputs_of_job("P 1/job"), settings, Path("OUT"), client=None)
    found, expected = contents(Path("FOUND")), contents(Path("OUT"))
    assert len(found) > 30
    assert {name for name in found if found[name] != expected.get(name)} == set()
    assert not list((tmp_path / "elsewhere").rglob("*partial*"))
