"""Particles, one task per fragment: counted first, then assigned and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from regroup_dask.formats import parquet_particles
from regroup_dask.formats.particles import (
    Assignment,
    OutputFiles,
    ParticleSource,
    RegroupPlan,
    output_functions,
)
from regroup_dask.formats.store_parts import JoinedFile, join_parts
from regroup_dask.science import assign
from regroup_dask.tasks.execute import Result

Rule = Literal["argmax", "sum"]
RULES: tuple[Rule, Rule] = ("argmax", "sum")


class SurveyUnit(NamedTuple):
    """Count the particles of each class in one fragment."""

    name: str
    source: ParticleSource
    fragment: Any


class CountUnit(NamedTuple):
    """Count where the particles of one fragment will go, by the rule asked for and by the other."""

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


def count_fragment(unit: CountUnit) -> Result:
    """Rows per superclass and remaining, and how many rows the two rules would treat differently."""
    known = unit.source.class_counts(unit.fragment)
    if known is not None:
        # One class per particle with a posterior of 1: the rules agree, and no limit is above it.
        labels = np.append(np.asarray(unit.superclass_of_class, np.int64), -1)
        by_label = np.bincount(labels + 1, weights=known, minlength=unit.n_superclasses + 1).astype(np.int64)
        return {"counts": np.append(by_label[1:], by_label[0]), "rules_differ": np.asarray(0)}
    posteriors = _posteriors(unit.source, unit.fragment)
    by_rule = {
        rule: assign.assign_superclasses(
            posteriors,
            np.asarray(unit.superclass_of_class),
            unit.n_superclasses,
            rule=rule,
            minimum_posterior=unit.minimum_posterior,
        ).superclass
        for rule in RULES
    }
    chosen = by_rule[unit.rule]
    counts = np.bincount(np.where(chosen < 0, unit.n_superclasses, chosen), minlength=unit.n_superclasses + 1)
    return {
        "counts": counts.astype(np.int64),
        "rules_differ": np.asarray(int((by_rule["argmax"] != by_rule["sum"]).sum())),
    }


def write_fragment(unit: WriteUnit) -> Result:
    """Assign the rows of one fragment and write them to every side of the output."""
    table = unit.fragment.read()
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
    for write, outputs in zip(writers, unit.outputs, strict=True):
        write(unit.source, unit.fragment, table, assignment, plan, outputs, unit.counts_before)
    return {"rows": np.asarray(table.num_rows)}


def join_file(unit: JoinUnit) -> Result:
    """Join one file."""
    join_parts(unit.file)
    return {}


def _posteriors(source: ParticleSource, fragment: Any) -> np.ndarray:
    return source.class_posteriors(fragment.read(source.posterior_columns))
