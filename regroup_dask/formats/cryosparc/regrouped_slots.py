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
from regroup_dask.formats.cryosparc.record_kernels import bytes_of_records, copy_pieces
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
        superclass = assignment.superclass[rows]
        chosen = assignment.class_index(plan)[rows]
        within = assignment.best_class_in_superclass[rows]
        within = np.where(within < 0, chosen[:, None], within)
        result = np.zeros(len(rows), self.dtype)
        if not len(rows):
            return result
        pieces = self._pieces(particles.dtype)
        copy_pieces(
            bytes_of_records(particles),
            rows,
            np.column_stack([within, chosen]).astype(np.int32),
            *pieces,
            result.view(np.uint8).reshape(len(result), self.dtype.itemsize),
        )
        self._move(result, within, chosen, superclass, plan)
        self._fill_one_hot(result, superclass)
        return result

    def _slot_of(self, superclass: int) -> str:
        if self.slots.hard or self.slots.multi:
            return self.slots.prefix
        return f"{self.slots.prefix}{superclass}"

    def _pieces(self, source: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where every byte of the output comes from, for `copy_pieces`.

        Selector k is the best class within superclass k, selector K the class whose pose the particle keeps.
        """
        n_places = max(1, len(self.slots.class_ids))
        found: list[tuple[int, int, int, tuple[int, ...]]] = []  # target start, size, selector, source starts
        made = {f"{slot}/{field}" for slot in self._made_slots() for field in ONE_HOT}
        entries = {} if self.slots.hard else self._entry_fields(source)
        for name in self.dtype.names or ():
            kind, start = self.dtype.fields[name][:2]  # type: ignore[index]
            if name in made:
                continue
            if name in entries:
                field, superclasses = entries[name]
                size = kind.itemsize // len(superclasses)
                for place, k in enumerate(superclasses):
                    found.append((start + place * size, size, k, self._class_starts(source, field)))
                continue
            slot, _, field = name.partition("/")
            own = not self.common_pose and slot == COMMON and f"{self.slots.slots[0]}/{field}" in (source.names or ())
            if own:
                found.append((start, kind.itemsize, self.n_superclasses, self._class_starts(source, field)))
            elif name in (source.names or ()):
                found.append((start, kind.itemsize, -1, (_start_of(source, name),) * n_places))
        merged: list[tuple[int, int, int, tuple[int, ...]]] = []
        for piece in sorted(found):
            if merged:
                start, size, selector, starts = merged[-1]
                follows = tuple(place + size for place in starts) == piece[3]
                if follows and piece[0] == start + size and piece[2] == selector:
                    merged[-1] = (start, size + piece[1], selector, starts)
                    continue
            merged.append(piece)
        return (
            np.array([piece[2] for piece in merged], np.int64),
            np.array([piece[3] for piece in merged], np.int64).reshape(len(merged), n_places),
            np.array([piece[0] for piece in merged], np.int64),
            np.array([piece[1] for piece in merged], np.int64),
        )

    def _made_slots(self) -> list[str]:
        return [COMMON, *([] if self.slots.hard else [self._slot_of(k) for k in range(self.n_superclasses)])]

    def _entry_fields(self, source: np.dtype) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Fields of the superclasses' slots: the field of a class they come from, and which superclasses they hold."""
        everyone = tuple(range(self.n_superclasses))
        of_slot = {self._slot_of(k): (k,) for k in everyone}
        result: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name in self.dtype.names or ():
            slot, _, field = name.partition("/")
            if slot in of_slot and f"{self.slots.slots[0]}/{field}" in (source.names or ()):
                per_class = self.slots.multi and _has_class_axis(self.dtype, field)
                result[name] = (field, everyone if per_class else of_slot[slot])
        return result

    def _class_starts(self, source: np.dtype, field: str) -> tuple[int, ...]:
        """Where a field of each class begins in a record of the input."""
        if not self.slots.multi:
            return tuple(_start_of(source, f"{slot}/{field}") for slot in self.slots.slots)
        name = f"{MULTI}/{field}"
        start, n_classes = _start_of(source, name), len(self.slots.class_ids)
        step = source[name].itemsize // n_classes if _has_class_axis(source, field) else 0
        return tuple(start + step * index for index in range(n_classes))

    def _move(
        self, result: np.ndarray, within: np.ndarray, chosen: np.ndarray, superclass: np.ndarray, plan: RegroupPlan
    ) -> None:
        """Move the poses of records along with the class that each comes from."""
        names = self.dtype.names or ()
        if self.common_pose:
            _move_slot(result, COMMON, chosen, plan)
        if self.slots.hard:
            return
        if self.slots.multi:
            _move_slot(result, MULTI, within, plan)
        else:
            for k in range(self.n_superclasses):
                _move_slot(result, self._slot_of(k), within[:, k], plan)
        if self.common_pose:
            return
        for field in ("pose", "shift"):
            if f"{COMMON}/{field}" not in names or f"{self._slot_of(0)}/{field}" not in names:
                continue
            if self.slots.multi:
                result[f"{COMMON}/{field}"] = result[f"{MULTI}/{field}"][np.arange(len(result)), superclass]
                continue
            for k in range(self.n_superclasses):
                rows = np.flatnonzero(superclass == k)
                result[f"{COMMON}/{field}"][rows] = result[f"{self._slot_of(k)}/{field}"][rows]

    def _fill_one_hot(self, result: np.ndarray, superclass: np.ndarray) -> None:
        """Say in which superclass the particles are."""
        names = self.dtype.names or ()
        values: dict[str, Any] = {f"{COMMON}/class": superclass}
        values |= {f"{COMMON}/{field}": 1 for field in ("class_posterior", "class_ess")}
        number = np.arange(self.n_superclasses)
        if self.slots.multi:
            values[f"{MULTI}/class"] = number
            values[f"{MULTI}/class_posterior"] = superclass[:, None] == number
            values[f"{MULTI}/class_ess"] = 1
        elif not self.slots.hard:
            for k in number.tolist():
                values[f"{self._slot_of(k)}/class"] = k
                values[f"{self._slot_of(k)}/class_posterior"] = superclass == k
                values[f"{self._slot_of(k)}/class_ess"] = 1
        for name, value in values.items():
            if name in names:
                result[name] = value


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


def _start_of(dtype: np.dtype, name: str) -> int:
    return int(dtype.fields[name][1])  # type: ignore[index]


def _move_slot(records: np.ndarray, slot: str, class_index: np.ndarray, plan: RegroupPlan) -> None:
    """Move the poses of a slot along with class ``class_index`` int[n] or int[n, m]; others keep their bits."""
    names = records.dtype.names or ()
    if f"{slot}/pose" not in names or plan.move_poses is None:
        return
    moves = plan.moves(class_index)
    if not moves.any():
        return
    place = np.nonzero(moves)
    pose, shift = records[f"{slot}/pose"][place], records[f"{slot}/shift"][place]
    known = np.isfinite(pose).all(axis=-1) & np.isfinite(shift).all(axis=-1)
    if not known.all():
        place = tuple(axis[known] for axis in place)
        pose, shift = pose[known], shift[known]
    pixel = records[f"{slot}/psize_A"]
    pixel = pixel[place[: pixel.ndim]].astype(np.float64)
    wrong = ~(np.isfinite(pixel) & (pixel > 0))
    if wrong.any():
        raise InputError(
            f"{len(np.unique(place[0][wrong]))} particles have a pixel size (alignments psize_A) of "
            f"{pixel[wrong][0]}, so that their shift cannot be moved; run with --keep-poses"
        )
    rotation, moved_shift = plan.move_poses(
        matrices_of_vectors(pose),
        shift.astype(np.float64) * pixel[:, None],
        *plan.class_pose_arrays(class_index[place]),
    )
    records[f"{slot}/pose"][place] = vectors_of_matrices(rotation)
    records[f"{slot}/shift"][place] = moved_shift / pixel[:, None]
