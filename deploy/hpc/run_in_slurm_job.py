"""Run regroup-dask inside one Slurm job whose tasks are scheduler, command and workers (dask-jobqueue's SLURMRunner).

srun python run_in_slurm_job.py --scheduler-file FILE run J42 -k 4 -o OUT
"""

import os
import sys

from dask_jobqueue.slurm import SLURMRunner

from regroup_dask.cli import main


def run() -> int:
    """Become what this task's rank says; only rank 1 goes on to the command."""
    name, scheduler_file, *arguments = sys.argv[1:]
    if name != "--scheduler-file":
        raise SystemExit("usage: run_in_slurm_job.py --scheduler-file FILE run ...")
    options = {"interface": os.environ["REGROUP_INTERFACE"]} if os.environ.get("REGROUP_INTERFACE") else {}
    with SLURMRunner(
        scheduler_file=scheduler_file, scheduler_options=dict(options), worker_options={"nthreads": 1, **options}
    ):
        try:
            main.main([*arguments, "--scheduler-file", scheduler_file], standalone_mode=True)
        except SystemExit as finished:
            return int(finished.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(run())
