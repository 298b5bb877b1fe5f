"""The command line: ``regroup-dask``, ``python -m regroup_dask`` and ``dask regroup``."""

from regroup_dask.cli.program import main

__all__ = ["main"]
