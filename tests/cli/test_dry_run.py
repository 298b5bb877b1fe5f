"""``--dry-run`` says what a run would do, refuses what it would refuse, and leaves nothing."""

import json

import pytest
from click.testing import CliRunner

from regroup_dask.cli import main
from regroup_dask.formats.mrc import write_mrc
from tests.tasks.small_job import SmallJob, blobs, make_job


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> SmallJob:
    return make_job(tmp_path_factory.mktemp("job"), n_maps=5)


def dry_run(job, *options, output="OUT"):
    volumes = [str(path) for path in job.volumes]
    given = ["run", "--particles", str(job.particles), "--volumes", *volumes, "-o", output, "--dry-run", *options]
    return CliRunner().invoke(main, given)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "a dry run wrote something"


def test_the_plan_is_printed(job):
    result = dry_run(job, "-k", "2", "--align-pairs", "--workers", "3")
    assert result.exit_code == 0, result.output
    assert "5 maps of box 24: 10 pairs in" in result.output
    assert "3 worker processes" in result.output
    assert "3 worker(s) of 1 thread(s), each within" in result.output
    assert "superclass_001.mrc" in result.output
    assert "600 particles" in result.output
    assert "Nothing was computed or written" in result.output


def test_the_plan_as_json(job):
    result = dry_run(job, "-k", "2", "--json", "--exclude-classes", "1")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["event"] == "found"
    plan = events[-1]
    assert plan["event"] == "plan"
    assert (plan["maps"], plan["box"], plan["pairs"], plan["particles"]) == (4, 24, 6, 600)
    maps = next(file for file in plan["files"] if file["path"].startswith("volumes/superclass"))
    assert maps["n_bytes"] == 2 * 4 * 24**3
    assert plan["output_bytes"] == sum(file["n_bytes"] for file in plan["files"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-k", "5"), "from 1 to 4"),
        (("-k", "2", "--exclude-classes", "9"), "class 9, which does not exist"),
        (("-k", "2", "--minimum-class-size", "100000"), "Too few classes"),
        (("-k", "2", "--maximum-shift", "-1"), "--maximum-shift is -1.0"),
        (("-k", "2", "--mask", "none.mrc"), "none.mrc"),
        (("-k", "2", "--workers", "0"), "--workers is 0"),
        (("-k", "2", "--cluster", "none.yaml"), "none.yaml does not exist"),
        (("-k", "2", "--scheduler-file", "none.json"), "none.json does not exist"),
        (("-k", "2", "--resume", "--overwrite"), "not both"),
        (("-k", "2", "--workers", "100000"), "needs up to"),
    ],
)
def test_what_the_run_would_refuse_is_refused(job, options, sentence):
    result = dry_run(job, *options)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_an_output_that_exists_is_refused(job, tmp_path_factory):
    result = dry_run(job, "-k", "2", output=str(tmp_path_factory.mktemp("there")))
    assert result.exit_code == 2
    assert "exists" in result.output


def test_a_map_that_does_not_fit_is_refused(job, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "class_09.mrc"
    write_mrc(other, blobs(20, structure=0), voxel_size_angstrom=4.0)
    result = CliRunner().invoke(
        main, ["run", "--volumes", str(job.volumes[0]), str(job.volumes[1]), str(other), "-k", "2", "-o", "OUT", "--dry-run"]
    )
    assert result.exit_code == 2
    assert "box" in result.output
