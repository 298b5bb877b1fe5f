"""Superclasses as a person tells them: edits applied to a grouping, with frames and poses from the pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from regroup_dask import grouping, superclass_frames
from regroup_dask.errors import InputError
from regroup_dask.hand_edits import NEW, REMAINING, Edits, Split, ToldGroups


def tell_groups(
    edits: Edits,
    classes: Sequence[Mapping[str, Any]],
    pairs: xr.Dataset,
    *,
    similarity: str = "structure",
    seed: int = 0,
) -> ToldGroups:
    """Apply edits to a grouping.

    Parameters
    ----------
    edits
        What to change.
    classes
        Rows of classes.parquet: ``class_id``, ``superclass``, ``status``, ``stability``, ``note``.
    pairs
        The pairs of the classes, by which a superclass is split.
    similarity, seed
        As for `grouping.group_pairs`.

    Raises
    ------
    InputError
        A class or superclass does not exist, two edits contradict each other, or nothing is left to group.
    """
    rows = {int(row["class_id"]): row for row in classes}
    before = {class_id: int(row["superclass"]) for class_id, row in rows.items() if row["superclass"] >= 0}
    numbers = sorted(set(before.values()))
    _check(edits, rows, numbers)
    labels: dict[int, Any] = dict(before)
    done: dict[int, list[str]] = {}
    moved = [move for move in edits.moves if before[move.class_id] != move.superclass]
    for move in moved:
        if move.superclass == REMAINING:
            del labels[move.class_id]
            continue
        labels[move.class_id] = (NEW, move.class_id) if move.superclass == NEW else move.superclass
        done.setdefault(move.class_id, []).append(f"moved by hand from superclass {before[move.class_id]}")
    touched = {before[move.class_id] for move in moved} | {move.superclass for move in moved}
    stability = {class_id: rows[class_id].get("stability") for class_id in labels}
    for split in edits.splits:
        members = sorted(class_id for class_id, label in labels.items() if label == split.superclass)
        pieces, sure = _split(split, members, pairs, similarity=similarity, seed=seed)
        for class_id, piece, share in zip(members, pieces, sure, strict=True):
            labels[class_id], stability[class_id] = (split.superclass, int(piece)), float(share)
            done.setdefault(class_id, []).append(f"superclass {split.superclass} split by hand")
    for merge in edits.merges:
        words = " and ".join(str(number) for number in merge.superclasses)
        for class_id, label in labels.items():
            if label in merge.superclasses:
                labels[class_id] = merge.superclasses[0]
                done.setdefault(class_id, []).append(f"superclasses {words} merged by hand")
        touched.update(merge.superclasses)
    for class_id, label in labels.items():
        if label in touched or (isinstance(label, tuple) and label[0] == NEW):
            stability[class_id] = None
    order = {label: number for number, label in enumerate(dict.fromkeys(labels[class_id] for class_id in sorted(labels)))}
    notes = {class_id: [rows[class_id].get("note") or "", *done.get(class_id, ())] for class_id in labels}
    told = ToldGroups(
        superclass_of_class={class_id: order[labels[class_id]] for class_id in sorted(labels)},
        before=before,
        stability={class_id: float("nan") if value is None else float(value) for class_id, value in stability.items()},
        notes={class_id: "; ".join(part for part in parts if part) for class_id, parts in notes.items()},
        removed=tuple(sorted(set(before) - set(labels))),
        edits=edits.lines(),
    )
    _check_rest(told)
    return told


def group_as_told(
    pairs: xr.Dataset,
    told: ToldGroups,
    *,
    n_particles: np.ndarray | None,
    similarity: str = "structure",
    frame: str = "superclass",
    curves: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Put the classes into the superclasses that a person said, with frames and poses from the pairs.

    Parameters
    ----------
    pairs
        Pairs of exactly the classes that take part, each superclass joined by pairs that were compared.
    told
        From `tell_groups`.
    n_particles
        Particles of each class, int (N,), or None.
    similarity, frame
        As for `grouping.group_pairs`.
    curves
        What an earlier grouping said of every number of superclasses; kept for the report.

    Returns
    -------
    xarray.Dataset
        As of `grouping.group_pairs`; ``stability`` is NaN where nothing measured it.
    """
    class_ids = pairs["class_i"].values
    sizes = np.ones(len(class_ids), np.int64) if n_particles is None else np.asarray(n_particles, np.int64)
    labels = np.array([told.superclass_of_class[int(class_id)] for class_id in class_ids], np.int64)
    labels = grouping.superclass_order(labels, sizes)[labels]
    references = grouping.reference_classes(labels, sizes)
    rotation, shift, mirrored = superclass_frames.superclass_poses(pairs, labels, sizes, references, frame=frame)
    measure = pairs["correlation" if similarity == "correlation" else "similarity"].values
    stability = np.array([told.stability[int(class_id)] for class_id in class_ids])
    data = {
        "superclass": ("class_id", labels),
        "rotation_quaternion": (("class_id", "quaternion"), rotation),
        "shift_angstrom": (("class_id", "axis"), shift, {"units": "angstrom"}),
        "mirrored": ("class_id", mirrored),
        "opposite_hand": ("class_id", superclass_frames.opposite_hands(pairs, sizes)),
        "similarity_to_superclass": ("class_id", grouping.similarity_to_superclass(measure, labels)),
        "stability": ("class_id", stability),
        "junk": ("class_id", np.zeros(len(labels), bool)),
        "note": ("class_id", np.array([told.notes[int(class_id)] for class_id in class_ids], dtype=str)),
        "reference_class": ("superclass_id", class_ids[references]),
        "superclass_stability": ("superclass_id", np.array([stability[labels == one].mean() for one in range(len(references))])),
    }
    coords = grouping.coordinates_of_groups(pairs, len(references), None if n_particles is None else sizes)
    return xr.Dataset(data, coords=coords, attrs={**(curves or {}), "n_superclasses": len(references)})


def _split(
    split: Split, members: list[int], pairs: xr.Dataset, *, similarity: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parts and their stability of the members of one superclass."""
    if split.parts > len(members):
        few = "1 class" if len(members) == 1 else f"{len(members)} classes"
        raise InputError(
            f"Superclass {split.superclass} has {few} ({', '.join(map(str, members)) or 'none are left'}): it cannot be "
            f"split into {split.parts}."
        )
    if split.parts == len(members):
        return np.arange(len(members)), np.full(len(members), np.nan)
    part = pairs.sel(class_i=members, class_j=members)
    found = grouping.group_pairs(part, split.parts, similarity=similarity, seed=seed)
    return found["superclass"].values, found["stability"].values


def _check(edits: Edits, rows: Mapping[int, Mapping[str, Any]], numbers: list[int]) -> None:
    for move in edits.moves:
        if move.class_id not in rows:
            raise InputError(f"{move}: there is no class {move.class_id}; the classes are {_listed(sorted(rows))}.")
        if rows[move.class_id]["superclass"] < 0:
            status = str(rows[move.class_id]["status"]).replace("_", " ")
            raise InputError(
                f"{move}: class {move.class_id} took no part in that run ({status}), so it was compared with no other: run "
                "anew with it."
            )
        if move.superclass not in (NEW, REMAINING):
            _known(move.superclass, numbers, str(move))
    _once([move.class_id for move in edits.moves], "class", "moved")
    for split in edits.splits:
        _known(split.superclass, numbers, str(split))
        if split.parts < 2:
            raise InputError(f"{split}: a superclass is split into 2 or more.")
    _once([split.superclass for split in edits.splits], "superclass", "split")
    for merge in edits.merges:
        for number in merge.superclasses:
            _known(number, numbers, str(merge))
        if len(set(merge.superclasses)) < 2:
            raise InputError(f"{merge}: give two or more superclasses to merge, as in --merge 0,3.")
    merged = [number for merge in edits.merges for number in set(merge.superclasses)]
    _once(merged, "superclass", "merged")
    both = sorted(set(merged) & {split.superclass for split in edits.splits})
    if both:
        raise InputError(f"Superclass {both[0]} is both split and merged: choose one, or do one after the other.")


def _known(superclass: Any, numbers: list[int], edit: str) -> None:
    if superclass not in numbers:
        raise InputError(f"{edit}: there is no superclass {superclass}; the superclasses are {_listed(numbers)}.")


def _once(values: list[int], what: str, done: str) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise InputError(f"The {what} {repeated[0]} is {done} twice: say once what shall become of it.")


def _check_rest(told: ToldGroups) -> None:
    n_classes, count = len(told.superclass_of_class), told.n_superclasses
    if n_classes < 2:
        raise InputError(f"These edits leave {n_classes} class{'' if n_classes == 1 else 'es'}: at least 2 are needed.")
    if count >= n_classes:
        raise InputError(
            f"These edits leave {count} superclasses of {n_classes} classes, each on its own: nothing would be grouped."
        )
    if not told.removed and _partition(told.before) == _partition(told.superclass_of_class):
        raise InputError("These edits change nothing: every class keeps its company.")


def _partition(labels: Mapping[int, int]) -> set[frozenset[int]]:
    return {frozenset(key for key, value in labels.items() if value == label) for label in set(labels.values())}


def _listed(numbers: list[int]) -> str:
    if len(numbers) > 3 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(str(number) for number in numbers)
