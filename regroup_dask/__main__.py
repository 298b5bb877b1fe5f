"""``python -m regroup_dask``."""

from regroup_dask.cli import main

if __name__ == "__main__":
    main()
