"""The bridge to a running CryoSPARC, against a stand-in that fails as the real one does."""

import ast
import http.server
import json
import os
import threading
from pathlib import Path

import cryosparc
import numpy as np
import pytest
from click.testing import CliRunner
from cryosparc.dataset import Dataset

from regroup_dask.cli import main
from tests.cryosparc_instance.stand_in import EMAIL, ENDPOINTS, LICENSE, PASSWORD, StandIn, copy_project
from tests.small_job import make_job, write_cryosparc

RUN = ("--project", "P3", "--job", "J42", "-k", "2", "--align-pairs", "--maximum-shift", "10", "--workers", "1")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    project = tmp_path_factory.mktemp("pristine") / "P3"
    write_cryosparc(make_job(structures=2, members=2), project / "J42")
    return project


@pytest.fixture
def instance(pristine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CRYOSPARC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CRYOSPARC_EMAIL", EMAIL)
    monkeypatch.setenv("CRYOSPARC_PASSWORD", PASSWORD)
    stand_in = StandIn(copy_project(pristine, tmp_path / "P3"))
    monkeypatch.setenv("CRYOSPARC_BASE_URL", stand_in.address)
    yield stand_in
    stand_in.close()


@pytest.fixture
def no_computing(monkeypatch):
    """Have a run end at once, as if it had been refused: for what comes before it."""

    def refuse(*_given, **_options):
        raise AssertionError("nothing was to be computed")

    monkeypatch.setattr("regroup_dask.cli.run_command.run_job", refuse)


def invoke(*options):
    return CliRunner().invoke(main, ["cryosparc", *options])


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(instance, no_computing, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    result = invoke(*RUN, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Would be registered in the workspace of the job" in result.output
    assert "without --dry-run does it" in result.output
    assert list(instance.jobs) == ["J42"]
    assert sorted(path for path in tmp_path.rglob("*")) == before


def external(instance) -> dict:
    (uid,) = [uid for uid in instance.jobs if uid != "J42"]
    return instance.jobs[uid]


def nothing_is_left(tmp_path) -> bool:
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["P3"]


def test_the_endpoints_of_the_stand_in_are_those_of_the_client():
    stub = ast.parse((Path(cryosparc.__file__).parent / "api.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    for name, endpoint in ENDPOINTS.items():
        space, function_name = name.split(".")
        functions = [
            node
            for node in classes[f"{space.title()}API"].body
            if isinstance(node, ast.FunctionDef) and node.name == function_name
        ]
        assert functions, f"the client has no {name}"
        arguments = functions[0].args
        in_path = [part.strip("{}") for part in endpoint.path.split("/") if part.startswith("{")]
        assert [argument.arg for argument in arguments.posonlyargs if argument.arg != "self"] == in_path, name
        assert set(endpoint.query) <= {argument.arg for argument in arguments.kwonlyargs}, name
        body = [argument.arg for argument in arguments.args if argument.arg != "self"]
        assert body == ([] if endpoint.body is None else [endpoint.body]), name


@pytest.mark.parametrize("visible", [False, True])
def test_a_job_is_fetched_regrouped_and_registered(visible, instance, tmp_path):
    instance.visible = visible
    result = invoke(*RUN, "--verbose")
    assert result.exit_code == 0, result.output
    output = tmp_path / "P3_J42_regrouped"
    assert (output / "report.html").is_file()
    assert (tmp_path / "P3_J42_regrouped.inputs").exists() == (not visible)

    job = external(instance)
    assert job["status"] == "completed"
    assert job["spec"]["type"] == "snowflake"
    assert job["title"] == "Regroup 3D classes of J42 (K = 2)"
    inputs = job["spec"]["inputs"]
    assert [entry["output"] for entry in inputs["particles"]["connections"]] == ["particles_all_classes"]
    assert [entry["output"] for entry in inputs["volumes"]["connections"]] == [f"volume_class_{k}" for k in range(4)]
    outputs = job["spec"]["outputs"]
    assert set(outputs) == {
        *("regrouped_particles", "particles_superclass_0", "particles_superclass_1"),
        *("volume_superclass_0", "volume_superclass_1", "volumes_all_superclasses"),
    }
    for name in ("regrouped_particles", "particles_superclass_0", "particles_superclass_1"):
        saved = Dataset.load(str(instance.project / outputs[name]["results"][0]["metafiles"][0]))
        written = np.load(output / "cryosparc" / f"{name}.cs")
        assert outputs[name]["passthrough"] == "particles"
        assert outputs[name]["num_items"] == len(written)
        assert all(prefix.startswith("alignments") for prefix in saved.prefixes()), "passed through, not saved again"
        order = np.argsort(saved["uid"]), np.argsort(written["uid"])
        for field in saved.fields():
            np.testing.assert_array_equal(np.asarray(saved[field])[order[0]], written[field][order[1]])
    for number in range(2):
        saved = Dataset.load(str(instance.project / outputs[f"volume_superclass_{number}"]["results"][0]["metafiles"][0]))
        uploaded = instance.project / str(saved["map/path"][0])
        assert uploaded.read_bytes() == (output / "volumes" / f"superclass_{number:03d}.mrc").read_bytes()
    assert (instance.project / job["uid"] / "report.html").read_bytes() == (output / "report.html").read_bytes()
    log = "\n".join(instance.logs[job["uid"]])
    assert "Aligning pairs: " in log
    assert "outputs registered" in log

    everything = result.output + log + (output / "run.json").read_text() + (output / "report.html").read_text()
    for secret in (PASSWORD, LICENSE, "a-token"):
        assert secret not in everything


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        ({"--instance": "http://127.0.0.1:1"}, {}, "No CryoSPARC answers at http://127.0.0.1:1 (connection refused)"),
        ({}, {"CRYOSPARC_PASSWORD": "wrong"}, f"does not accept the login of {EMAIL} (code 401)"),
        ({"--email": "nobody@example.com"}, {}, "does not accept the login of nobody@example.com"),
        ({}, {"CRYOSPARC_PASSWORD": None}, "There is no login for"),
        (
            {},
            {"CRYOSPARC_PASSWORD": None, "CRYOSPARC_EMAIL": None, "CRYOSPARC_LICENSE_ID": "99999999-2222-3333-4444-555555555555"},
            "does not accept the login of the license ID",
        ),
        ({}, {"CRYOSPARC_BASE_URL": None}, "It is not said where CryoSPARC is"),
        ({"--instance": "localhost"}, {}, "it is an address such as http://localhost:39000"),
        ({"--project": "P9"}, {}, "There is no project P9 that you can see"),
        ({"--project": "3"}, {}, "--project is '3'"),
        ({"--job": "J7"}, {}, "There is no job J7 in the project P3"),
        ({"-k": "0"}, {}, "number of superclasses (-k) is 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(options, environment, sentence, instance, tmp_path, monkeypatch, no_computing):
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    given = {"--project": "P3", "--job": "J42", "-k": "2", **options}
    result = invoke(*[word for pair in given.items() for word in pair])
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert "wrong" not in result.output
    assert list(instance.jobs) == ["J42"], "an external job was made"
    assert nothing_is_left(tmp_path)


def test_a_license_is_accepted_where_there_is_no_password(instance, monkeypatch, no_computing):
    monkeypatch.delenv("CRYOSPARC_PASSWORD")
    monkeypatch.setenv("CRYOSPARC_LICENSE_ID", LICENSE)
    assert "There is no job J7" in invoke("--project", "P3", "--job", "J7", "-k", "2").output


def break_job(job: dict, what: str) -> None:
    outputs = job["spec"]["outputs"]
    if what == "running":
        job["status"] = "running"
    elif what == "no posteriors":
        kept = [entry for entry in outputs["particles_all_classes"]["results"] if not entry["name"].startswith("alignments")]
        outputs["particles_all_classes"]["results"] = kept
    elif what == "one map":
        for number in (1, 2, 3):
            del outputs[f"volume_class_{number}"]
    elif what == "no slot map":
        outputs["volume_class_2"]["results"] = []


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("running", "P3 J42 (class_3D) is running, not completed"),
        ("no posteriors", "has no particles with class posteriors"),
        ("one map", "has 1 class maps (volume_class_N), and at least 2 are needed"),
        ("no slot map", "The output volume_class_2 of P3 J42 has no slot map"),
    ],
)
def test_a_job_that_cannot_be_regrouped_is_refused(what, sentence, instance, tmp_path, no_computing):
    break_job(instance.jobs["J42"], what)
    result = invoke(*RUN)
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert list(instance.jobs) == ["J42"]
    assert nothing_is_left(tmp_path)


def test_what_is_no_cryosparc_is_refused(instance, tmp_path, no_computing):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result = invoke(*RUN, "--instance", f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    assert result.exit_code == 2
    assert "is no CryoSPARC that cryosparc-tools understands" in result.output
    assert nothing_is_left(tmp_path)


def test_another_version_is_a_note(instance, no_computing):
    instance.version = "v4.6.0"
    instance.jobs["J42"]["title"] = "a title"
    result = invoke("--project", "P3", "--job", "J42", "-k", "2")
    assert "Note: CryoSPARC at" in result.output
    assert "v4.6.0" in result.output


@pytest.mark.parametrize("fault", [(500, "the disk is full"), "drop"])
def test_a_file_that_cannot_be_fetched_leaves_no_part_of_it(fault, instance, tmp_path, no_computing):
    instance.faults["projects.download_file:cryosparc_P1_J10_class_02_00042_volume.mrc"] = fault
    result = invoke(*RUN)
    assert result.exit_code == 1
    assert "fetching J42/cryosparc_P1_J10_class_02_00042_volume.mrc" in result.output.replace("\n", " ")
    assert list(instance.jobs) == ["J42"]
    fetched = tmp_path / "P3_J42_regrouped.inputs" / "J42"
    assert not [path for path in fetched.iterdir() if path.name.startswith(".") or "class_02_00042_volume.mrc" in path.name]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("jobs.create", (403, "no write access")),
        ("jobs.connect", (500, "the database is away")),
        ("jobs.mark_running", (400, "not now")),
    ],
)
def test_a_job_that_cannot_be_opened_is_not_left_half_made(fault, code, instance, tmp_path, no_computing):
    instance.faults[fault] = code
    result = invoke(*RUN)
    assert result.exit_code == 1
    assert code[1] in result.output
    assert not any(job["status"] in ("running", "completed") for uid, job in instance.jobs.items() if uid != "J42")


def test_an_unknown_workspace_is_said(instance, no_computing):
    result = invoke(*RUN, "--workspace", "W9")
    assert result.exit_code == 1
    assert "There is no workspace W9 in P3: give another with --workspace." in result.output


def test_a_run_that_fails_marks_the_job_failed(instance, tmp_path):
    result = invoke(*RUN, "--exclude-classes", "17")
    assert result.exit_code == 2
    job = external(instance)
    assert job["status"] == "failed"
    assert "class 17" in job["errors_run"][0]["message"]
    assert not (tmp_path / "P3_J42_regrouped").exists()
    assert not (tmp_path / "P3_J42_regrouped.partial").exists()


def test_a_save_that_fails_half_way_leaves_nothing_registered_and_can_be_done_again(instance, tmp_path, monkeypatch):
    instance.faults["jobs.save_output:particles_superclass_1"] = (507, "Insufficient Storage")
    result = invoke(*RUN)
    assert result.exit_code == 1, result.output
    message = " ".join(result.output.split())
    assert "CryoSPARC refused saving the output particles_superclass_1 of J44 (code 507: Insufficient Storage)." in message
    assert "The external job J44 is cleared and marked failed." in message
    assert "the same command with --resume registers it again" in message
    job = external(instance)
    assert job["status"] == "failed"
    assert "Insufficient Storage" in job["errors_run"][0]["message"]
    assert job["spec"]["outputs"] == {}
    assert list((instance.project / job["uid"]).iterdir()) == []
    output = tmp_path / "P3_J42_regrouped"
    record = json.loads((output / "run.json").read_text())
    assert record["status"] == "complete"

    instance.faults.clear()
    monkeypatch.setattr("regroup_dask.cli.run_command.run_job", None)  # nothing is computed again
    result = invoke(*RUN, "--resume", "--json")
    assert result.exit_code == 0, result.output
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["project"]) == ("registered", "P3")
    assert instance.jobs[last["job"]]["status"] == "completed"
    assert set(instance.jobs[last["job"]]["spec"]["outputs"]) == set(last["outputs"])


def test_an_instance_that_goes_away_while_registering(instance, tmp_path):
    for name in ("jobs.save_output", "jobs.clear", "jobs.mark_failed"):
        instance.faults[name] = "drop"
    result = invoke(*RUN, "--quiet")
    assert result.exit_code == 1
    assert "The connection to CryoSPARC was lost while saving the output" in result.output
    assert "Traceback" not in result.output
    assert (tmp_path / "P3_J42_regrouped" / "report.html").is_file()
    assert external(instance)["status"] != "completed"
