"""How the values of ``group`` are read: several numbers of superclasses, and changes by hand."""

from __future__ import annotations

import re
from typing import Any

import click

from regroup_dask.hand_edits import NEW, REMAINING, Merge, Move, Split

MOST_COUNTS = 50


class SuperclassCounts(click.ParamType):
    """One or several numbers of superclasses: ``6``, ``auto``, ``2-8``, ``3,5,8``."""

    name = "K|K-K|auto"

    def convert(self, value: Any, parameter: Any, context: Any) -> tuple[int | str, ...]:
        """Read the value."""
        if isinstance(value, tuple):
            return value
        counts: list[int | str] = []
        for part in str(value).replace(" ", "").split(","):
            match = re.fullmatch(r"(\d+)(?:(?:-|\.\.)(\d+))?", part)
            if part == "auto":
                counts.append("auto")
            elif match is None:
                self.fail(
                    f"{value!r} is neither a number of superclasses, nor several such as 2-8 or 3,5, nor auto.",
                    parameter,
                    context,
                )
            else:
                first, last = int(match[1]), int(match[2] or match[1])
                if last < first:
                    self.fail(f"{part!r} goes down: write {last}-{first}.", parameter, context)
                if last - first >= MOST_COUNTS:
                    self.fail(f"{part!r} is more than {MOST_COUNTS} numbers of superclasses.", parameter, context)
                counts.extend(range(first, last + 1))
        return tuple(dict.fromkeys(counts))


class MergeValue(click.ParamType):
    """Superclasses to make one of: ``0,3``."""

    name = "S,S"

    def convert(self, value: Any, parameter: Any, context: Any) -> Merge:
        """Read the value."""
        if isinstance(value, Merge):
            return value
        parts = str(value).replace(" ", "").split(",")
        if not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is no list of superclasses such as 0,3.", parameter, context)
        return Merge(tuple(dict.fromkeys(int(part) for part in parts)))


class SplitValue(click.ParamType):
    """A superclass to split into two, or into as many as it says: ``2``, ``2=3``."""

    name = "S[=PARTS]"

    def convert(self, value: Any, parameter: Any, context: Any) -> Split:
        """Read the value."""
        if isinstance(value, Split):
            return value
        match = re.fullmatch(r"(\d+)(?:=(\d+))?", str(value).replace(" ", ""))
        if match is None:
            self.fail(f"{value!r} is no superclass such as 2, or 2=3 for three parts.", parameter, context)
        return Split(int(match[1]), int(match[2] or 2))


class MoveValue(click.ParamType):
    """A class and the superclass where it belongs: ``class=5:superclass=1``."""

    name = "class=C:superclass=S"

    def convert(self, value: Any, parameter: Any, context: Any) -> Move:
        """Read the value."""
        if isinstance(value, Move):
            return value
        match = re.fullmatch(rf"class=(\d+):superclass=(\d+|{NEW}|{REMAINING})", str(value).replace(" ", ""))
        if match is None:
            self.fail(
                f"{value!r} is not of the form class=5:superclass=1; the superclass may also be {NEW} or {REMAINING}.",
                parameter,
                context,
            )
        target: Any = int(match[2]) if match[2].isdecimal() else match[2]
        return Move(int(match[1]), target)
