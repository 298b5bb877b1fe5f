"""A real dask-gateway server with its local backend, with the options of deploy/, and a run on a cluster of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import free_ports
from tests.tasks.small_job import content, make_job

pytestmark = [pytest.mark.gateway, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

LOCAL = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{server}"
c.Proxy.address = "127.0.0.1:{proxy}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.inherited_environment = ["PATH", "PYTHONPATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]
"""


@pytest.fixture
def gateway(tmp_path):
    pytest.importorskip("dask_gateway_server")
    pytest.importorskip("dask_gateway")
    server, proxy, tcp = free_ports(3)
    config = tmp_path / "dask_gateway_config.py"
    shared = (ROOT / "deploy" / "gateway" / "dask_gateway_config.py").read_text()
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    config.write_text(shared + LOCAL.format(server=server, proxy=proxy, tcp=tcp, folder=clusters))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    log = open(tmp_path / "gateway.log", "w")  # noqa: SIM115  open as long as the server is
    running = subprocess.Popen(
        [sys.executable, "-m", "dask_gateway_server", "-f", str(config)], env=environment, stdout=log, stderr=log, cwd=tmp_path
    )
    try:
        for _ in range(150):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", proxy)) == 0:
                    break
            assert running.poll() is None, (tmp_path / "gateway.log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{proxy}", f"gateway://127.0.0.1:{tcp}"
    finally:
        running.terminate()
        running.wait(20)
        log.close()


def test_a_run_on_a_gateway_cluster(gateway, tmp_path):
    address, proxy_address = gateway
    job = make_job(tmp_path / "job", n_maps=3)
    described = {
        "cluster": "GatewayCluster",
        "options": {"address": address, "proxy_address": proxy_address, "worker_threads": 1, "worker_memory": 2},
        "adapt": {"minimum": 1, "maximum": 1},
    }
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(described))
    run(job, tmp_path / "here", "--workers", "1")
    said = run(job, tmp_path / "there", "--cluster", str(tmp_path / "gateway.yaml"))
    assert "1 worker(s) of 1 thread(s)" in said
    assert content(tmp_path / "there") == content(tmp_path / "here")


def run(job, output: Path, *more: str) -> str:
    """Run the command in a process of its own: dask-gateway's client complains when it is collected in this one."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "regroup_dask", "run", "--volumes", *map(str, job.volumes)),
            *("--particles", str(job.particles), "-k", "2", "--align-pairs", "--maximum-shift", "8"),
            *("-o", str(output), *more),
        ],
        cwd=output.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
