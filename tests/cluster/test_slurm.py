"""The whole command on a real Slurm: jobs with TLS that are lost in every way, and one job that is the whole cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.real_runs import ROOT, RealRun, command, environment, units, wait_until
from tests.tasks.small_job import content, make_job

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("job"), n_maps=6)


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with RealRun(command(job, folder / "OUT", "--workers", "1"), folder) as run:
        run.finish()
    return content(folder / "OUT")


def cluster_file(folder: Path, *, jobs: int = 2, **options) -> Path:
    """The facility's file of deploy/, cut down to this machine: jobs of two worker processes."""
    folder.mkdir(parents=True, exist_ok=True)
    described = yaml.safe_load((ROOT / "deploy" / "hpc" / "slurm.yaml").read_text())
    described["options"] |= {
        "queue": "debug",
        "cores": 2,
        "processes": 2,
        "memory": "4 GiB",
        "walltime": "00:20:00",
        "interface": "lo",
        "local_directory": str(folder),
        "log_directory": str(folder / "logs"),
        "worker_extra_args": ["--lifetime", "18m"],
        "shared_temp_directory": str(folder),
        **options,
    }
    described["adapt"] = {"minimum_jobs": jobs, "maximum_jobs": jobs}
    described["configuration"]["distributed.deploy.lost-worker-timeout"] = "3s"
    path = folder / "slurm.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


def logs(folder: Path, slurm) -> str:
    """What to read when a run on Slurm did not end well."""
    ends = [f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted((folder / "logs").glob("*"))[-4:]]
    return "\n".join([slurm.state(), *ends])


def lose_every_job(slurm) -> None:
    subprocess.run(["scancel", "--signal=KILL", "--full", *slurm.jobs()], check=True, timeout=30)


def lose_a_node(slurm) -> None:
    subprocess.run(
        ["scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test"], check=True, timeout=30
    )


@pytest.mark.parametrize(("lose", "stage"), [(lose_every_job, "pairs"), (lose_a_node, "reduce")])
def test_a_run_survives_what_it_loses(lose, stage, slurm, job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    with RealRun(command(job, output, "--cluster", str(cluster_file(tmp_path))), tmp_path) as run:
        run.wait_for(lambda: units(output, stage) and len(slurm.jobs()) == 2, f"the first of {stage}", seconds=90)
        lost = slurm.jobs()
        script = subprocess.run(
            ["scontrol", "write", "batch_script", lost[0], "-"], capture_output=True, text=True, timeout=30
        ).stdout
        for words in ("tls://", "--nthreads 1", "--nworkers 2"):
            assert words in script
        lose(slurm)
        run.finish(say=lambda: logs(tmp_path, slurm))
    assert content(output) == undisturbed
    wait_until(lambda: not slurm.jobs("R,PD"), "jobs of a finished run are gone", seconds=30, say=slurm.state)


def test_workers_that_reach_the_end_of_their_time_are_replaced(slurm, job, undisturbed, tmp_path):
    """One job at a time, whose worker ends by itself long before all is done."""
    output = tmp_path / "OUT"
    options = {"cores": 1, "processes": 1, "memory": "2 GiB"}
    file = cluster_file(tmp_path, jobs=1, worker_extra_args=["--lifetime", "3s"], **options)
    with RealRun(command(job, output, "--cluster", str(file)), tmp_path) as run:
        run.finish(say=lambda: logs(tmp_path, slurm))
    assert content(output) == undisturbed
    submitted = list((tmp_path / "logs").glob("*.err"))
    assert len(submitted) > 1, "no job was replaced"


def test_a_job_that_ends_before_its_worker_came_is_replaced(slurm, job, undisturbed, tmp_path):
    output, broken = tmp_path / "OUT", tmp_path / "broken"
    broken.touch()
    prologue = [f"if [ -e {broken} ]; then rm {broken}; exit 3; fi"]
    file = cluster_file(tmp_path, jobs=1, job_script_prologue=prologue)
    with RealRun(command(job, output, "--cluster", str(file)), tmp_path) as run:
        run.finish(say=lambda: logs(tmp_path, slurm))
    assert not broken.exists()
    assert content(output) == undisturbed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"job_script_prologue": ["exit 3"]}, "ended before its workers came"),
        ({"queue": "nonesuch"}, "invalid partition specified: nonesuch"),
    ],
)
def test_jobs_that_cannot_work_are_given_up_with_the_reason(options, words, slurm, job, tmp_path):
    output = tmp_path / "OUT"
    with RealRun(command(job, output, "--cluster", str(cluster_file(tmp_path, jobs=1, **options))), tmp_path) as run:
        wait_until(lambda: not run.running(), "the end", seconds=90, say=lambda: run.said() + logs(tmp_path, slurm))
        assert run.process.returncode == 1
        assert "No worker comes, 3 times in a row" in run.said()
        assert words in run.said()
        assert "Traceback" not in run.said()
    assert not output.with_name("OUT.partial").exists()


def test_a_full_queue_is_waited_for(slurm, job, undisturbed, tmp_path):
    """Jobs that others have before us are no error, however long they take."""
    output = tmp_path / "OUT"
    held = subprocess.run(
        ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--wrap", "sleep 600"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30,
    ).stdout.strip()  # fmt: skip
    wait_until(lambda: held in slurm.jobs(), "the job of others runs", seconds=30, say=slurm.state)
    file = cluster_file(tmp_path, jobs=1)
    with RealRun(command(job, output, "--cluster", str(file)), tmp_path, DASK_REGROUP__WORKERS_TIMEOUT="3s") as run:
        run.wait_for(lambda: "wait in the queue" in run.said(), "it says that it waits")
        subprocess.run(["scancel", held], check=True, timeout=30)
        run.finish(say=lambda: logs(tmp_path, slurm))
    assert content(output) == undisturbed


def test_the_jobs_of_a_driver_that_was_killed_end_by_themselves(slurm, job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    with RealRun(command(job, output, "--cluster", str(cluster_file(tmp_path, jobs=1))), tmp_path) as run:
        run.wait_for(lambda: units(output, "pairs"), "the first of pairs", seconds=90)
        run.kill(everyone=False)
    wait_until(lambda: not slurm.jobs("R,PD"), "the jobs end", seconds=60, say=lambda: logs(tmp_path, slurm))
    with RealRun(command(job, output, "--workers", "1", "--resume"), tmp_path) as run:
        said = run.finish()
    assert "Reading maps: 6 of 6 were finished before; not run again" in said
    assert content(output) == undisturbed


def test_one_batch_job_is_the_whole_cluster(slurm, job, undisturbed, tmp_path):
    text = (ROOT / "deploy" / "hpc" / "regroup.sbatch").read_text()
    # a job folder is what the script is for; here the same job is named by its files
    text = text.replace("--ntasks=10", "--ntasks=4").replace("--mem-per-cpu=4G", "--mem-per-cpu=1500M")
    text = text.replace('run "$job" -k "$superclasses" --align-pairs -o "$output" --resume', '"${@:4}"')
    script = tmp_path / "regroup.sbatch"
    script.write_text(text)
    arguments = [*command(job, tmp_path / "OUT")[3:], "--resume"]
    submitted = subprocess.run(
        ["sbatch", "--parsable", str(script), "job", "2", "OUT", *arguments],
        cwd=tmp_path,
        env=environment(REGROUP_DEPLOY=str(ROOT / "deploy" / "hpc"), REGROUP_INTERFACE="lo"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert submitted.returncode == 0, submitted.stderr
    said = lambda: "".join(path.read_text() for path in tmp_path.glob("regroup-*.log"))  # noqa: E731
    wait_until(lambda: not slurm.jobs("R,PD,CG"), "the job ends", seconds=150, say=lambda: said() + slurm.state())
    assert (tmp_path / "OUT").is_dir(), said()
    assert "Traceback" not in said()
    assert content(tmp_path / "OUT") == undisturbed
