"""Real schedulers, started for the tests and ended after them; tests are skipped where they are not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    """A real Slurm of two nodes of two CPUs on this machine, all on the loopback interface."""

    def __init__(self, home: Path) -> None:
        self.home = home
        control, *nodes = free_ports(3)
        self._environment = {
            **os.environ,
            "SLURM_HOME": str(home),
            "CTLD_PORT": str(control),
            "SLURMD_PORTS": " ".join(map(str, nodes)),
        }

    def do(self, what: str, *more: str) -> subprocess.CompletedProcess:
        """Have slurm.sh do something."""
        return subprocess.run(
            ["bash", str(HERE / "slurm.sh"), what, *more],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def state(self) -> str:
        """Nodes, queue and the ends of the logs, for the message of a test that fails."""
        return self.do("status").stdout

    def jobs(self, states: str = "R") -> list[str]:
        """Numbers of the jobs that are in some states."""
        listed = subprocess.run(
            ["squeue", "--noheader", "--states", states, "--format=%A"], capture_output=True, text=True, timeout=30
        )
        return listed.stdout.split()


@pytest.fixture(scope="session")
def started_slurm():
    """Slurm, started once."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        pytest.skip("Slurm is not installed: tests/cluster/slurm.sh install (as root)")
    # the paths of Unix sockets are short
    slurm = Slurm(Path("/tmp") / f"regroup-slurm-{os.getpid()}")
    before = os.environ.get("SLURM_CONF")
    try:
        started = slurm.do("start")
        # it is installed, so that a machine where it does not start is a failure
        assert started.returncode == 0, started.stderr[-3000:]
        os.environ["SLURM_CONF"] = str(slurm.home / "slurm.conf")
        yield slurm
    finally:
        slurm.do("stop", "--purge")
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def slurm(started_slurm):
    """Slurm with an empty queue and every node up; what a test leaves behind does not reach the next."""
    cleared = started_slurm.do("clear")
    assert cleared.returncode == 0, cleared.stderr
    yield started_slurm
    cleared = started_slurm.do("clear")
    assert cleared.returncode == 0, cleared.stderr
