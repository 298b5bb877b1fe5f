"""Changes by hand to a grouping: classes moved, superclasses split and merged by a person who knows better.

Numbers always mean the superclasses of the grouping that is changed. Moves come first, then splits of what the moves
left, then merges; so every edit says one thing whatever the order in which it was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

NEW, REMAINING = "new", "remaining"


class Move(NamedTuple):
    """One class to another superclass, to one of its own (``new``), or to no superclass (``remaining``)."""

    class_id: int
    superclass: int | Literal["new", "remaining"]

    def __str__(self) -> str:
        return f"--move class={self.class_id}:superclass={self.superclass}"


class Split(NamedTuple):
    """One superclass into several."""

    superclass: int
    parts: int = 2

    def __str__(self) -> str:
        return f"--split {self.superclass}={self.parts}"


class Merge(NamedTuple):
    """Several superclasses into one."""

    superclasses: tuple[int, ...]

    def __str__(self) -> str:
        return "--merge " + ",".join(str(number) for number in self.superclasses)


class Edits(NamedTuple):
    """Everything that a person changes at once."""

    moves: tuple[Move, ...] = ()
    splits: tuple[Split, ...] = ()
    merges: tuple[Merge, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.moves or self.splits or self.merges)

    def lines(self) -> tuple[str, ...]:
        """Every edit as it is typed, in the order in which they act."""
        return tuple(str(edit) for edit in (*self.moves, *self.splits, *self.merges))


class ToldGroups(NamedTuple):
    """A grouping that a person made of an earlier one.

    Attributes
    ----------
    superclass_of_class
        Provisional superclass of every class that takes part, by class id; they are renumbered by particles later.
    before
        The superclasses that the edits speak of, by class id.
    stability
        Of classes whose superclass was not touched, as it was; NaN for the others, which nothing measured.
    notes
        What was done with a class, and what was known of it before, by class id.
    removed
        Classes that go to remaining.
    edits
        As they are typed.
    """

    superclass_of_class: dict[int, int]
    before: dict[int, int]
    stability: dict[int, float]
    notes: dict[int, str]
    removed: tuple[int, ...]
    edits: tuple[str, ...]

    @property
    def n_superclasses(self) -> int:
        """Number of superclasses that the edits leave."""
        return len(set(self.superclass_of_class.values()))


def describe_mapping(before: Mapping[int, int], after: Mapping[int, int]) -> list[str]:
    """Say which new superclass every old one became, a line for each.

    Parameters
    ----------
    before, after
        Superclass of each class id; classes that `after` lacks went to remaining.
    """
    lines = []
    for superclass in sorted(set(before.values())):
        members = [class_id for class_id, label in before.items() if label == superclass]
        targets: dict[int, list[int]] = {}
        for class_id in sorted(members):
            targets.setdefault(after.get(class_id, -1), []).append(class_id)
        parts = [
            (REMAINING if target < 0 else str(target))
            + ("" if len(targets) == 1 else f" ({'class' if len(ids) == 1 else 'classes'} {', '.join(map(str, ids))})")
            for target, ids in sorted(targets.items(), key=lambda item: (-len(item[1]), item[0]))
        ]
        lines.append(f"superclass {superclass} → {' and '.join(parts)}")
    return lines
