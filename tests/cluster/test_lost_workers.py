"""Worker processes that are killed: in every stage of a run, all at once, and by one input again and again."""

from __future__ import annotations

import os
import signal
import time

import dask
import pytest
from distributed import Client, LocalCluster

from regroup_dask.errors import ClusterError
from regroup_dask.progress import StageStarted, UnitsDone
from regroup_dask.tasks.execute import run_units
from tests.tasks.lives import regroup
from tests.tasks.small_job import content, make_job
from tests.tasks.test_submission import Piece, work


@pytest.fixture(scope="module")
def processes():
    """Two worker processes with nannies."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 3}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def kill_worker(client: Client, *, everyone: bool = False) -> None:
    addresses = list(client.nthreads())
    pids = client.run(os.getpid, workers=addresses if everyone else addresses[:1])
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_killed_in_every_stage_changes_nothing(processes, tmp_path):
    job = make_job(tmp_path / "job", n_maps=4)
    regroup(job, tmp_path / "undisturbed", client=None)
    # when a stage begins, or when it has its first result; all workers at once in one of them
    moments = {
        "Reading maps": UnitsDone,
        "Aligning pairs": UnitsDone,
        "Averaging maps": StageStarted,
        "Writing particles": StageStarted,
    }
    killed = []

    def listener(event):
        stage = getattr(event, "stage", "")
        if stage in moments and stage not in killed and isinstance(event, moments[stage]):
            killed.append(stage)
            kill_worker(processes, everyone=stage == "Averaging maps")

    regroup(job, tmp_path / "disturbed", client=processes, listener=listener)
    assert killed == list(moments)
    assert content(tmp_path / "disturbed") == content(tmp_path / "undisturbed")


def test_an_input_that_kills_every_worker_is_named_in_the_end(processes, tmp_path):
    began = time.monotonic()
    units = [Piece("good", tmp_path), Piece("bad", tmp_path, "dies", "class_03.mrc")]
    with (
        dask.config.set({"regroup.submissions-per-unit": 1}),
        pytest.raises(ClusterError, match=r"Every worker that took up class_03\.mrc died.*--resume"),
    ):
        run_units(work, units, client=processes, checkpoint=tmp_path / "kept")
    assert (tmp_path / "bad.tried").stat().st_size <= 4
    assert (tmp_path / "kept" / "good.npz").exists()
    processes.wait_for_workers(1, timeout=60)
    assert time.monotonic() - began < 120


def test_one_that_dies_once_is_run_again(processes, tmp_path):
    results = run_units(work, [Piece("bad", tmp_path, "dies once")], client=processes)
    assert int(results[0]["value"]) == 3
