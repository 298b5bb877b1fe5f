"""Make the superclass maps and write them in every form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import ome_metadata, storage, storing, volume_store
from regroup_dask.formats.mrc_writer import density_range
from regroup_dask.formats.volumes import VolumeReference, VolumeSeries
from regroup_dask.report.colours import superclass_colour
from regroup_dask.science.rotations import Pose
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import averages


def average_superclasses(groups: xr.Dataset, series: VolumeSeries, run: RunContext) -> tuple[Path, ...]:
    """Average the maps of each superclass in its frame; returns the MRC files, in order.

    Parameters
    ----------
    groups
        From grouping: ``superclass``, ``mirrored``, ``rotation_quaternion``, ``shift_angstrom`` on ``class_id``.
    series
        The input maps.
    run
        The run.
    """
    references = {reference.class_id: reference for reference in series.references}
    scratch = run.work / "spline"
    storing.make_folder(scratch)
    members = superclass_members(groups, references, scratch)
    filters = [
        averages.SplineUnit(f"class_{member.reference.class_id:05d}", member.reference, member.coefficients)
        for group in members
        for member in group
        if member.coefficients is not None
    ]
    if filters:
        results = run.run("spline", "Filtering maps", averages.filter_map, filters)
        levels = {unit.path: float(result["level"]) for unit, result in zip(filters, results, strict=True)}
        members = [
            [
                member if member.coefficients is None else member._replace(solvent_level=levels[member.coefficients])
                for member in group
            ]
            for group in members
        ]
    store = run.folder / "volumes.zarr"
    laid_out = run.work / "volumes.zarr.laid_out"
    if not (storage.exists(store) and storage.exists(laid_out)):
        # A driver that dies before the mark is made must not leave half a template for the next to take for a whole one.
        volume_store.create_volume_store(
            store,
            n_superclasses=len(members),
            box=series.box,
            voxel_size_angstrom=series.voxel_size_angstrom,
        )
        storing.write_bytes(laid_out, b"")
    slabs = [
        averages.AverageUnit(
            f"superclass_{superclass:04d}_plane_{first:04d}", superclass, first, end, tuple(group), store
        )
        for superclass, group in enumerate(members)
        for first, end in volume_store.slabs_of_box(series.box)
    ]
    written = run.run("averages", "Averaging maps", averages.average_slab, slabs)
    checksums: list[list[int]] = [[] for _ in members]
    for slab, result in zip(slabs, written, strict=True):
        checksums[slab.superclass].append(int(result["checksum"]))
    folder = run.folder / "volumes"
    storing.make_folder(folder)
    files = [
        averages.MapFileUnit(
            f"superclass_{superclass:04d}",
            store,
            superclass,
            folder / f"superclass_{superclass:03d}.mrc",
            series.voxel_size_angstrom,
            tuple(checksums[superclass]),
        )
        for superclass in range(len(members))
    ]
    try:
        run.run("map_files", "Writing maps", averages.write_map_file, files)
    except DamagedStoreError as error:
        run.forget("averages", [slab.name for slab in slabs if slab.superclass == error.position])
        raise
    paths = tuple(unit.path for unit in files)
    _describe_store(store, paths, series)
    return paths


def _describe_store(store: Path, maps: tuple[Path, ...], series: VolumeSeries) -> None:
    """Say in the store of superclass maps what other viewers need to know."""
    attributes = ome_metadata.ome_attributes(
        volume_store.VARIABLE,
        channel_axis="superclass",
        box=series.box,
        voxel_size_angstrom=series.voxel_size_angstrom,
        channels=[f"superclass {number}" for number in range(len(maps))],
        colours=[superclass_colour(number) for number in range(len(maps))],
        windows=[density_range(path) for path in maps],
    )
    ome_metadata.write_ome_metadata(store, attributes)


def superclass_members(
    groups: xr.Dataset, references: dict[int, VolumeReference], scratch: Path
) -> list[list[averages.Member]]:
    """List the classes of each superclass with their poses; a class that moves gets a scratch file."""
    labels = groups["superclass"].values
    members: list[list[averages.Member]] = [[] for _ in range(int(labels.max()) + 1)]
    for position, class_id in enumerate(groups["class_id"].values):
        if labels[position] < 0:
            continue
        pose = class_pose(groups, position)
        still = np.array_equal(pose.rotation, np.eye(3)) and not pose.shift_angstrom.any() and not pose.mirrored
        coefficients = None if still else scratch / f"class_{class_id:05d}.npy"
        members[labels[position]].append(averages.Member(references[int(class_id)], pose, coefficients))
    return members


def class_pose(groups: xr.Dataset, position: int) -> Pose:
    """Pose of one class into its superclass frame, the identity exactly when it is."""
    quaternion = groups["rotation_quaternion"].values[position]
    identity = np.array_equal(quaternion, [0, 0, 0, 1])
    return Pose(
        np.eye(3) if identity else Rotation.from_quat(quaternion).as_matrix(),
        np.asarray(groups["shift_angstrom"].values[position], np.float64),
        bool(groups["mirrored"].values[position]),
    )
