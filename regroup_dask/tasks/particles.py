"""Particles, one task per fragment: counted first, then assigned and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from distributed import Client

from regroup_dask.formats import parquet_particles
from regroup_dask.formats.particles import (
    Assignment,
    OutputFiles,
    ParticleSource,
    RegroupPlan,
    output_functions,
)
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.relion import outputs as relion_outputs
from regroup_dask.formats.store_parts import JoinedFile, join_parts
from regroup_dask.science import assign
from regroup_dask.tasks.execute import Result, run_units
from regroup_dask.tasks.kept_memory import kept_memory

Rule = Literal["argmax", "sum"]


class SurveyUnit(NamedTuple):
    """Count the particles of each class in one fragment."""

    name: str
    source: ParticleSource
    fragment: Any


class CountUnit(NamedTuple):
    """Count where the particles of one fragment will go."""

    name: str
    source: ParticleSource
    fragment: Any
    superclass_of_class: tuple[int, ...]
    n_superclasses: int
    rule: Rule
    minimum_posterior: float | None


class WriteUnit(NamedTuple):
    """Assign and write the particles of one fragment."""

    name: str
    source: ParticleSource
    fragment: Any
    plan: RegroupPlan
    rule: Rule
    minimum_posterior: float | None
    outputs: tuple[OutputFiles, ...]
    counts_before: np.ndarray
    folder: Path


class JoinUnit(NamedTuple):
    """Put one file together from the parts of all fragments."""

    name: str
    file: JoinedFile

    @property
    def about(self) -> str:
        """The file."""
        return self.file.path


class PlaceUnit(NamedTuple):
    """Put the written rows of one fragment into the files of the output."""

    name: str
    fragment: Any
    plan: RegroupPlan
    outputs: relion_outputs.RelionOutputs
    starts: np.ndarray


class PieceUnit(NamedTuple):
    """One piece of the work of opening a file."""

    name: str
    function: Callable[[Any], Any]
    piece: Any


@kept_memory()
def survey_fragment(unit: SurveyUnit) -> Result:
    """Rows per class (by best posterior); the last count is of rows whose posteriors say nothing."""
    known = unit.source.class_counts(unit.fragment)
    if known is not None:
        return {"counts": known}
    posteriors = _posteriors(unit.source, unit.fragment)
    classes = assign.hard_classes(posteriors)
    n_classes = posteriors.shape[1]
    counts = np.bincount(np.where(classes < 0, n_classes, classes), minlength=n_classes + 1)
    return {"counts": counts.astype(np.int64)}


@kept_memory()
def count_fragment(unit: CountUnit) -> Result:
    """Rows per superclass, and remaining."""
    found = assign.assign_superclasses(
        _posteriors(unit.source, unit.fragment),
        np.asarray(unit.superclass_of_class),
        unit.n_superclasses,
        rule=unit.rule,
        minimum_posterior=unit.minimum_posterior,
    )
    groups = np.where(found.superclass < 0, unit.n_superclasses, found.superclass)
    return {"counts": np.bincount(groups, minlength=unit.n_superclasses + 1).astype(np.int64)}


@kept_memory()
def write_fragment(unit: WriteUnit) -> Result:
    """Assign the rows of one fragment and write them to every side of the output."""
    table, own = unit.source.read_for_writing(unit.fragment)
    posteriors = unit.source.class_posteriors(table)
    plan = unit.plan
    found = assign.assign_superclasses(
        posteriors,
        np.array([plan.superclass_of_class.get(class_id, -1) for class_id in plan.class_ids]),
        plan.n_superclasses,
        rule=unit.rule,
        minimum_posterior=unit.minimum_posterior,
    )
    class_ids = np.asarray(plan.class_ids, np.int32)
    assignment = Assignment(
        class_id=np.where(found.class_index < 0, -1, class_ids[found.class_index]).astype(np.int32),
        superclass=found.superclass,
        superclass_posterior=found.superclass_posterior,
        best_class_in_superclass=found.best_class_in_superclass,
    )
    writers: list[Any] = [parquet_particles.write_fragment]
    if unit.source.kind != "parquet":
        writers.append(output_functions(unit.source.kind)[1])
    result = {"rows": np.asarray(table.num_rows), "rules_differ": np.asarray(found.n_rules_differ)}
    for write, outputs in zip(writers, unit.outputs, strict=True):
        told = write(unit.source, unit.fragment, table, assignment, plan, outputs, unit.counts_before, own)
        result.update(told or {})
    return result


def place_fragment(unit: PlaceUnit) -> Result:
    """Copy what a task has written of one fragment to its place in the RELION files."""
    relion_outputs.place_fragment(unit.fragment, unit.plan, unit.outputs, unit.starts)
    return {}


def on_cluster(connect: Callable[[], Client | None]) -> RunPieces:
    """Return a way to run the pieces of opening a file on the workers of a client.

    Parameters
    ----------
    connect
        Returns the client, None for this process; asked only when there is more than one piece, so that a small file
        waits for no cluster.
    """

    def run(function: Callable[[Any], Any], pieces: Sequence[Any]) -> list[Any]:
        client = connect() if len(pieces) > 1 else None
        if client is None:
            return in_this_process(function, pieces)
        units = [PieceUnit(f"piece_{number:06d}", function, piece) for number, piece in enumerate(pieces)]
        return [result["of_piece"] for result in run_units(_run_piece, units, client=client)]

    return run


@kept_memory()
def _run_piece(unit: PieceUnit) -> Result:
    return {"of_piece": unit.function(unit.piece)}


def join_file(unit: JoinUnit) -> Result:
    """Join one file."""
    join_parts(unit.file)
    return {}


def _posteriors(source: ParticleSource, fragment: Any) -> np.ndarray:
    return source.class_posteriors(fragment.read(source.posterior_columns))
