"""Jobs of a queueing system that a run keeps up: one that was cancelled, timed out or lost its node is replaced.

Dask's own scaling counts workers. Of jobs with several worker processes it replaces none that is lost; it ends whole
jobs for single workers that have not come yet; and a job that ends before its workers came is waited for for ever.
Here jobs are counted, and the queue is asked about those whose workers are missing.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import math
import re
import time
from typing import Any, NamedTuple

import dask
from dask.utils import parse_timedelta
from distributed.deploy import Adaptive

logger = logging.getLogger(__name__)

# After so many failures in a row, with no worker at all, something is wrong that waiting will not mend.
MOST_FAILURES = 3
LONGEST_DELAY_SECONDS = 600.0
ASK_SECONDS = 20.0
# A job that runs, and whose workers are gone, may still be about to end or to bring them back.
GRACE_SECONDS = 60.0


class Queue(NamedTuple):
    """How a queueing system says what became of a user's jobs.

    Attributes
    ----------
    command
        Lists the jobs of a user, whose name is put in place of ``USER``; where it can, those that ended lately too.
    line
        Regular expression of a line, with the groups ``job`` and ``state``.
    waiting, running
        Regular expressions of states; a job in any other, or not listed, is over.
    nothing
        Text of a complaint that there are no jobs at all.
    """

    command: tuple[str, ...]
    line: str
    waiting: str
    running: str
    nothing: str = "^$"


QUEUES = {
    "slurm": Queue(
        ("squeue", "--noheader", "--states=all", "--user", "USER", "--format=%A %T"),
        r"^\s*(?P<job>\d+) (?P<state>\w+)",
        "PENDING|CONFIGURING|SUSPENDED|STOPPED|RE\\w+|SPECIAL_EXIT",
        "RUNNING|COMPLETING|SIGNALING|STAGE_OUT",
    ),
    "pbs": Queue(
        ("qstat", "-u", "USER"), r"^\s*(?P<job>\d+)\S*(?:\s+\S+){8}\s+(?P<state>[A-Z])\b", "[HQSTUW]", "[BERM]"
    ),
    "lsf": Queue(
        ("bjobs", "-noheader", "-a", "-u", "USER", "-o", "jobid stat"),
        r"^\s*(?P<job>\d+)\s+(?P<state>\w+)",
        "PEND|PSUSP|USUSP|SSUSP|PROV",
        "RUN|WAIT|UNKWN",
        "No unfinished job|No job found",
    ),
    "sge": Queue(
        ("qstat", "-u", "USER"), r"^\s*(?P<job>\d+)\s+\S+\s+\S+\s+\S+\s+(?P<state>\w+)", r"\w*(?:q|s|S|T)\w*", "[Rrt]+"
    ),
    "htcondor": Queue(
        ("condor_q", "USER", "-format", "%d.", "ClusterId", "-format", "%d ", "ProcId", "-format", "%d\n", "JobStatus"),
        r"^(?P<job>\d+\.\d+) (?P<state>\d)",
        "[157]",
        "[26]",
    ),
}


def states_of_jobs(queue: Queue, listing: str) -> dict[str, str]:
    """Read which jobs wait, which run and which are over, by number, from what a queueing system lists."""
    found = {}
    for line in listing.splitlines():
        job = re.match(queue.line, line)
        if job is None:
            continue
        kinds = {"waiting": queue.waiting, "running": queue.running, "over": ".*"}
        found[job["job"]] = next(kind for kind, pattern in kinds.items() if re.fullmatch(pattern, job["state"]))
    return found


async def ask_queue(queue: Queue) -> dict[str, str] | None:
    """Ask what this user's jobs do; None when the queueing system gives no answer."""
    command = [getpass.getuser() if word == "USER" else word for word in queue.command]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        logger.info("the queue cannot be asked: %s", error)
        return None
    try:
        said, complaint = await asyncio.wait_for(process.communicate(), ASK_SECONDS)
    except TimeoutError:
        process.kill()
        return None
    if process.returncode and not re.search(queue.nothing, complaint.decode(errors="replace").strip() or "?"):
        logger.info("the queue cannot be asked: %s", complaint.decode(errors="replace").strip())
        return None
    return states_of_jobs(queue, said.decode(errors="replace"))


class KeptJobs(Adaptive):
    """Scaling of a dask-jobqueue cluster in whole jobs, with what was lost replaced.

    Attributes
    ----------
    failures
        Jobs in a row that could not be submitted, or ended before a worker came of them.
    trouble
        What was wrong with the last of them, a clause; empty when all is well.
    waiting
        Jobs that the queueing system has not started yet.
    """

    cluster: Any
    failures: int = 0
    trouble: str = ""
    waiting: int = 0

    def __init__(self, cluster: Any, **options: Any) -> None:
        self._queue = QUEUES.get(getattr(cluster.job_cls, "config_name", ""))
        self._look_seconds = float(parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")))
        self._asked = self._not_before = -math.inf
        self._queue_knows_us = False
        self._last_seen: dict[str, float] = {}
        self._excess_looks = 0
        super().__init__(cluster, **options)

    def _members(self, name: str) -> set[str]:
        group = self.cluster.worker_spec[name].get("group", ("",))
        return {f"{name}{suffix}" for suffix in group}

    async def adapt(self) -> None:
        """Look for lost jobs, then scale."""
        try:
            lost = await self._lost_jobs()
            if lost:
                await self.cluster.scale_down(lost)
            await super().adapt()
        except RuntimeError as error:  # the words of sbatch, qsub ...
            said = re.search(r"stderr:\s*(.+)", str(error), re.DOTALL)
            self._failed(" ".join((said[1] if said else str(error)).split()))
            refused = [name for name, job in self.cluster.workers.items() if not job.job_id]
            await self.cluster.scale_down(refused)

    async def _lost_jobs(self) -> list[str]:
        """Names of the jobs that will not bring workers any more."""
        now = time.monotonic()
        observed = {str(name) for name in self.cluster.observed}
        missing = []
        for name in list(self.cluster.worker_spec):
            if self._members(name) & observed:
                if name not in self._last_seen:
                    self.failures, self.trouble = 0, ""
                self._last_seen[name] = now
            elif name in self.cluster.workers:
                missing.append(name)
        self._last_seen = {name: seen for name, seen in self._last_seen.items() if name in self.cluster.worker_spec}
        if not missing or now - self._asked < self._look_seconds:
            return []
        self._asked = now
        states = await ask_queue(self._queue) if self._queue else None
        ours = {str(job.job_id) for job in self.cluster.workers.values()}
        self.waiting = sum(state == "waiting" for job, state in (states or {}).items() if job in ours)
        # Of jobs that were sent to another system than the one that answers, it says nothing.
        self._queue_knows_us = self._queue_knows_us or bool(ours & set(states or ()))
        if not self._queue_knows_us:
            states = None
        return [name for name in missing if self._is_lost(name, states, now)]

    def _is_lost(self, name: str, states: dict[str, str] | None, now: float) -> bool:
        job = self.cluster.workers.get(name)
        if job is None:
            return False
        came = name in self._last_seen
        gone_for = now - self._last_seen.get(name, now)
        state = "unknown" if states is None else states.get(str(job.job_id), "over")
        if state == "waiting":  # the queueing system has put it back by itself
            self._last_seen.pop(name, None)
            return False
        if state == "over" and not came:
            self._failed(f"job {job.job_id} ended before its workers came")
            return True
        if state == "over":
            logger.warning("job %s is over; another takes its place", job.job_id)
            return gone_for >= 1
        return came and gone_for > GRACE_SECONDS

    def _failed(self, trouble: str) -> None:
        self.failures += 1
        self.trouble = trouble
        delay = min(LONGEST_DELAY_SECONDS, self._look_seconds * 2 ** (self.failures - 1))
        self._not_before = time.monotonic() + delay
        logger.warning("%s; another is submitted in %.0f s", trouble, delay)

    async def recommendations(self, target: int) -> dict:
        """Say how many jobs to add, or which to end, for so many workers."""
        if len(self.plan) != len(self.requested):
            await self.cluster
        size = max(1, len(self.cluster.new_spec.get("group", ("",))))
        wanted, planned = math.ceil(target / size), len(self.cluster.worker_spec)
        self._excess_looks = self._excess_looks + 1 if wanted < planned else 0
        if wanted > planned and time.monotonic() >= self._not_before:
            return {"status": "up", "n": wanted * size}
        if self._excess_looks >= self.wait_count:
            spare = self._idle_jobs()[: planned - wanted]
            if spare:
                return {"status": "down", "workers": [member for name in spare for member in self._members(name)]}
        return {"status": "same"}

    def _idle_jobs(self) -> list[str]:
        """Jobs that can be ended without losing work: those that have not come first."""
        busy = {str(worker.name) for worker in self.cluster.scheduler.workers.values() if worker.processing}
        observed = {str(name) for name in self.cluster.observed}
        idle = [name for name in self.cluster.worker_spec if not self._members(name) & busy]
        return sorted(idle, key=lambda name: bool(self._members(name) & observed))

    async def scale_up(self, n: Any) -> None:
        """Submit jobs, and hear what the queueing system says to it."""
        self._asked = -math.inf
        self.cluster.scale(n)
        await self.cluster
