"""Particles on the driver: count them, plan where they go, have the fragments written, finish the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.errors import DamagedStoreError
from regroup_dask.formats import parquet_particles, storage
from regroup_dask.formats.particles import (
    ClassPose,
    ParticleSource,
    RegroupPlan,
    SuperclassMaps,
    output_functions,
)
from regroup_dask.formats.relion import outputs as relion_outputs
from regroup_dask.formats.relion.model import folder_for_relion
from regroup_dask.formats.relion.particles import RelionParticles
from regroup_dask.formats.store_parts import JoinedFile
from regroup_dask.science.particle_poses import move_poses
from regroup_dask.settings import Settings
from regroup_dask.steps.averaging import class_pose
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import particles


class ClassCounts(NamedTuple):
    """Rows per fragment and class by their best posterior, the last column those whose posteriors say nothing."""

    per_fragment: np.ndarray
    class_ids: tuple[int, ...]

    @property
    def per_class(self) -> dict[int, int]:
        """Rows of each class."""
        return dict(zip(self.class_ids, self.per_fragment.sum(axis=0)[:-1].tolist(), strict=True))

    @property
    def without_class(self) -> int:
        """Rows whose posteriors say nothing."""
        return int(self.per_fragment[:, -1].sum())


class ParticleCounts(NamedTuple):
    """Rows per fragment and superclass, the last column remaining."""

    per_fragment: np.ndarray

    @property
    def per_superclass(self) -> np.ndarray:
        """Rows of each superclass, int64 (K,)."""
        return self.per_fragment.sum(axis=0)[:-1]

    @property
    def remaining(self) -> int:
        """Rows of no superclass."""
        return int(self.per_fragment[:, -1].sum())


class WrittenParticles(NamedTuple):
    """What writing the particles gave."""

    paths: tuple[str, ...]
    """the sides' own files and folders"""
    rules_differ: int
    """particles that argmax and sum would treat differently"""


def survey(source: ParticleSource, run: RunContext) -> ClassCounts:
    """Count the particles of each fragment per class, by their best posterior."""
    slim = _without_fragments(source)
    units = [particles.SurveyUnit(f"fragment_{fragment.index:06d}", slim, fragment) for fragment in source.fragments]
    results = run.run("survey", "Counting particles", particles.survey_fragment, units, same=lambda unit: unit.name.encode())
    counts = np.array([result["counts"] for result in results], np.int64)
    return ClassCounts(counts.reshape(-1, len(source.class_ids) + 1), source.class_ids)


def count(
    source: ParticleSource,
    class_counts: ClassCounts,
    superclass_of_class: dict[int, int],
    n_superclasses: int,
    settings: Settings,
    run: RunContext,
) -> ParticleCounts:
    """Count where the particles of each fragment will go.

    By the rule argmax all of a class go where the class goes, so that its count says it; only sums of posteriors, and
    a limit on them, need another look at every particle.
    """
    slim = _without_fragments(source)
    labels = tuple(superclass_of_class.get(class_id, -1) for class_id in source.class_ids)
    if source.hard or (settings.posteriors == "argmax" and not settings.minimum_posterior):
        goes_to = np.array([*labels, -1])[:, None] == np.array([*range(n_superclasses), -1])
        return ParticleCounts(class_counts.per_fragment @ goes_to.astype(np.int64))
    units = [
        particles.CountUnit(
            f"fragment_{fragment.index:06d}",
            slim,
            fragment,
            labels,
            n_superclasses,
            settings.posteriors,
            settings.minimum_posterior,
        )
        for fragment in source.fragments
    ]
    results = run.run("count", "Assigning particles", particles.count_fragment, units)
    return ParticleCounts(np.array([result["counts"] for result in results], np.int64).reshape(-1, n_superclasses + 1))


def write(
    source: ParticleSource,
    groups: xr.Dataset,
    counts: ParticleCounts,
    settings: Settings,
    maps: SuperclassMaps,
    run: RunContext,
) -> WrittenParticles:
    """Write every particle to every side of the output."""
    plan = regroup_plan(source, groups, settings)
    sides: list[Any] = [
        (parquet_particles.create_outputs, parquet_particles.write_fragment, parquet_particles.finish_outputs)
    ]
    if source.kind != "parquet":
        sides.append(output_functions(source.kind))
    outputs: tuple[Any, ...] = tuple(create(source, plan, counts.per_fragment, str(run.folder)) for create, _, _ in sides)
    slim = _without_fragments(source)
    before = np.zeros_like(counts.per_fragment)
    before[1:] = np.cumsum(counts.per_fragment, axis=0)[:-1]
    units = [
        particles.WriteUnit(
            f"fragment_{fragment.index:06d}",
            slim,
            fragment,
            plan,
            settings.posteriors,
            settings.minimum_posterior,
            tuple(side.of_fragment(fragment.index) if hasattr(side, "of_fragment") else side for side in outputs),
            before[position],
            run.folder,
        )
        for position, fragment in enumerate(source.fragments)
    ]
    results = run.run("particles", "Writing particles", particles.write_fragment, units)
    _join_parts(files_to_join(source, plan, outputs[-1], counts.per_fragment), units, run)
    if isinstance(source, RelionParticles) and not storage.is_remote(run.folder):
        starts = relion_outputs.lay_out_again(source, plan, outputs[-1], results)
        place_units = [
            particles.PlaceUnit(unit.name, unit.fragment, plan, outputs[-1].of_fragment(unit.fragment.index), places)
            for unit, places in zip(units, starts, strict=False)
        ]
        if place_units:
            run.run("placing", "Joining particles", particles.place_fragment, place_units)
    written: list[str] = []
    for (_, _, finish), side in zip(sides, outputs, strict=True):
        written.extend(finish(source, plan, side, counts.per_fragment, maps))
    return WrittenParticles(tuple(written), sum(int(result["rules_differ"]) for result in results))


def _join_parts(files: list[JoinedFile], units: list[particles.WriteUnit], run: RunContext) -> None:
    if not files:
        return
    joins = [particles.JoinUnit(file.path.rpartition("/")[2], file) for file in files]
    try:
        run.run("joining", "Joining particles", particles.join_file, joins)
    except DamagedStoreError as error:
        run.forget("particles", [units[error.position].name])
        raise


def files_to_join(source: ParticleSource, plan: RegroupPlan, outputs: Any, counts: np.ndarray) -> list[JoinedFile]:
    """Files of the format's own side that are joined from parts, as an object store makes it necessary."""
    if not storage.is_remote(outputs.folder):
        return []
    if source.kind == "cryosparc":
        return list(outputs.files_to_join(len(counts)))
    return list(outputs.files_to_join(source, plan, counts)) if source.kind == "relion" else []


def _without_fragments(source: ParticleSource) -> ParticleSource:
    """The source as a task needs it: a thousand fragments would travel with each of a thousand tasks."""
    return dataclasses.replace(source, fragments=())


def regroup_plan(source: ParticleSource, groups: xr.Dataset, settings: Settings) -> RegroupPlan:
    """Tell the writers what became of each class."""
    labels = groups["superclass"].values
    poses = {}
    for position, class_id in enumerate(groups["class_id"].values):
        if labels[position] >= 0:
            pose = class_pose(groups, position)
            poses[int(class_id)] = ClassPose(pose.rotation, pose.shift_angstrom, pose.mirrored)
    return RegroupPlan(
        n_superclasses=int(labels.max()) + 1,
        class_ids=tuple(source.class_ids),
        superclass_of_class={
            int(class_id): int(label) for class_id, label in zip(groups["class_id"].values, labels, strict=True)
        },
        pose_of_class=poses,
        update_poses=settings.poses_follow,
        move_poses=move_poses,
    )


def superclass_maps(
    paths: tuple[Path, ...],
    box: int,
    voxel_size_angstrom: float,
    *,
    output: Path,
    series_zip: Path,
    mask: Path | None,
    ssnr: tuple[np.ndarray, ...] | None = None,
) -> SuperclassMaps:
    """Name the superclass maps for the sides that refer to them.

    RELION looks for maps from its project folder, which it runs in, so its model gets the paths that they will have from
    there when `output` is complete, and absolute ones where no project is above it.
    """
    return SuperclassMaps(
        paths=tuple(str(path) for path in paths),
        box=box,
        voxel_size_angstrom=voxel_size_angstrom,
        series_zip=str(series_zip),
        mask=None if mask is None else str(mask),
        folder_for_relion=folder_for_relion(output / "relion"),
        ssnr=ssnr,
    )


def superclass_ssnr(groups: xr.Dataset, ssnr: dict[int, np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """Signal-to-noise ratio of each superclass by shell, where that of all its classes is known.

    That of particles taken together is the sum of what each class has from its own.
    """
    if not ssnr:
        return None
    labels, ids = groups["superclass"].values, groups["class_id"].values.tolist()
    result = []
    for superclass in range(int(labels.max()) + 1):
        members = [ssnr.get(class_id) for class_id, label in zip(ids, labels, strict=True) if label == superclass]
        known = [values for values in members if values is not None]
        shells = min((len(values) for values in known), default=0) if len(known) == len(members) else 0
        result.append(np.sum([values[:shells] for values in known], axis=0) if shells else np.empty(0))
    return tuple(result)
