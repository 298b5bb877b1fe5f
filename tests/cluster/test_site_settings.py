"""What a site sets for its users in Dask's configuration is taken by the command, and a worker too small is refused."""

from __future__ import annotations

import pytest
import yaml

from tests.cluster.real_runs import RealRun, command
from tests.tasks.small_job import make_job

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("given", ["site", "option"])
def test_a_cluster_of_the_sites_configuration_whose_workers_are_too_small(given, tmp_path):
    job = make_job(tmp_path / "job", n_maps=3)
    described = {
        "cluster": "LocalCluster",
        "options": {"threads_per_worker": 2, "memory_limit": "500 MiB", "dashboard_address": None},
        "scale": 1,
    }
    more: list[str] = []
    if given == "site":
        (tmp_path / "configuration").mkdir()
        (tmp_path / "configuration" / "site.yaml").write_text(yaml.safe_dump({"regroup": {"cluster": described}}))
    else:
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(described))
        more = ["--cluster", str(tmp_path / "cluster.yaml")]
    with RealRun(
        command(job, tmp_path / "OUT", *more), tmp_path, DASK_CONFIG=str(tmp_path / "configuration")
    ) as run:
        assert run.process.wait(60) == 2
        said = " ".join(run.said().split())
    assert "3 maps of box 24: 3 pairs in 3 tiles" in said
    assert "1 worker(s) of 2 thread(s), each within" in said
    assert "has 500.00 MiB for 2 thread(s), but" in said
    assert "give each worker" in said
    assert "Traceback" not in said
    assert not (tmp_path / "OUT.partial").exists()


def test_a_setting_of_the_environment_that_makes_no_sense_is_named(tmp_path):
    job = make_job(tmp_path / "job", n_maps=3)
    with RealRun(command(job, tmp_path / "OUT"), tmp_path, DASK_REGROUP__WORKERS_TIMEOUT="soon") as run:
        assert run.process.wait(60) == 2
        assert "regroup.workers-timeout in Dask's configuration is 'soon'" in run.said()
