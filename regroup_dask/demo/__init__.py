"""A small realistic job with a known truth: made here, regrouped by the very same run, and compared."""

from regroup_dask.demo.compare_with_truth import DemoComparison, compare_with_truth
from regroup_dask.demo.other_programs import write_cryodrgn_analysis, write_relion_job
from regroup_dask.demo.simulate import (
    JOB_NAME,
    MINIMUM_CLASS_SIZE,
    N_SUPERCLASSES,
    simulate_job,
)
from regroup_dask.demo.truth import DemoTruth, read_truth

__all__ = [
    "JOB_NAME",
    "MINIMUM_CLASS_SIZE",
    "N_SUPERCLASSES",
    "DemoComparison",
    "DemoTruth",
    "compare_with_truth",
    "read_truth",
    "simulate_job",
    "write_cryodrgn_analysis",
    "write_relion_job",
]
