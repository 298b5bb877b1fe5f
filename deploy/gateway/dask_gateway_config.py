"""Options of a dask-gateway server for regroup-dask: what a user may choose, and what keeps a cluster in bounds.

Append it to the server's own dask_gateway_config.py, or give it with ``dask-gateway-server -f``.
"""

from dask_gateway_server.options import Float, Integer, Options

c = get_config()  # noqa: F821  the server provides it


def chosen(options):
    """Turn what a user chose into the configuration of a cluster."""
    return {
        "worker_cores": options.worker_threads,
        "worker_memory": f"{options.worker_memory}G",
        # Kernels use one thread each, whoever starts the worker.
        "environment": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    }


c.Backend.cluster_options = Options(
    Integer("worker_threads", default=1, min=1, max=8, label="Threads of a worker"),
    Float("worker_memory", default=4, min=2, max=64, label="Memory of a worker (GB)"),
    handler=chosen,
)
c.ClusterConfig.scheduler_cmd = ["dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["dask", "worker"]
c.ClusterConfig.cluster_max_workers = 64
# A user who forgets a cluster does not pay for it all night.
c.ClusterConfig.idle_timeout = 3600
