"""Keep the class maps as they were compared, with what was measured of each: classes.zarr."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import class_store, storage, storing
from regroup_dask.formats.consolidate import consolidate
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import class_maps

STAGE = "class_maps"


def keep_classes(classes: xr.Dataset, working_maps: Path, path: Path, run: RunContext) -> None:
    """Write classes.zarr: its tables here, its maps by the workers.

    Parameters
    ----------
    classes
        From comparing, its maps lazy.
    working_maps
        Store of the working maps, in the same order.
    path
        Of classes.zarr.
    run
        The run.
    """
    laid_out = run.work / "classes.zarr.laid_out"
    if not storage.exists(laid_out):
        class_store.lay_out_classes(classes, path)
        storing.write_bytes(laid_out, b"")
    n_maps, step = classes.sizes["class_id"], class_store.classes_per_shard(classes.sizes["z"])
    units = [
        class_maps.ClassMapsUnit(f"maps_{first:06d}", first, min(first + step, n_maps), working_maps, path)
        for first in range(0, n_maps, step)
    ]
    try:
        run.run(STAGE, "Keeping maps", class_maps.keep_maps, units)
    except DamagedStoreError as error:
        run.forget("reduce", [f"class_{int(classes['class_id'][error.position]):05d}"])
        raise
    consolidate(path)
