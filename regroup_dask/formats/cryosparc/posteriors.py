"""Where a CryoSPARC file keeps the class posteriors: three generations of slots, and one class per particle.

* ``alignments3D_multi/``: from v4.5 on; one slot with a class axis, its ``class`` column the same in every
row.
* ``alignments_class3D_K/class_posterior``: 3D Classification up to v4.4; the pose is the common
``alignments3D``.
* ``alignments_class_K/``: heterogeneous refinement and ab-initio up to v4.4; each class has its own pose and
shift.
* ``alignments3D/class``: files written one per class hold the class of a particle and nothing about the
others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.arrow_columns import column_values

MULTI = "alignments3D_multi"
COMMON = "alignments3D"
PREFIXES = (MULTI, "alignments_class3D_", "alignments_class_")
"""The prefixes that can be asked for, newest first."""
SLOT_PATTERN = re.compile(r"(alignments_class3D_|alignments_class_)(\d{1,6})/class_posterior")


class PosteriorSlots(NamedTuple):
    """The slots that hold what is known of a particle's class."""

    prefix: str
    """one of `PREFIXES`, or ``alignments3D`` when there is only one class per particle"""
    class_ids: tuple[int, ...]
    """sorted, as the posteriors' columns"""
    slots: tuple[str, ...]
    """name of the slot of each class; for ``alignments3D_multi`` and ``alignments3D`` all the same"""

    @property
    def multi(self) -> bool:
        """One slot holds all classes along an axis."""
        return self.prefix == MULTI

    @property
    def hard(self) -> bool:
        """Particles have one class and no posteriors."""
        return self.prefix == COMMON

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read for the posteriors."""
        if self.hard:
            return (f"{COMMON}/class",)
        if self.multi:
            return (f"{MULTI}/class_posterior", f"{MULTI}/class")
        return tuple(f"{slot}/class_posterior" for slot in self.slots)

    def posteriors(self, table: pa.Table) -> np.ndarray:
        """Return f32[n, n_classes]; one-hot when there is only one class per particle."""
        if self.hard:
            classes = column_values(table, f"{COMMON}/class")
            known = np.asarray(self.class_ids, dtype=np.int64)
            return (classes[:, None].astype(np.int64) == known).astype(np.float32)
        if self.multi:
            if f"{MULTI}/class" in table.column_names:
                self._check_classes(column_values(table, f"{MULTI}/class"))
            return column_values(table, f"{MULTI}/class_posterior").astype(np.float32, copy=False)
        columns = [column_values(table, name) for name in self.columns]
        return np.stack(columns, axis=1).astype(np.float32, copy=False)

    def _check_classes(self, classes: np.ndarray) -> None:
        known = np.asarray(self.class_ids)
        wrong = np.flatnonzero((classes != known).any(axis=1))
        if len(wrong):
            raise InputError(
                f"{MULTI}/class must hold the classes {known.tolist()} in every row, but row {wrong[0]} of "
                f"a fragment has {classes[wrong[0]].tolist()}; such a file cannot be regrouped"
            )


def present_prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """Return which of `PREFIXES` a table has, newest first."""
    found = set()
    for name in names:
        match = SLOT_PATTERN.fullmatch(name)
        if match:
            found.add(match[1])
        elif name == f"{MULTI}/class_posterior":
            found.add(MULTI)
    return tuple(prefix for prefix in PREFIXES if prefix in found)


def alignment_slots(names: Iterable[str]) -> tuple[str, ...]:
    """Return the alignment slots of a table, in order."""
    return tuple(dict.fromkeys(name.split("/")[0] for name in names if name.startswith("alignments") and "/" in name))


def find_posteriors(
    dtype: np.dtype,
    *,
    class_prefix: str,
    path: str,
    hard_classes: tuple[int, ...],
    multi_classes: np.ndarray | None,
) -> PosteriorSlots:
    """Find the slots with class posteriors.

    Parameters
    ----------
    dtype : numpy.dtype
        The columns of the table.
    class_prefix : str
        ``auto`` (the newest generation present) or a prefix to use.
    path : str
        For messages.
    hard_classes : tuple of int
        Distinct values of ``alignments3D/class`` in the table, used where there are no posteriors: then
        there have to be at least two of them, for a refinement writes 0 for every particle.
    multi_classes : u32[K], optional
        ``alignments3D_multi/class`` of the first row.

    Raises
    ------
    InputError
        Nothing is known of the particles' classes, or the prefix asked for is not there.
    """
    names = dtype.names or ()
    present = present_prefixes(names)
    if class_prefix != "auto":
        asked = class_prefix.rstrip("/")
        wanted = next((prefix for prefix in PREFIXES if prefix.rstrip("_") == asked.rstrip("_")), None)
        if wanted is None or wanted not in present:
            have = ", ".join(present) if present else "none"
            raise InputError(f"no class posteriors with the prefix {class_prefix} in {path}; prefixes present: {have}")
        prefix = wanted
    elif present:
        prefix = present[0]
    elif f"{COMMON}/class" in names and len(hard_classes) > 1:
        return PosteriorSlots(COMMON, hard_classes, (COMMON,) * len(hard_classes))
    else:
        slots = ", ".join(alignment_slots(names)) or "none"
        raise InputError(
            f"{path} has no class posteriors (alignment slots: {slots}): needed are particles of a job with "
            f"several classes, with {MULTI}/class_posterior, alignments_class3D_K/class_posterior or "
            "alignments_class_K/class_posterior"
        )
    if prefix == MULTI:
        return _multi_slots(dtype, path, multi_classes)
    slots_by_class: dict[int, str] = {}
    for name in names:
        match = SLOT_PATTERN.fullmatch(name)
        if match and match[1] == prefix:
            if dtype[name].subdtype or dtype[name].kind != "f":
                raise InputError(f"{path}: {name} has type {dtype[name]} instead of one number per particle")
            class_id = int(match[2])
            if class_id in slots_by_class:
                raise InputError(f"{path} has two slots for class {class_id}: {slots_by_class[class_id]} and {name}")
            slots_by_class[class_id] = name.split("/")[0]
    class_ids = tuple(sorted(slots_by_class))
    described = {slot: _slot_types(dtype, slot) for slot in slots_by_class.values()}
    first = slots_by_class[class_ids[0]]
    unlike = next((slot for slot, types in described.items() if types != described[first]), None)
    if unlike is not None:
        raise InputError(
            f"{path}: the slots {first} and {unlike} have different fields, so that no class can have both"
        )
    return PosteriorSlots(prefix, class_ids, tuple(slots_by_class[class_id] for class_id in class_ids))


def _slot_types(dtype: np.dtype, slot: str) -> dict[str, np.dtype]:
    start = f"{slot}/"
    return {name[len(start) :]: dtype[name] for name in dtype.names or () if name.startswith(start)}


def _multi_slots(dtype: np.dtype, path: str, classes: np.ndarray | None) -> PosteriorSlots:
    name = f"{MULTI}/class_posterior"
    shape = dtype[name].shape
    if len(shape) != 1 or dtype[name].base.kind != "f":
        raise InputError(f"{path}: {name} has type {dtype[name]} instead of a vector with one number per class")
    n_classes = shape[0]
    class_name = f"{MULTI}/class"
    if class_name in (dtype.names or ()) and dtype[class_name].shape != shape:
        raise InputError(f"{path}: {class_name} and {name} have different shapes")
    class_ids = tuple(range(n_classes)) if classes is None else tuple(int(value) for value in classes)
    if len(set(class_ids)) != n_classes or list(class_ids) != sorted(class_ids):
        raise InputError(f"{path}: {class_name} of the first row must be increasing, but is {list(class_ids)}")
    return PosteriorSlots(MULTI, class_ids, (MULTI,) * n_classes)
