"""Real schedulers, started for the tests and ended after them; tests are skipped where they are not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real Slurm of two nodes on this machine, all on the loopback interface."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
        pytest.skip("Slurm is not installed: tests/cluster/slurm.sh install (as root)")
    # the paths of Unix sockets are short
    home = Path("/tmp") / f"regroup-slurm-{os.getpid()}"
    environment = {**os.environ, "SLURM_HOME": str(home)}
    script = ["bash", str(HERE / "slurm.sh")]
    started = subprocess.run([*script, "start"], env=environment, capture_output=True, text=True, timeout=90)
    if started.returncode:
        subprocess.run([*script, "stop", "--purge"], env=environment, capture_output=True, timeout=60)
        pytest.skip(f"Slurm did not start here: {started.stderr[-400:]}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(home / "slurm.conf")
    try:
        yield home
    finally:
        subprocess.run([*script, "stop", "--purge"], env=environment, capture_output=True, timeout=60)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
