"""Clusters that a yaml file describes.

::

    cluster: SLURMCluster        # one of the names below, or package.module:Class
    options: {queue: short, cores: 8, processes: 8, memory: 32 GB, walltime: "04:00:00"}
    scale: {jobs: 4}             # or a number of workers
    adapt: {minimum_jobs: 1, maximum_jobs: 20}    # in place of scale
    configuration: {distributed.scheduler.allowed-failures: 10}    # of Dask, for this run

Clusters of a queueing system get TLS unless `security: false` stands in the options.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
import yaml
from distributed import Client

from regroup_dask.errors import ClusterError, InputError
from regroup_dask.tasks import cluster_settings

JOBQUEUE = {
    name: f"dask_jobqueue:{name}"
    for name in (
        *("SLURMCluster", "PBSCluster", "LSFCluster", "SGECluster"),
        *("HTCondorCluster", "OARCluster", "MoabCluster"),
    )
}
KNOWN = {
    "LocalCluster": "distributed:LocalCluster",
    "SSHCluster": "distributed:SSHCluster",
    **JOBQUEUE,
    "KubeCluster": "dask_kubernetes.operator:KubeCluster",
    "GatewayCluster": "dask_gateway:GatewayCluster",
}
INSTALL = {
    "dask_jobqueue": "pip install 'regroup-dask[jobqueue]'",
    "dask_kubernetes": "pip install 'regroup-dask[kubernetes]'",
    "dask_gateway": "pip install 'regroup-dask[gateway]'",
}
KEYS = ("cluster", "options", "scale", "adapt", "configuration")


class ClusterDescription(NamedTuple):
    """What a cluster file says."""

    name: str
    target: str
    options: dict[str, Any]
    scale: dict[str, Any] | None
    adapt: dict[str, Any] | None
    configuration: dict[str, Any]
    source: str


def read_cluster_file(source: Path | dict[str, Any]) -> ClusterDescription:
    """Read and check a cluster file, or the same as a dictionary.

    Raises
    ------
    InputError
        It cannot be read, or says something that is not understood.
    """
    where = f"the cluster file {source}" if isinstance(source, Path) else "regroup.cluster in Dask's configuration"
    content: Any = source
    if isinstance(source, Path):
        try:
            content = yaml.safe_load(source.read_text())
        except FileNotFoundError as error:
            raise InputError(f"The cluster file {source} does not exist.") from error
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"The cluster file {source} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or "cluster" not in content:
        raise InputError(f"In {where} no cluster is named: it needs a line such as 'cluster: SLURMCluster'.")
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise InputError(f"In {where} there is {unknown[0]!r}, which is none of {', '.join(KEYS)}.")
    name = str(content["cluster"])
    target = KNOWN.get(name, name if ":" in name else "")
    if not target:
        raise InputError(f"In {where} the cluster is {name!r}: it is one of {', '.join(KNOWN)}, or package.module:Class.")
    if "scale" in content and "adapt" in content:
        raise InputError(f"In {where} there are both scale and adapt: give one of them.")
    scale = content.get("scale")
    if isinstance(scale, int):
        scale = {"n": scale}
    for key, value in (("options", content.get("options")), ("adapt", content.get("adapt")), ("scale", scale)):
        if value is not None and not isinstance(value, dict):
            raise InputError(f"In {where} {key} is {value!r}: it is a list of names and values.")
    return ClusterDescription(
        name,
        target,
        dict(content.get("options") or {}),
        scale,
        content.get("adapt"),
        dict(content.get("configuration") or {}),
        where,
    )


def slurm_description(n_workers: int | None) -> ClusterDescription:
    """Describe Slurm as Dask's own configuration has it under ``jobqueue.slurm``, with one-core workers by default."""
    from dask_jobqueue import SLURMCluster  # noqa: F401  its defaults join Dask's configuration

    known = dask.config.get("jobqueue.slurm", {})
    options: dict[str, Any] = {}
    if known.get("cores") is None:
        options["cores"] = 1
    if known.get("memory") is None:
        options["memory"] = f"{4 * (known.get('cores') or 1)} GiB"
    if known.get("processes") is None:
        options["processes"] = known.get("cores") or 1
    count = n_workers or 8
    return ClusterDescription(
        "SLURMCluster",
        JOBQUEUE["SLURMCluster"],
        options,
        None,
        {"minimum": min(count, 1), "maximum": count},
        {},
        "--slurm",
    )


@contextlib.contextmanager
def started(description: ClusterDescription, *, n_workers: int | None = None) -> Iterator[Client]:
    """Start a cluster, ask it for workers, and yield a client of it; the cluster is closed in the end.

    Raises
    ------
    InputError
        Its package is not installed, or it does not take these options.
    ClusterError
        It cannot be started.
    """
    kind = load_cluster_class(description)
    with dask.config.set(description.configuration):
        try:
            cluster = kind(**cluster_options(description))
        except (TypeError, ValueError) as error:
            raise InputError(f"In {description.source} {description.name} does not take its options: {error}.") from error
        except (OSError, RuntimeError, ImportError) as error:
            if "unexpected keyword argument" in str(error):
                raise InputError(
                    f"In {description.source} {description.name} does not take its options: {error}."
                ) from error
            raise ClusterError(f"{description.name} of {description.source} cannot be started: {error}.") from error
        try:
            _ask_for_workers(cluster, description, n_workers)
            client = cluster.get_client() if hasattr(cluster, "get_client") else Client(cluster)
            with client:
                yield client
        finally:
            cluster.close()


def load_cluster_class(description: ClusterDescription) -> Any:
    """Import the class of a cluster."""
    module, _, name = description.target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.split(".")[0]
        remedy = INSTALL.get(package, f"install {package}")
        raise InputError(f"{description.name} needs {package.replace('_', '-')}: {remedy}.") from error
    except AttributeError as error:
        raise InputError(f"In {description.source} the cluster is {description.target}: {module} has no {name}.") from error


def cluster_options(description: ClusterDescription) -> dict[str, Any]:
    """Options for the cluster's class; a queueing system's gets TLS and one thread for each worker process."""
    options = dict(description.options)
    if description.target not in JOBQUEUE.values():
        return options
    if cluster_settings.setting("security"):
        options.setdefault("security", True)
    if options.get("security") is False:
        options.pop("security")
    if options.get("security"):
        # The keys of the session go to the jobs through a folder that all nodes see.
        options.setdefault("shared_temp_directory", str(Path.cwd()))
        options.setdefault("protocol", "tls://")
    if "cores" in options:
        options.setdefault("processes", options["cores"])
    return options


def _ask_for_workers(cluster: Any, description: ClusterDescription, n_workers: int | None) -> None:
    keeping: dict[str, Any] = {}
    if description.target in JOBQUEUE.values():
        from regroup_dask.tasks.queue_jobs import KeptJobs

        keeping = {"Adaptive": KeptJobs}
    try:
        if description.adapt is not None:
            cluster.adapt(**description.adapt, **keeping)
        elif description.scale is not None:
            cluster.scale(**description.scale)
        elif n_workers is not None:
            cluster.scale(n_workers)
        elif description.target in JOBQUEUE.values() or "Gateway" in description.name:
            raise InputError(
                f"In {description.source} neither scale nor adapt says how many workers {description.name} shall have: "
                "add a line such as 'scale: {jobs: 4}', or give --workers."
            )
    except (TypeError, ValueError) as error:
        accepted = ", ".join(inspect.signature(cluster.scale).parameters)
        raise InputError(
            f"In {description.source} scale or adapt is not understood by {description.name}: {error} (scale takes "
            f"{accepted})."
        ) from error
    if keeping and description.adapt is None:
        count = len(cluster.plan)
        cluster.adapt(minimum=count, maximum=count, **keeping)
