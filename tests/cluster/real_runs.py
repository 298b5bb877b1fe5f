"""Runs of the command in processes of their own, and waiting that ends and says what it waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.tasks.small_job import SmallJob

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 150.0


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the package of this checkout and its Python first."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # nobody waits for a whole hour in a test
        "DASK_REGROUP__WORKERS_TIMEOUT": "90s",
        "DASK_REGROUP__NO_WORKERS_TIMEOUT": "90s",
        **more,
    }


def command(job: SmallJob, output: Path, *more: str) -> list[str]:
    """The command that regroups a small job."""
    return [
        *(sys.executable, "-m", "regroup_dask", "run", "--volumes", *map(str, job.volumes)),
        *("--particles", str(job.particles), "-k", "2", "--align-pairs", "--maximum-shift", "8", "-o", str(output), *more),
    ]


def wait_until(condition: Callable[[], object], what: str, *, seconds: float, say: Callable[[], str] = str) -> None:
    """Wait until something is so; `say` tells in the error what is so instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{say()}"
        time.sleep(0.05)


class RealRun:
    """One run of the command; as a context manager it leaves no process behind, whatever happens."""

    def __init__(self, arguments: Sequence[str], folder: Path, **environment_too: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"said-{time.monotonic_ns()}.log"
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                arguments, cwd=folder, env=environment(**environment_too), stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> RealRun:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def said(self) -> str:
        """All that the command has said so far."""
        return self._log.read_text()

    def running(self) -> bool:
        """Whether the command has not ended."""
        return self.process.poll() is None

    def kill(self, *, everyone: bool = True) -> None:
        """End the command by SIGKILL, with its local workers or without."""
        if everyone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait(30)

    def wait_for(self, condition: Callable[[], object], what: str, *, seconds: float = 60.0) -> None:
        """Wait until something is so while the command runs."""
        wait_until(lambda: condition() or not self.running(), what, seconds=seconds, say=self.said)
        assert self.running(), f"{what}: the command ended before\n{self.said()}"

    def finish(self, *, seconds: float = RUN_SECONDS, say: Callable[[], str] = str) -> str:
        """Wait until the command has ended well; returns what it said."""
        wait_until(lambda: not self.running(), "the end", seconds=seconds, say=lambda: self.said() + say())
        assert self.process.returncode == 0, self.said() + say()
        return self.said()


def units(output: Path, stage: str) -> list[Path]:
    """Results of a stage that an unfinished run has kept."""
    return list((output.with_name(output.name + ".partial") / "work" / "units" / stage).glob("[!.]*.npz"))
