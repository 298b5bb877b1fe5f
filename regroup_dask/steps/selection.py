"""Which classes take part, and which are left out and why."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.volumes import VolumeSeries
from regroup_dask.settings import Settings
from regroup_dask.steps import particles
from regroup_dask.steps.inputs import Inputs
from regroup_dask.steps.run_context import RunContext

GROUPED, TOO_SMALL, EXCLUDED = "grouped", "too_small", "excluded"


class Selection(NamedTuple):
    """All classes of the input and those that take part.

    Attributes
    ----------
    class_ids
        Ids of all classes, int64 (N,).
    n_particles
        Particles per class by their best posterior, int64 (N,), or None without particles.
    status
        ``grouped``, ``too_small`` or ``excluded`` for each class.
    kept
        Positions of the classes that take part.
    class_counts
        Particles of each fragment per class, where they were counted.
    """

    class_ids: np.ndarray
    n_particles: np.ndarray | None
    status: tuple[str, ...]
    kept: np.ndarray
    class_counts: particles.ClassCounts | None = None

    @property
    def kept_sizes(self) -> np.ndarray:
        """Sizes of the classes that take part; all 1 without particles."""
        if self.n_particles is None:
            return np.ones(len(self.kept), np.int64)
        return self.n_particles[self.kept]

    @property
    def reference(self) -> int:
        """Position, among the kept, of the largest class; the lowest id of equals."""
        return int(np.argmax(self.kept_sizes))


def survey_and_select(inputs: Inputs, settings: Settings, run: RunContext) -> Selection:
    """Count the particles of each class, and choose the classes that take part.

    Raises
    ------
    InputError
        As `select_classes`.
    """
    sizes = class_counts = None
    if inputs.source is not None:
        class_counts = particles.survey(inputs.source, run)
        if class_counts.without_class:
            warnings.warn(
                f"Particles without a class (no posterior, NaN or all zero): {class_counts.without_class}; they go to "
                "remaining.",
                RegroupWarning,
                stacklevel=2,
            )
        counts = class_counts.per_class
        sizes = np.array([counts.get(reference.class_id, 0) for reference in inputs.series.references], np.int64)
    without_map = () if inputs.source is None else inputs.source.class_ids
    selection = select_classes(inputs.series, sizes, settings, without_map=without_map)
    return selection._replace(class_counts=class_counts)


def select_classes(
    series: VolumeSeries,
    n_particles: np.ndarray | None,
    settings: Settings,
    *,
    without_map: Collection[int] = (),
) -> Selection:
    """Apply the exclusions and the minimum class size, and check that the number of superclasses is in range.

    Parameters
    ----------
    series
        The class maps.
    n_particles
        Particles of each of them, int64 (N,), or None without particles.
    settings
        Exclusions, minimum class size and number of superclasses.
    without_map
        Further classes that particles name: they may be excluded too, and take no part.

    Raises
    ------
    InputError
        An excluded class does not exist, too few classes are left, or K is out of range.
    """
    class_ids = np.array([reference.class_id for reference in series.references], np.int64)
    unknown = sorted(set(settings.exclude_classes) - {*class_ids.tolist(), *without_map})
    if unknown:
        raise InputError(
            f"--exclude-classes names class {unknown[0]}, which does not exist: the classes are "
            f"{_ids(class_ids)} (zero-based)."
        )
    status = []
    for position, class_id in enumerate(class_ids):
        if class_id in settings.exclude_classes:
            status.append(EXCLUDED)
        elif n_particles is not None and n_particles[position] < settings.minimum_class_size:
            status.append(TOO_SMALL)
        else:
            status.append(GROUPED)
    kept = np.flatnonzero(np.array(status) == GROUPED)
    _check_count(settings, class_ids, status, len(kept))
    return Selection(class_ids, n_particles, tuple(status), kept)


def _check_count(settings: Settings, class_ids: np.ndarray, status: list[str], n_kept: int) -> None:
    left_out = []
    for word, reason in ((EXCLUDED, "excluded"), (TOO_SMALL, f"under {settings.minimum_class_size} particles")):
        ids = class_ids[np.array(status) == word]
        if len(ids):
            left_out.append(f"{'class' if len(ids) == 1 else 'classes'} {_ids(ids)} {reason}")
    explained = f"{len(class_ids)} classes" + (f", {'; '.join(left_out)}" if left_out else ", none left out")
    if n_kept < 2:
        raise InputError(
            f"Too few classes are left to group: {n_kept} ({explained}), and at least 2 are needed; exclude fewer or "
            "lower --minimum-class-size."
        )
    count = settings.n_superclasses
    if count != "auto" and count > n_kept - 1:
        raise InputError(
            f"The number of superclasses (-k) is {count}, but it must be from 1 to {n_kept - 1}, one less than the "
            f"{n_kept} classes kept ({explained})."
        )


def _ids(class_ids: np.ndarray) -> str:
    ids = sorted(int(class_id) for class_id in class_ids)
    if len(ids) > 3 and ids == list(range(ids[0], ids[-1] + 1)):
        return f"{ids[0]} to {ids[-1]}"
    return ", ".join(str(class_id) for class_id in ids)
