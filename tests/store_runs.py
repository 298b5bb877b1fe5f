"""Whole runs with inputs and outputs in a store, and the same runs on disk to compare with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from distributed import Client

from regroup_dask import pipeline
from regroup_dask.cli import main
from regroup_dask.formats import storage, storing
from regroup_dask.formats.scratch_folder import scratch_folder
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import inputs_of_job
from tests.small_job import make_job, write_cryosparc, write_relion

MAKERS = {"cryosparc": write_cryosparc, "relion": write_relion}
OF_THE_RUN = ("run.json", "report.html", "view.cxc")
"""What tells of time, of the run itself and of where it lies."""


class RunOnDisk(NamedTuple):
    """A job folder and what an undisturbed run on disk made of it."""

    kind: str
    job: Path
    output: Path


def regroup_on_disk(kind: str, folder: Path) -> RunOnDisk:
    """Make a job and regroup it, with no store anywhere."""
    job = MAKERS[kind](make_job(n_particles=60), folder / "J10")
    regroup_job(str(job), folder / "OUT")
    return RunOnDisk(kind, job, folder / "OUT")


@pytest.fixture(scope="session")
def cryosparc_on_disk(tmp_path_factory: pytest.TempPathFactory) -> RunOnDisk:
    """An undisturbed run of a CryoSPARC job."""
    return regroup_on_disk("cryosparc", tmp_path_factory.mktemp("cryosparc"))


@pytest.fixture(scope="session", params=["cryosparc", "relion"])
def on_disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunOnDisk:
    """An undisturbed run of each kind of job."""
    if request.param == "cryosparc":
        return request.getfixturevalue("cryosparc_on_disk")
    return regroup_on_disk("relion", tmp_path_factory.mktemp("relion"))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """URL of a store in the memory of this process: what fsspec makes of any store, without a server's time."""
    url = f"memory://{tmp_path.parent.name}-{tmp_path.name}"
    yield url
    storing.remove_folder(url)


def put(run: RunOnDisk, url: str) -> str:
    """Copy the job into a store; returns its URL."""
    storing.copy_folder(run.job, f"{url}/J10")
    return f"{url}/J10"


def contents(url: str) -> dict[str, bytes]:
    """Every file below a URL, by the rest of its name."""
    return {path[len(url) + 1 :]: storage.read_bytes(path) for path in storage.files_below(url)}


def run(*words: Any, code: int = 0) -> str:
    """Run the program in this process; returns what it says."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def regroup_job(
    source: str, output: str | Path, *, client: Client | None = None, settings: Settings | None = None, **more: Any
) -> None:
    """Do what the command line does with a job folder, without starting a cluster."""
    target = storage.location(output)
    with scratch_folder(target) as scratch:
        inputs = inputs_of_job(source, scratch=scratch)
        settings = settings or Settings(2, align=True, mask_inner_radius=0.8)
        pipeline.regroup_inputs(inputs, settings, target, client=client, **more)


def assert_same(on_disk: RunOnDisk, found: dict[str, bytes], *, prefix: str, job: str) -> None:
    """Compare an output in a store with the one on disk, file by file; paths in it are those of the store.

    Parameters
    ----------
    on_disk
        The run on disk.
    found
        The output in the store.
    prefix, job
        URL of that output, and of the job it was made of.
    """
    near = {str(path.relative_to(on_disk.output)): path.read_bytes() for path in on_disk.output.rglob("*") if path.is_file()}
    assert set(found) == set(near)
    for name, data in near.items():
        if name in OF_THE_RUN:
            continue
        far = found[name]
        if name == "classes.csv":
            far = far.replace(job.encode(), str(on_disk.job).encode())
        elif name == "classes.parquet":
            rows = [pq.read_table(io.BytesIO(one)).to_pylist() for one in (data, far)]
            for row in rows[1]:
                row["volume"] = row["volume"].replace(job, str(on_disk.job))
            assert rows[0] == rows[1]
            continue
        elif name == "relion/model.star":
            far = far.replace(prefix.encode(), str(on_disk.output).encode())
        assert far == data, name
