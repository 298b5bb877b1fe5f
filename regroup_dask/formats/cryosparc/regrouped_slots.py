"""The alignment slots of regrouped particles: superclasses in place of classes.

Every column of the input stays, in place and bit for bit, except the slots that hold the class posteriors:

* ``alignments3D`` is the slot of the particle's best class within its superclass; its class is the superclass
  and its posterior 1. Where the input has no such slot it is put before the posteriors' slots.
* ``alignments3D_multi``, or one slot per class, has an entry per superclass instead of per class: that of the
  best class of the particle within the superclass, with a posterior of 1 for the particle's superclass and 0
  for others.
* ``class_ess``, the effective number of classes, is 1: that is what one-hot posteriors amount to.

Where poses are updated, the pose and shift of each entry follow the class they come from into the frame of
its superclass. Slots of other jobs (``alignments2D``, posteriors of an older prefix) speak of other maps and
stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.posteriors import COMMON, MULTI, PosteriorSlots
from regroup_dask.formats.cryosparc.slot_poses import pose_is_common
from regroup_dask.formats.regroup_plan import Assignment, RegroupPlan
from regroup_dask.formats.rotations import matrices_of_vectors, vectors_of_matrices

VECTOR_FIELDS = {"shift": 1, "pose": 1}
"""fields with an axis of their own beside that of the classes"""
ONE_HOT = ("class", "class_posterior", "class_ess")
"""fields that say in which class a particle is, made anew"""


class RegroupedSlots(NamedTuple):
    """How records of the input become records of the output; small and picklable."""

    dtype: np.dtype
    """of the regrouped particles"""
    slots: PosteriorSlots
    n_superclasses: int
    common_fields: tuple[str, ...]
    """fields of ``alignments3D`` in the output"""
    common_pose: bool
    """the pose of a particle is in ``alignments3D`` and the same for all classes"""

    def records(self, particles: np.ndarray, assignment: Assignment, plan: RegroupPlan) -> np.ndarray:
        """Make the output records of the particles that belong to a superclass, in input order.

        Parameters
        ----------
        particles : records of the input
        assignment : Assignment
            For these rows.
        plan : RegroupPlan

        Raises
        ------
        InputError
            A shift that has to be moved has no pixel size.
        """
        rows = np.flatnonzero(assignment.superclass >= 0)
        inside = particles[rows]
        superclass = assignment.superclass[rows]
        chosen = assignment.class_index(plan)[rows]
        within = assignment.best_class_in_superclass[rows]
        within = np.where(within < 0, chosen[:, None], within)
        result = np.zeros(len(rows), self.dtype)
        replaced = self._replaced_fields()
        kept = [name for name in self.dtype.names or () if name in (particles.dtype.names or ()) and name not in replaced]
        _copy_fields(inside, result, kept)
        entries: dict[str, np.ndarray] = {}
        if not self.slots.hard:
            fields = _fields_of(particles.dtype.names or (), self.slots.slots[0])
            taken = [field for field in fields if field not in ONE_HOT]
            entries = {field: _class_values(inside, self.slots, field, within) for field in taken}
            _move(entries, within, plan)
            self._fill_superclasses(result, fields, entries, superclass)
        self._fill_common(result, inside, entries, superclass, chosen, plan)
        return result

    def _replaced_fields(self) -> set[str]:
        slots = {COMMON, *self.slots.slots} | {self._slot_of(k) for k in range(self.n_superclasses)}
        return {name for name in self.dtype.names or () if name.split("/")[0] in slots}

    def _slot_of(self, superclass: int) -> str:
        if self.slots.hard or self.slots.multi:
            return self.slots.prefix
        return f"{self.slots.prefix}{superclass}"

    def _fill_common(
        self,
        result: np.ndarray,
        inside: np.ndarray,
        entries: dict[str, np.ndarray],
        superclass: np.ndarray,
        chosen: np.ndarray,
        plan: RegroupPlan,
    ) -> None:
        """Fill alignments3D: from the entry of the particle's superclass, or from what it was."""
        row = np.arange(len(inside))
        values: dict[str, Any] = {}
        if self.common_pose:
            present = [field for field in self.common_fields if f"{COMMON}/{field}" in (inside.dtype.names or ())]
            moving = {field: inside[f"{COMMON}/{field}"][:, None] for field in present}
            _move(moving, chosen[:, None], plan)
            values = {field: moved[:, 0] for field, moved in moving.items()}
        else:
            for field in self.common_fields:
                if field in entries:
                    values[field] = entries[field][row, superclass]
                elif f"{COMMON}/{field}" in (inside.dtype.names or ()):
                    values[field] = inside[f"{COMMON}/{field}"]
        values |= {"class": superclass, "class_posterior": np.float32(1), "class_ess": np.float32(1)}
        for field in self.common_fields:
            if field in values:
                result[f"{COMMON}/{field}"] = values[field]

    def _fill_superclasses(
        self, result: np.ndarray, fields: list[str], entries: dict[str, np.ndarray], superclass: np.ndarray
    ) -> None:
        """Fill the entry of every superclass, [n, K, ...] each."""
        number = np.arange(self.n_superclasses)
        one_hot = {
            "class": np.broadcast_to(number, (len(result), self.n_superclasses)),
            "class_posterior": superclass[:, None] == number,
            "class_ess": np.ones((len(result), self.n_superclasses), np.float32),
        }
        for field in fields:
            values = one_hot[field] if field in one_hot else entries[field]
            if self.slots.multi:
                result[f"{MULTI}/{field}"] = values if _has_class_axis(self.dtype, field) else values[:, 0]
            else:
                for k in range(self.n_superclasses):
                    result[f"{self._slot_of(k)}/{field}"] = values[:, k]


def plan_slots(dtype: np.dtype, slots: PosteriorSlots, plan: RegroupPlan, *, path: str) -> RegroupedSlots:
    """Lay out the record of regrouped particles.

    Raises
    ------
    InputError
        Poses have to be updated, and a slot with poses has no shift or no pixel size.
    """
    names = dtype.names or ()
    own = _fields_of(names, slots.slots[0])
    common = _fields_of(names, COMMON)
    common_pose = pose_is_common(names, slots)
    first_slot = common if common_pose else own
    fields = list(dict.fromkeys([*first_slot, *common, "class_posterior", "class"]))
    if plan.update_poses:
        for slot, present in {COMMON: common, slots.slots[0]: own}.items():
            needed = {"shift", "psize_A"} - set(present)
            if "pose" in present and needed:
                raise InputError(
                    f"{path}: {slot} has poses but no {', '.join(sorted(needed))}, so that they cannot "
                    "follow their class; run with --keep-poses"
                )
    described = {f"{COMMON}/{field}": _common_type(dtype, slots, field, common_pose) for field in fields}
    layout: list[tuple] = []
    done: set[str] = set()

    def place(slot_fields: dict[str, tuple]) -> None:
        layout.extend((name, *kind) for name, kind in slot_fields.items() if name not in done)
        done.update(slot_fields)

    has_common = bool(common)
    for name in names:
        slot = name.split("/")[0]
        if slot == COMMON and "/" in name:
            place(described)
        elif not slots.hard and slot in slots.slots and "/" in name:
            if not has_common:
                place(described)
            place(_superclass_fields(dtype, slots, plan.n_superclasses, own))
        elif name not in done:
            place({name: _kind(dtype[name])})
    result = np.dtype(layout)
    return RegroupedSlots(result, slots, plan.n_superclasses, tuple(fields), common_pose)


def _fields_of(names: tuple[str, ...], slot: str) -> list[str]:
    return [name[len(slot) + 1 :] for name in names if name.startswith(f"{slot}/")]


def _kind(kind: np.dtype) -> tuple:
    return (kind.base, kind.shape) if kind.shape else (kind,)


def _common_type(dtype: np.dtype, slots: PosteriorSlots, field: str, common_pose: bool) -> tuple:
    """Type of a field of alignments3D in the output: as in the slot it is filled from."""
    name = f"{slots.slots[0]}/{field}"
    if not common_pose and name in (dtype.names or ()):
        kind = dtype[name]
        return (kind.base, kind.shape[1:]) if slots.multi and _has_class_axis(dtype, field) else _kind(kind)
    name = f"{COMMON}/{field}"
    if name in (dtype.names or ()):
        return _kind(dtype[name])
    return (np.dtype("<u4"),) if field == "class" else (np.dtype("<f4"),)


def _superclass_fields(
    dtype: np.dtype, slots: PosteriorSlots, n_superclasses: int, fields: list[str]
) -> dict[str, tuple]:
    first = slots.slots[0]
    if slots.multi:
        result = {}
        for field in fields:
            kind = dtype[f"{MULTI}/{field}"]
            shape = (n_superclasses, *kind.shape[1:]) if _has_class_axis(dtype, field) else kind.shape
            result[f"{MULTI}/{field}"] = (kind.base, shape) if shape else (kind,)
        return result
    return {
        f"{slots.prefix}{k}/{field}": _kind(dtype[f"{first}/{field}"])
        for k in range(n_superclasses)
        for field in fields
    }


def _has_class_axis(dtype: np.dtype, field: str) -> bool:
    """Tell whether a field of alignments3D_multi has a value per class, and not one for all."""
    return len(dtype[f"{MULTI}/{field}"].shape) == 1 + VECTOR_FIELDS.get(field, 0)


def _copy_fields(source: np.ndarray, target: np.ndarray, names: list[str]) -> None:
    """Copy fields from records to records; those side by side in both go in one piece."""
    runs: list[tuple[int, int, int]] = []
    for name in names:
        kind, start = source.dtype.fields[name][:2]  # type: ignore[index]
        target_kind, target_start = target.dtype.fields[name][:2]  # type: ignore[index]
        if kind != target_kind:
            target[name] = source[name]
            continue
        if runs:
            first, target_first, size = runs[-1]
            if (start, target_start) == (first + size, target_first + size):
                runs[-1] = (first, target_first, size + kind.itemsize)
                continue
        runs.append((start, target_start, kind.itemsize))
    for start, target_start, size in runs:
        _bytes_of(target, target_start, size)[...] = _bytes_of(source, start, size)


def _bytes_of(records: np.ndarray, start: int, size: int) -> np.ndarray:
    """View some consecutive bytes of every record as one field."""
    field = np.dtype({"names": ["bytes"], "formats": [f"V{size}"], "offsets": [start], "itemsize": records.itemsize})
    return records.view(field)["bytes"]


def _class_values(records: np.ndarray, slots: PosteriorSlots, field: str, class_index: np.ndarray) -> np.ndarray:
    """Pick a field from the slots of classes ``class_index`` int[n, m] of each row: an array [n, m, ...]."""
    if slots.multi:
        values = records[f"{MULTI}/{field}"]
        if _has_class_axis(records.dtype, field):
            return values[np.arange(len(records))[:, None], class_index]
        return np.broadcast_to(values[:, None], (*class_index.shape, *values.shape[1:]))
    kind = records.dtype[f"{slots.slots[0]}/{field}"]
    result = np.empty((*class_index.shape, *kind.shape), kind.base)
    for index in np.unique(class_index):
        row, column = np.nonzero(class_index == index)
        result[row, column] = records[f"{slots.slots[index]}/{field}"][row]
    return result


def _move(values: dict[str, np.ndarray], class_index: np.ndarray, plan: RegroupPlan) -> None:
    """Move poses [n, m, 3] and their shifts along with their class; others keep their bits."""
    if "pose" not in values or plan.move_poses is None:
        return
    pose, shift = values["pose"], values["shift"]
    place = np.nonzero(plan.moves(class_index) & np.isfinite(pose).all(axis=-1) & np.isfinite(shift).all(axis=-1))
    if not len(place[0]):
        return
    pixel = values["psize_A"][place].astype(np.float64)
    wrong = ~(np.isfinite(pixel) & (pixel > 0))
    if wrong.any():
        raise InputError(
            f"{len(np.unique(place[0][wrong]))} particles have a pixel size (alignments psize_A) of "
            f"{pixel[wrong][0]}, so that their shift cannot be moved; run with --keep-poses"
        )
    rotation, moved_shift = plan.move_poses(
        matrices_of_vectors(pose[place]),
        shift[place].astype(np.float64) * pixel[:, None],
        *plan.class_pose_arrays(class_index[place]),
    )
    values["pose"], values["shift"] = pose.copy(), shift.copy()
    values["pose"][place] = vectors_of_matrices(rotation)
    values["shift"][place] = moved_shift / pixel[:, None]
