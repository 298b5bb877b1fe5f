"""Client and workers must be alike before anything runs: the same package, Python and Dask, and one file system."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from distributed import Client

from regroup_dask.errors import ClusterError, RegroupError, RegroupWarning
from regroup_dask.formats.run_folder import RUN_FILE
from regroup_dask.formats.storage import CarriedOptions, carried_options, exists, is_remote

# Different ones cannot work together, or would give other results; for the others the last digits may differ.
MUST_AGREE = ("python", "regroup-dask", "dask", "distributed", "cloudpickle", "msgpack")
BLAS = "BLAS kernels"
SHOULD_AGREE = (BLAS, "numpy", "scipy", "numba", "finufft", "zarr", "pyarrow", "xarray", "scikit-learn")


def installed_versions() -> dict[str, str | None]:
    """Versions of what matters here, None for what is not installed; of Python the first two numbers.

    ``BLAS kernels`` names the processor type that BLAS chose its kernels for: the same library gives other last digits
    on another type.
    """
    found: dict[str, str | None] = _ask_worker(MUST_AGREE, SHOULD_AGREE)
    return found


def differences(mine: dict[str, str | None], workers: dict[str, dict[str, str | None]]) -> tuple[list[str], list[str]]:
    """Compare versions of workers with those here; what must agree and what should, a clause each.

    Parameters
    ----------
    mine
        From `installed_versions`, here.
    workers
        The same of each worker, by address.
    """
    clauses: tuple[list[str], list[str]] = ([], [])
    for names, said in zip((MUST_AGREE, SHOULD_AGREE), clauses, strict=True):
        for name in names:
            others: dict[str | None, list[str]] = {}
            for address, versions in workers.items():
                if versions.get(name) != mine.get(name):
                    others.setdefault(versions.get(name), []).append(address)
            for version, addresses in others.items():
                more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
                said.append(f"{name} is {mine.get(name)} here and {version or 'missing'} on {addresses[0]}{more}")
    return clauses


def _by_value(function: Any) -> Any:
    """Copy a function so that it is sent as code: the package it comes from may be missing on a worker."""
    import types

    copied = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    copied.__module__ = "__main__"
    return copied


def _ask_worker(must: tuple[str, ...], should: tuple[str, ...]) -> dict:
    import platform
    from importlib import metadata

    found: dict = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in (*must[1:], *should):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    try:
        import numpy  # noqa: F401  its BLAS is then among the loaded libraries
        from threadpoolctl import threadpool_info

        kinds = {str(pool.get("architecture")) for pool in threadpool_info() if pool["user_api"] == "blas"}
        found["BLAS kernels"] = ", ".join(sorted(kinds)) or None
    except ImportError:
        pass
    return found


def _sees(path: str) -> bool:
    import os

    return os.path.exists(path)


def check_versions(client: Client) -> None:
    """Compare what the workers have with what is installed here.

    Raises
    ------
    ClusterError
        They cannot work together; the message says which package, both versions and where.
    """
    workers = client.run(_by_value(_ask_worker), MUST_AGREE, SHOULD_AGREE)
    must, should = differences(installed_versions(), workers)
    if must:
        raise ClusterError(
            f"The workers are not like this process: {'; '.join(must[:3])}. Install the same on both, best from one "
            "environment or image."
        )
    if should:
        warnings.warn(
            f"Results may differ in their last digits: {'; '.join(should[:3])}.", RegroupWarning, stacklevel=2
        )


def _answer_of_store(path: str, options: CarriedOptions) -> str:
    """Say why a file in a store cannot be reached from this process; empty if it can."""
    options.adopt()
    try:
        return "" if exists(path) else f"{path} is not there."
    except RegroupError as error:
        return str(error)


def check_shared_folder(client: Client, folder: Path) -> None:
    """Make sure that every worker sees the folder that a run writes to.

    Raises
    ------
    ClusterError
        A worker does not.
    """
    if is_remote(folder):
        told = client.run(_answer_of_store, str(folder / RUN_FILE), carried_options())
        deaf = [(address, sentence) for address, sentence in told.items() if sentence]
        if deaf:
            raise ClusterError(f"The worker {deaf[0][0]} does not reach the output folder: {deaf[0][1]}")
        return
    seen = client.run(_by_value(_sees), str(folder.resolve()))
    blind = [address for address, sees in seen.items() if not sees]
    if blind:
        raise ClusterError(
            f"The worker {blind[0]} does not see the output folder {folder}: choose one on a file system that this "
            "process and all workers share."
        )
