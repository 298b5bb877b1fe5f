"""``regroup-dask compare``: what changed between two runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from regroup_dask.cli.options import storage_options
from regroup_dask.cli.teaching import TeachingCommand
from regroup_dask.formats import storage

if TYPE_CHECKING:
    from rich.console import Console

    from regroup_dask.run_comparison import Match, RunComparison

MOST_LISTED = 20


@click.command(
    "compare",
    cls=TeachingCommand,
    examples=(
        ("regroup-dask compare J42_regrouped J42_regrouped_6", "what another number of superclasses changed"),
        ("regroup-dask compare J42_regrouped J57_regrouped --json", "two jobs, for programs"),
    ),
    short_help="What changed between two runs.",
)
@click.argument("first", metavar="OUT1", type=click.Path())
@click.argument("second", metavar="OUT2", type=click.Path())
@click.option("--maps/--no-maps", default=True, show_default=True, help="Compare the superclass maps too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@storage_options
def command(first: str, second: str, maps: bool, as_json: bool) -> None:
    """Say what changed between the runs in OUT1 and OUT2.

    Superclasses are matched by what they share, not by their numbers: by particles (uid, image name, or row of the same
    files) where both runs have them, else by class maps of the same content. The exit code is 0 whether they differ or
    not, and 2 where nothing can be compared.
    """
    from regroup_dask.run_comparison import compare_runs

    found = compare_runs(storage.location(first), storage.location(second), maps=maps)
    if as_json:
        click.echo(json.dumps(as_plain(found), indent=1))
        return
    from rich.console import Console

    show_comparison(Console(), found, first, second)


def as_plain(found: RunComparison) -> dict[str, Any]:
    """Return a comparison as JSON knows it."""
    overlap = found.particles
    return {
        "same_grouping": found.same_grouping,
        "settings": {name: {"first": one, "second": two} for name, one, two in found.settings},
        "same_inputs": found.inputs,
        "n_superclasses": list(found.n_superclasses),
        "n_shared_classes": len(found.class_ids),
        "class_agreement": found.class_agreement,
        "moved_classes": [
            {"class_id": class_id, "first": one, "second": two} for class_id, one, two in found.moved_classes
        ],
        "particle_agreement": found.particle_agreement,
        "particles": None
        if overlap is None
        else {
            "key": overlap.key,
            "counts": overlap.counts.tolist(),
            "only_first": overlap.only_first,
            "only_second": overlap.only_second,
            "repeated": overlap.repeated,
        },
        "superclasses": [_plain_match(match) for match in found.matches],
        "similarity_change": [
            {"class_i": one, "class_j": two, "change": change} for one, two, change in found.similarity_change[:MOST_LISTED]
        ],
    }


def _plain_match(match: Match) -> dict[str, Any]:
    plain: dict[str, Any] = {"first": match.first, "second": match.second, "shared": match.shared, "overlap": match.overlap}
    if match.maps is not None:
        plain["map_correlation"] = match.maps.correlation
        plain["map_resolution_angstrom"] = match.maps.resolution_angstrom
        plain["map_rotation_degrees"] = match.maps.rotation_degrees
        plain["map_fsc"] = [round(float(value), 6) for value in match.maps.fsc]
    return plain


def show_comparison(console: Console, found: RunComparison, first: str, second: str) -> None:
    """Show a comparison to a person, the conclusion first."""
    from rich.table import Table

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(_conclusion(found))
    say(f"  1: {first}, {found.n_superclasses[0]} superclasses")
    say(f"  2: {second}, {found.n_superclasses[1]} superclasses")
    for line in _input_lines(found):
        say(line)
    if found.settings:
        table = Table(title="Settings that differ", title_justify="left")
        for name in ("setting", "1", "2"):
            table.add_column(name)
        for name, one, two in found.settings:
            table.add_row(name, _words(one), _words(two))
        console.print(table)
    shared = "particles" if found.particles is not None else "classes"
    table = Table(title=f"Superclasses, matched by the {shared} that they share", title_justify="left")
    for name in ("1", "2", f"shared {shared}", "overlap", "map correlation", "FSC 0.5 at"):
        table.add_column(name, justify="right")
    for match in found.matches:
        table.add_row(*_match_cells(match))
    console.print(table)
    if found.moved_classes:
        say("Classes that did not go with their superclass:")
        for class_id, one, two in found.moved_classes[:MOST_LISTED]:
            say(f"  class {class_id}: {_place(one)} of 1 → {_place(two)} of 2")
        if len(found.moved_classes) > MOST_LISTED:
            say(f"  and {len(found.moved_classes) - MOST_LISTED} more (--json has all)")
    if found.similarity_change:
        one, two, change = found.similarity_change[0]
        say(f"Similarity changed most between classes {one} and {two}: by {change:+.3f}.")


def _conclusion(found: RunComparison) -> str:
    parts = []
    if found.class_agreement is not None:
        parts.append(f"{len(found.class_ids)} classes in both, adjusted Rand index {found.class_agreement:.3f}")
    overlap = found.particles
    if overlap is not None and found.particle_agreement is not None:
        together = int(overlap.counts.sum())
        stayed = sum(int(overlap.counts[match.first, match.second]) for match in found.matches if None not in match[:2])
        stayed += int(overlap.counts[-1, -1])
        parts.append(
            f"{together:,} particles in both (by {overlap.key}), adjusted Rand index {found.particle_agreement:.3f}, "
            f"{together - stayed:,} elsewhere than before ({(together - stayed) / together:.1%})"
        )
    start = "The grouping is the same" if found.same_grouping else "The grouping differs"
    return f"{start}: {'; '.join(parts)}." if parts else f"{start}."


def _input_lines(found: RunComparison) -> list[str]:
    lines = []
    names = {"volumes": "class maps", "particles": "particle files"}
    for name, same in found.inputs.items():
        if same is not None:
            lines.append(f"  The {names[name]} are {'the same' if same else 'others'}, by content.")
    overlap = found.particles
    if overlap is not None:
        for number, count in (("1", overlap.only_first), ("2", overlap.only_second)):
            if count:
                lines.append(f"  {count:,} particles are in {number} only.")
        left = int(overlap.counts[:-1, -1].sum()), int(overlap.counts[-1, :-1].sum())
        if any(left):
            lines.append(f"  {left[0]:,} particles went from a superclass to remaining, {left[1]:,} the other way.")
        if overlap.repeated:
            lines.append(f"  {overlap.repeated:,} rows repeat a particle and are not counted.")
    return lines


def _match_cells(match: Match) -> list[str]:
    cells = ["-" if number is None else str(number) for number in (match.first, match.second)]
    if match.first is None or match.second is None:
        return [*cells, "", "", "", ""]
    cells += [f"{match.shared:,}", f"{match.overlap:.1%}"]
    if match.maps is None:
        return [*cells, "", ""]
    return [*cells, f"{match.maps.correlation:.4f}", f"{match.maps.resolution_angstrom:.1f} Å"]


def _place(superclass: int) -> str:
    return "left out" if superclass < 0 else f"superclass {superclass}"


def _words(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(str(part) for part in value) or "-" if isinstance(value, list | tuple) else str(value)
