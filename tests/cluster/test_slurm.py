"""The whole command on a real Slurm: jobs with TLS, a job that is cancelled, and one job that is the whole cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.tasks.small_job import content, make_job

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def command(job, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "regroup_dask", "run", "--volumes", *map(str, job.volumes)),
        *("--particles", str(job.particles), "-k", "2", "--align-pairs", "--maximum-shift", "8", "-o", str(output), *more),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*arguments: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("job"), n_maps=4)


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(*command(job, folder / "OUT", "--workers", "1"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return content(folder / "OUT")


def cluster_file(folder: Path) -> Path:
    """The facility's file of deploy/, cut down to this machine."""
    described = yaml.safe_load((ROOT / "deploy" / "hpc" / "slurm.yaml").read_text())
    described["options"] |= {
        "queue": "debug",
        "cores": 1,
        "processes": 1,
        "memory": "2 GiB",
        "walltime": "00:20:00",
        "interface": "lo",
        "local_directory": str(folder),
        "log_directory": str(folder / "logs"),
        "worker_extra_args": ["--lifetime", "18m"],
        "shared_temp_directory": str(folder),
    }
    described["adapt"] = {"minimum_jobs": 2, "maximum_jobs": 2}
    path = folder / "slurm.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


def test_a_run_on_slurm_survives_the_cancelling_of_a_job(slurm, job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    running = subprocess.Popen(
        command(job, output, "--cluster", str(cluster_file(tmp_path))),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    cancelled = None
    while running.poll() is None and cancelled is None:
        if (tmp_path / "OUT.partial" / "work" / "units" / "reduce").is_dir():
            jobs = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True).stdout.split()
            if jobs:
                cancelled = jobs[0]
                script = subprocess.run(
                    ["scontrol", "write", "batch_script", cancelled, "-"], capture_output=True, text=True
                ).stdout
                assert "tls://" in script
                assert "--nthreads 1" in script
                subprocess.run(["scancel", "--signal=KILL", "--full", cancelled], check=True)
        time.sleep(0.1)
    _, said = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert cancelled is not None
    assert content(output) == undisturbed


def test_one_batch_job_is_the_whole_cluster(slurm, job, undisturbed, tmp_path):
    text = (ROOT / "deploy" / "hpc" / "regroup.sbatch").read_text()
    # a job folder is what the script is for; here the same job is named by its files
    text = text.replace("--ntasks=10", "--ntasks=4").replace("--mem-per-cpu=4G", "--mem-per-cpu=1500M")
    text = text.replace('run "$job" -k "$superclasses" --align-pairs -o "$output" --resume', '"${@:4}"')
    script = tmp_path / "regroup.sbatch"
    script.write_text(text)
    arguments = [*command(job, tmp_path / "OUT")[3:], "--resume"]
    done = subprocess.run(
        ["sbatch", "--wait", str(script), "job", "2", "OUT", *arguments],
        cwd=tmp_path,
        env={**environment(), "REGROUP_DEPLOY": str(ROOT / "deploy" / "hpc"), "REGROUP_INTERFACE": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    logs = "".join(path.read_text() for path in tmp_path.glob("regroup-*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert content(tmp_path / "OUT") == undisturbed
