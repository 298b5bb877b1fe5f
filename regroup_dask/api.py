"""The functions of the Python interface: from a notebook or a program, with or without a cluster.

``client=None`` means the current Dask client if there is one, else this process: no cluster is started.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from distributed import Client

from regroup_dask import grouping, pipeline
from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.job import Job
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particle_source import ParticleSource
from regroup_dask.formats.scratch_folder import scratch_folder
from regroup_dask.formats.volumes import VolumeSeries, find_mask, find_volumes, open_volumes, series_of
from regroup_dask.pipeline import Regrouped
from regroup_dask.progress import Listener, StageClock, silent
from regroup_dask.settings import Settings
from regroup_dask.single_pair import Alignment, align_two
from regroup_dask.steps import comparing
from regroup_dask.steps.inputs import inputs_of_files, inputs_of_job
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import select_classes
from regroup_dask.tasks.connect import current_client
from regroup_dask.tasks.particles import on_cluster

__all__ = ["Alignment", "Job", "Regrouped", "align", "compare", "group", "open_job", "regroup"]


def open_job(folder: str | Path) -> Job:
    """Find what a job folder holds: its newest iteration's particles and class maps.

    Parameters
    ----------
    folder
        A classification job of CryoSPARC or RELION, or an analysis of cryoDRGN.

    Returns
    -------
    Job
        To be looked at, or given to `regroup`.

    Raises
    ------
    InputError
        No such folder, or no such job in it.
    """
    return recognise_job(folder)


def align(
    moving: str | Path | np.ndarray | xr.DataArray,
    reference: str | Path | np.ndarray | xr.DataArray,
    *,
    maximum_shift_angstrom: float = 20.0,
    hand: Literal["off", "detect"] = "detect",
    voxel_size_angstrom: float | None = None,
) -> Alignment:
    """Superpose one map onto another over all rotations and shifts; boxes and voxel sizes may differ.

    Parameters
    ----------
    moving, reference
        Maps: MRC files, or arrays ``[z, y, x]`` with `voxel_size_angstrom`.
    maximum_shift_angstrom
        Largest shift that is looked at.
    hand
        ``"detect"`` tries both hands, ``"off"`` only the hand as it is.
    voxel_size_angstrom
        Needed for arrays, and for files whose header does not say.

    Returns
    -------
    Alignment
        ``x_reference = R x_moving + t``, with correlation, hand and confidence.

    Raises
    ------
    InputError
        A map cannot be read or has no voxel size.
    """
    return align_two(
        moving,
        reference,
        maximum_shift_angstrom=maximum_shift_angstrom,
        hand=hand,
        voxel_size_angstrom=voxel_size_angstrom,
    )


def compare(
    volumes: Any,
    *,
    align: bool = False,
    n_particles: Sequence[int] | np.ndarray | None = None,
    maximum_shift_angstrom: float = 20.0,
    mask: str | Path | None = None,
    mask_inner_radius: float | None = None,
    hand: Literal["off", "detect"] = "detect",
    exclude_classes: Sequence[int] = (),
    minimum_class_size: int = 0,
    pairs: str = "all",
    voxel_size_angstrom: float | None = None,
    client: Client | None = None,
    listener: Listener = silent,
) -> xr.Dataset:
    """Compare all pairs of class maps.

    Parameters
    ----------
    volumes
        From `open_volumes`, or anything that it takes.
    align
        Superpose each pair over all rotations and shifts first.
    n_particles
        Particles of each class, where sizes matter: the mask lies in the frame of the largest class.
    maximum_shift_angstrom, mask, mask_inner_radius, hand, exclude_classes, minimum_class_size, pairs
        As on the command line; see `Settings`.
    voxel_size_angstrom
        Where the maps do not say it.
    client
        A Dask client; None for the current one, or this process.
    listener
        Told of every event of the run.

    Returns
    -------
    xarray.Dataset
        On (class_i, class_j): ``correlation``, ``similarity``, ``distance``, ``distance_sigma``, and the pose that
        superposes class j onto class i: ``rotation_quaternion``, ``shift_angstrom``, ``mirrored``.

    Raises
    ------
    InputError
        The maps or a setting cannot be used.
    """
    settings = Settings(
        n_superclasses="auto",
        align=align,
        maximum_shift_angstrom=maximum_shift_angstrom,
        mask=None if mask is None else str(mask),
        mask_inner_radius=mask_inner_radius,
        hand=hand,
        exclude_classes=tuple(int(class_id) for class_id in exclude_classes),
        minimum_class_size=minimum_class_size,
        pairs=pairs,
    )
    client = current_client() if client is None else client
    # Workers on other machines need a folder that they see: Dask's own setting says which.
    beside = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="regroup_dask_", dir=beside) as folder:
        series = _series(volumes, voxel_size_angstrom, Path(folder))
        sizes = None
        if n_particles is not None:
            sizes = np.asarray(n_particles, np.int64)
            if len(sizes) != len(series.references):
                raise InputError(
                    f"n_particles has {len(sizes)} values for {len(series.references)} maps: give one per map."
                )
        selection = select_classes(series, sizes, settings)
        references = tuple(series.references[position] for position in selection.kept)
        run = RunContext(Path(folder), client, StageClock(listener))
        with pipeline.heard_warnings(run.clock):
            found = comparing.compare_maps(
                references, selection, settings, run, mask=None if mask is None else find_mask(mask, series=series)
            )
        return found.pairs


def group(
    pairs: xr.Dataset,
    n_superclasses: int | str,
    *,
    n_particles: Sequence[int] | np.ndarray | None = None,
    similarity: Literal["structure", "correlation"] = "structure",
    frame: Literal["superclass", "common"] = "superclass",
    seed: int = 0,
) -> xr.Dataset:
    """Group classes into superclasses; needs nothing but the pairs, so another number costs nothing.

    Parameters
    ----------
    pairs
        From `compare`, or a run's ``pairs.zarr`` opened with xarray.
    n_superclasses
        1 to (classes - 1), or ``"auto"``.
    n_particles
        Particles of each class; None takes the dataset's own, else all count the same.
    similarity
        ``"structure"`` or ``"correlation"``.
    frame
        ``"superclass"`` or ``"common"``.
    seed
        Seed of the clustering.

    Returns
    -------
    xarray.Dataset
        On ``class_id``: ``superclass``, the pose into its frame, ``similarity_to_superclass`` and ``stability``.

    Raises
    ------
    InputError
        The number of superclasses is out of range.
    """
    return grouping.group_pairs(
        pairs,
        n_superclasses,
        n_particles=None if n_particles is None else np.asarray(n_particles),
        similarity=similarity,
        frame=frame,
        seed=seed,
    )


def regroup(
    volumes: Any,
    particles: str | Path | Sequence[str | Path] | ParticleSource | None = None,
    *,
    n_superclasses: int | str,
    output: str | Path,
    align: bool = False,
    minimum_class_size: int = 0,
    exclude_classes: Sequence[int] = (),
    maximum_shift_angstrom: float = 20.0,
    mask_inner_radius: float | None = None,
    mask: str | Path | None = None,
    class_prefix: str = "auto",
    posteriors: Literal["argmax", "sum"] = "argmax",
    minimum_posterior: float | None = None,
    update_poses: bool | None = None,
    hand: Literal["off", "detect"] = "detect",
    frame: Literal["superclass", "common"] = "superclass",
    similarity: Literal["structure", "correlation"] = "structure",
    pairs: str = "all",
    seed: int = 0,
    passthrough: str | Path | Sequence[str | Path] = (),
    voxel_size_angstrom: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    listener: Listener = silent,
) -> Regrouped:
    """Regroup classes and particles and write the output folder; the options are those of the command line.

    Parameters
    ----------
    volumes
        From `open_volumes`, or anything that it takes; or a job from `open_job`, which brings its own particles.
    particles
        From `open_particles`, or anything that it takes; None groups the maps only.
    n_superclasses
        1 to (classes kept - 1), or ``"auto"``.
    output
        The output folder, or the URL of one (``s3://bucket/OUT``); refused if it exists, unless `resume` or `overwrite`.
    storage_options
        For URLs, as fsspec's file systems take them; used by this process from now on, and by its workers.
    client
        A Dask client; None for the current one, or this process.
    listener
        Told of every event of the run.

    Returns
    -------
    Regrouped
        Tables, pairs, groups, and the folder.

    Raises
    ------
    InputError
        An input or a setting cannot be used; nothing is written then.
    """
    settings = Settings(
        n_superclasses=n_superclasses if n_superclasses == "auto" else int(n_superclasses),  # type: ignore[arg-type]
        minimum_class_size=minimum_class_size,
        exclude_classes=tuple(int(class_id) for class_id in exclude_classes),
        align=align,
        maximum_shift_angstrom=maximum_shift_angstrom,
        mask_inner_radius=mask_inner_radius,
        mask=None if mask is None else str(mask),
        class_prefix=class_prefix,
        posteriors=posteriors,
        minimum_posterior=minimum_posterior,
        update_poses=update_poses,
        hand=hand,
        frame=frame,
        similarity=similarity,
        pairs=pairs,
        seed=seed,
    )
    if isinstance(volumes, Job) and (particles is not None or passthrough):
        raise InputError("A job brings its own particles: leave out particles and passthrough, or give volumes by name.")
    if storage_options is not None:
        storage.use_storage_options(storage_options)
    target = storage.location(output)
    client = current_client() if client is None else client
    with scratch_folder(target) as folder:
        found: dict[str, Any] = {
            "mask": mask,
            "class_prefix": class_prefix,
            "voxel_size_angstrom": voxel_size_angstrom,
            "scratch": folder,
            "run": on_cluster(lambda: client),
        }
        with pipeline.heard_warnings(StageClock(listener)) as heard:
            if isinstance(volumes, Job):
                inputs = inputs_of_job(volumes.folder, **found)
            else:
                inputs = inputs_of_files(
                    volumes if _are_paths(volumes) else _series(volumes, voxel_size_angstrom, folder),
                    particles,
                    passthrough=passthrough,
                    **found,
                )
        return pipeline.regroup_inputs(
            inputs,
            settings,
            target,
            client=client,
            listener=listener,
            resume=resume,
            overwrite=overwrite,
            heard_before=heard,
        )


def _are_paths(volumes: Any) -> bool:
    return storage.is_path(volumes) or (
        isinstance(volumes, Sequence) and all(storage.is_path(item) for item in volumes)
    )


def _series(volumes: Any, voxel_size_angstrom: float | None, folder: Path) -> VolumeSeries:
    """Find the files behind the maps; maps that are only in memory, or were changed there, are stored first."""
    if isinstance(volumes, VolumeSeries):
        return volumes
    if _are_paths(volumes):
        return find_volumes(volumes, voxel_size_angstrom=voxel_size_angstrom)
    array = open_volumes(volumes, voxel_size_angstrom=voxel_size_angstrom)
    series = series_of(array)
    if series is not None:
        return series
    store = folder / "given_maps.zarr"
    dataset = array.drop_vars(["name", "volume", "volume_index"], errors="ignore").to_dataset(name="density")
    # Arrays of this process do not travel to a cluster only to be written to disk.
    here = isinstance(volumes, np.ndarray | list | tuple) or not dask.is_dask_collection(getattr(volumes, "data", None))
    with dask.config.set(scheduler="threads") if here else contextlib.nullcontext():
        dataset.chunk(class_id=1, z=-1, y=-1, x=-1).to_zarr(str(store), mode="w", consolidated=False)
    return find_volumes(
        str(store),
        voxel_size_angstrom=float(array.attrs["voxel_size_angstrom"]),
        class_ids=[int(value) for value in array["class_id"].values],
        names=[str(value) for value in array["name"].values],
    )
