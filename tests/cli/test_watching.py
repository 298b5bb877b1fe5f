"""A run watched by a program, profiled, stopped in the middle and resumed: real processes and real signals."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import regroup_dask as rd
from regroup_dask.formats.run_folder import partial_folder
from tests.tasks.small_job import SmallJob, content, make_job

EVENT_FIELDS = {
    "found": {"lines"},
    "stage_started": {"stage", "total"},
    "progress": {"stage", "done", "total", "restored", "seconds_left"},
    "stage_finished": {"stage", "seconds"},
    "message": {"text"},
    "warning": {"text"},
    "result": {
        *("output", "report", "n_superclasses", "superclasses", "n_particles_remaining", "warnings", "seconds"),
    },
    "profile": {"before_seconds", "stages", "functions", "peak_memory_bytes"},
    "error": {"text", "exit_code"},
    "stopped": {"text", "exit_code", "resume"},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> SmallJob:
    return make_job(tmp_path_factory.mktemp("job"), n_maps=5)


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed") / "OUT"
    rd.regroup(job.volumes, str(job.particles), n_superclasses=2, align=True, output=output)
    return content(output)


def arguments(job: SmallJob, output: Path, *more: str) -> list[str]:
    volumes = [str(path) for path in job.volumes]
    given = ["--particles", str(job.particles), "--volumes", *volumes, "-k", "2", "--align-pairs", "--workers", "2"]
    return ["run", *given, "-o", str(output), *more]


def start(words: list[str], folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "regroup_dask", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(rd.__file__).parents[1])},
        start_new_session=True,
    )


def parsed(text: str) -> list[dict]:
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        assert set(event) == EVENT_FIELDS[event["event"]] | {"event", "time"}
    return events


def test_events_and_profile_of_a_whole_run(job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    process = start(arguments(job, output, "--json", "--profile"), tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    events = parsed(out)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "found"
    assert kinds[-2:] == ["result", "profile"]
    started = [event["stage"] for event in events if event["event"] == "stage_started"]
    assert started == [event["stage"] for event in events if event["event"] == "stage_finished"]
    assert {"Reading maps", "Aligning pairs", "Writing the report"} <= set(started)
    last = [event for event in events if event["event"] == "progress" and event["stage"] == "Reading maps"][-1]
    assert (last["done"], last["total"], last["seconds_left"]) == (5, 5, 0.0)
    result = events[-2]
    assert Path(result["report"]).is_file()
    assert sorted(value for entry in result["superclasses"] for value in entry["classes"]) == [0, 1, 2, 3, 4]
    assert sum(entry["n_particles"] for entry in result["superclasses"]) + result["n_particles_remaining"] == 600
    assert all(Path(entry["volume"]).is_file() for entry in result["superclasses"])
    assert content(output) == undisturbed

    profile = {stage["stage"]: stage for stage in events[-1]["stages"]}
    reading = profile["Reading maps"]
    assert reading["tasks"] == 5
    assert reading["threads"] == 2
    assert 0 < reading["task_seconds"] <= 2 * reading["wall_seconds"] + 0.1
    assert reading["read_bytes"] is None or reading["read_bytes"] >= sum(path.stat().st_size for path in job.volumes)
    assert profile["Between the stages"]["wall_seconds"] > 0
    assert json.loads((output / "run.json").read_text())["profile"]["stages"] == events[-1]["stages"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(number, job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    process = start(arguments(job, output, "--json", "--overwrite"), tmp_path)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if '"stage_finished", ' in line and "Reading maps" in line:
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)  # as a terminal and a batch system do: to every process of the command
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    last = parsed("".join(lines) + out)[-1]
    assert last["event"] == "stopped"
    assert last["exit_code"] == process.returncode
    assert last["resume"] in err
    assert "--overwrite" not in last["resume"]
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert not output.exists()
    assert partial_folder(output).is_dir()
    if number != signal.SIGINT:
        return

    words = shlex.split(last["resume"])
    assert words[0] == "regroup-dask"
    process = start(words[1:], tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    restored = [event for event in parsed(out) if event["event"] == "progress" and event["restored"]]
    assert ("Reading maps", 5) in {(event["stage"], event["restored"]) for event in restored}
    assert content(output) == undisturbed


def test_a_run_stopped_before_it_began_leaves_nothing(job, tmp_path):
    process = start(arguments(job, tmp_path / "OUT"), tmp_path)
    assert process.stderr is not None
    process.stderr.readline()  # what was found
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "nothing was written" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_an_event_too(job, tmp_path):
    process = start([*arguments(job, tmp_path / "OUT", "--json"), "--exclude-classes", "77"], tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    last = parsed(out)[-1]
    assert (last["event"], last["exit_code"]) == ("error", 2)
    assert "class 77" in last["text"]
    assert last["text"] in err
