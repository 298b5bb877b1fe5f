"""What queueing systems list is read as they print it; nothing of their own is needed."""

from __future__ import annotations

import asyncio
import sys

import pytest

from regroup_dask.tasks.queue_jobs import QUEUES, Queue, ask_queue, states_of_jobs

# As their manuals show them.
LISTED = {
    "slurm": "17 RUNNING\n18 PENDING\n19 CANCELLED\n20 NODE_FAIL\n21 REQUEUE_HOLD\n22 CONFIGURING\n23 COMPLETING\n",
    "pbs": """
server:
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
17.server       me       workq    dask-worke  12345   1   8   32gb 04:00 R 00:10
18.server       me       workq    dask-worke    --    1   8   32gb 04:00 Q   --
19[].server     me       workq    dask-worke    --    1   8   32gb 04:00 F 00:01
""",
    "lsf": "17 RUN\n18 PEND\n19 EXIT\n20 DONE\n21 PSUSP\n",
    "sge": """job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID
-----------------------------------------------------------------------------------------------------------------
     17 0.55500 dask-worke me           r     11/22/2026 10:00:00 all.q@n1                           8
     18 0.00000 dask-worke me           qw    11/22/2026 10:00:01                                    8
     19 0.55500 dask-worke me           dr    11/22/2026 10:00:00 all.q@n1                           8
""",
    "htcondor": "17.0 2\n18.0 1\n19.0 3\n20.0 5\n",
}


@pytest.mark.parametrize("name", QUEUES)
def test_waiting_running_and_over(name):
    found = states_of_jobs(QUEUES[name], LISTED[name])
    number = "{}.0" if name == "htcondor" else "{}"
    assert [found[number.format(job)] for job in (17, 18, 19)] == ["running", "waiting", "over"]


def test_more_states_of_slurm():
    found = states_of_jobs(QUEUES["slurm"], LISTED["slurm"])
    assert [found[job] for job in ("20", "21", "22", "23")] == ["over", "waiting", "waiting", "running"]


def asked(script: str, nothing: str = "^$") -> dict[str, str] | None:
    return asyncio.run(ask_queue(Queue((sys.executable, "-c", script), *QUEUES["slurm"][1:4], nothing)))


def test_a_queue_that_does_not_answer_says_nothing_of_jobs():
    assert asked("print('17 RUNNING')") == {"17": "running"}
    assert asked("import sys; sys.exit('Socket timed out')") is None
    assert asked("import sys; sys.exit('No unfinished job found')", "No unfinished job") == {}
    assert asyncio.run(ask_queue(QUEUES["slurm"]._replace(command=("no-such-command",)))) is None
