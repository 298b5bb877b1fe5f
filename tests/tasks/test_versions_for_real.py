"""A worker of another version, in a process of its own: the run stops before anything is sent to it."""

import os
import subprocess
import sys

from click.testing import CliRunner
from distributed import Client, LocalCluster

from regroup_dask import __version__
from regroup_dask.cli import main
from tests.tasks.small_job import make_job


def tasks_done(dask_worker):
    return dask_worker.state.executed_count


def test_a_worker_of_another_version_is_refused_before_anything_runs(tmp_path):
    described = tmp_path / "elsewhere" / "regroup_dask-9.9.9.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: regroup-dask\nVersion: 9.9.9\n")
    job = make_job(tmp_path / "job", n_maps=3, box=16, n_particles=60)
    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        paths = os.pathsep.join([str(described.parent), *filter(None, sys.path)])
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"],
            env={**os.environ, "PYTHONPATH": paths},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                words = ["run", "--volumes", *map(str, job.volumes), "-k", "2", "--scheduler", address]
                result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "OUT"), "--quiet"])
                assert list(client.run(tasks_done).values()) == [0]
        finally:
            worker.terminate()
            worker.wait(timeout=30)
    assert result.exit_code == 1, result.output
    assert f"regroup-dask is {__version__} here and 9.9.9 on tcp://127.0.0.1:" in result.output
    assert "Install the same on both" in result.output
    assert not list(tmp_path.glob("OUT*"))
