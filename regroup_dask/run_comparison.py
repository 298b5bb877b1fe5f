"""What changed between two runs: settings, inputs, classes, particles, superclass maps and similarities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.fingerprint import OF_STAMPS
from regroup_dask.formats.particle_overlap import ParticleOverlap, particle_overlap
from regroup_dask.matched_maps import MapAgreement, compare_superclass_maps
from regroup_dask.report.output_contents import OutputContents, read_output
from regroup_dask.science.rotations import Pose, compose_pose, invert_pose, quaternion_to_matrix


class Match(NamedTuple):
    """A superclass of the first run and the one of the second that it has most in common with.

    Attributes
    ----------
    first, second
        Their numbers; None where the other run has none left for it.
    shared
        Particles, or classes where particles cannot be compared, in both.
    overlap
        Jaccard index: shared over those in either.
    maps
        How alike their maps are; None where a map is missing or there is no match.
    """

    first: int | None
    second: int | None
    shared: int
    overlap: float
    maps: MapAgreement | None


class RunComparison(NamedTuple):
    """Two runs side by side.

    Attributes
    ----------
    settings
        Name, value in the first and value in the second, of settings that differ.
    inputs
        Whether the two read the same ``volumes`` and ``particles``, by content; None where one had none.
    n_superclasses
        Of both.
    class_ids
        Pairs of class ids of the maps that both had, by content.
    class_agreement, particle_agreement
        Adjusted Rand index over shared classes and over shared particles that both put into a superclass; None where
        there are none.
    moved_classes
        Class id in the first run, superclasses in the first and the second (-1: none), of classes that did not go with
        their match.
    particles
        Counts of particles by superclass in both runs, or None.
    matches
        Superclasses of the first run in order, then those of the second that nothing matches.
    similarity_change
        Class ids of the first run and the change of their similarity, the largest first; empty where not comparable.
    """

    settings: tuple[tuple[str, Any, Any], ...]
    inputs: dict[str, bool | None]
    n_superclasses: tuple[int, int]
    class_ids: tuple[tuple[int, int], ...]
    class_agreement: float | None
    particle_agreement: float | None
    moved_classes: tuple[tuple[int, int, int], ...]
    particles: ParticleOverlap | None
    matches: tuple[Match, ...]
    similarity_change: tuple[tuple[int, int, float], ...]

    @property
    def same_grouping(self) -> bool:
        """Whether everything that can be compared is grouped alike."""
        known = [value for value in (self.class_agreement, self.particle_agreement) if value is not None]
        unmatched = any(match.first is None or match.second is None for match in self.matches)
        return all(value > 1 - 1e-12 for value in known) and not unmatched and not self.moved_classes


def compare_runs(first: Path, second: Path, *, maps: bool = True) -> RunComparison:
    """Compare two output folders.

    Parameters
    ----------
    first, second
        Output folders of finished runs.
    maps
        Compare the superclass maps too.

    Raises
    ------
    InputError
        A folder is no output folder, or the two have neither class maps nor particles in common.
    """
    one, two = read_output(first), read_output(second)
    counts = len(one.superclasses), len(two.superclasses)
    class_ids = _shared_classes(one, two)
    inputs = {
        "volumes": _same(one, two, _volumes),
        "particles": _same(one, two, _particle_files),
    }
    particles = particle_overlap(
        first, second, n_first=counts[0], n_second=counts[1], same_rows=bool(inputs["particles"])
    )
    if particles is not None and not particles.counts.any():
        particles = None
    if particles is None and not class_ids:
        raise InputError(
            f"{first} and {second} cannot be compared: they have no class map in common (by content), and no "
            "particle (by uid or image name)."
        )
    labels = [{row["class_id"]: row["superclass"] for row in run.classes} for run in (one, two)]
    table = np.zeros((counts[0] + 1, counts[1] + 1), np.int64)
    for mine, other in class_ids:
        table[labels[0][mine], labels[1][other]] += 1
    both = table if particles is None else particles.counts
    pairs = match_superclasses(both[:-1, :-1])
    partner = dict(pairs)
    moved = tuple(
        (mine, labels[0][mine], labels[1][other])
        for mine, other in class_ids
        if labels[1][other] != partner.get(labels[0][mine], -1) and max(labels[0][mine], labels[1][other]) >= 0
    )
    return RunComparison(
        _changed_settings(one.record, two.record),
        inputs,
        counts,
        class_ids,
        adjusted_rand_index(table[:-1, :-1]) if table[:-1, :-1].any() else None,
        adjusted_rand_index(particles.counts[:-1, :-1]) if particles is not None and particles.counts[:-1, :-1].any() else None,
        moved,
        particles,
        _matches(one, two, both, pairs, class_ids, maps=maps),
        _similarity_change(one, two, class_ids),
    )


def match_superclasses(counts: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of superclasses that together share the most, each superclass in one pair at most (Kuhn 1955).

    Parameters
    ----------
    counts
        int (K1, K2): what two superclasses share.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-counts)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if counts[row, column] > 0]


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Agreement of two groupings from what their groups share; 1 for the same, about 0 by chance (Hubert & Arabie 1985)."""
    values = [[int(value) for value in row] for row in np.asarray(counts)]
    pairs = sum(value * (value - 1) // 2 for row in values for value in row)
    rows = sum(total * (total - 1) // 2 for total in map(sum, values))
    columns = sum(total * (total - 1) // 2 for total in map(sum, zip(*values, strict=True)))
    n = sum(map(sum, values))
    possible = n * (n - 1) // 2
    if possible == 0 or rows == columns == pairs:
        return 1.0
    expected = rows * columns / possible
    return float((pairs - expected) / ((rows + columns) / 2 - expected))


def _matches(
    one: OutputContents,
    two: OutputContents,
    counts: np.ndarray,
    pairs: list[tuple[int, int]],
    class_ids: tuple[tuple[int, int], ...],
    *,
    maps: bool,
) -> tuple[Match, ...]:
    partner = dict(pairs)
    found = []
    for row in one.superclasses:
        number = row["superclass"]
        other = partner.get(number)
        if other is None:
            found.append(Match(number, None, 0, 0.0, None))
            continue
        shared = int(counts[number, other])
        either = int(counts[number].sum() + counts[:, other].sum()) - shared
        agreement = None
        files = one.folder / row["volume"], two.folder / two.superclasses[other]["volume"]
        if maps and all(storage.is_file(path) for path in files):
            agreement = compare_superclass_maps(*files, _pose_between(one, two, number, other, class_ids))
        found.append(Match(number, other, shared, shared / either, agreement))
    matched = set(partner.values())
    found += [
        Match(None, row["superclass"], 0, 0.0, None) for row in two.superclasses if row["superclass"] not in matched
    ]
    return tuple(found)


def _pose_between(
    one: OutputContents, two: OutputContents, first: int, second: int, class_ids: tuple[tuple[int, int], ...]
) -> Pose | None:
    """From the frame of a superclass of the second run into that of one of the first, by the largest class in both."""
    rows = {row["class_id"]: row for row in one.classes}, {row["class_id"]: row for row in two.classes}
    shared = [
        (mine, other)
        for mine, other in class_ids
        if rows[0][mine]["superclass"] == first and rows[1][other]["superclass"] == second
    ]
    if not shared:
        return None
    mine, other = max(shared, key=lambda pair: (rows[0][pair[0]]["n_particles"] or 0, -pair[0]))
    return compose_pose(_pose(rows[0][mine]), invert_pose(_pose(rows[1][other])))


def _pose(row: dict[str, Any]) -> Pose:
    if row["rotation_quaternion"] == [0.0, 0.0, 0.0, 1.0]:
        rotation = np.eye(3)
    else:
        rotation = quaternion_to_matrix(np.array(row["rotation_quaternion"]))
    return Pose(rotation, np.array(row["shift_angstrom"], np.float64), bool(row["mirrored"]))


def _shared_classes(one: OutputContents, two: OutputContents) -> tuple[tuple[int, int], ...]:
    """Class ids of the maps that both runs had, told by the content of their files.

    A run that read from an object store knows only the store's own stamps of content: against one that read from disk,
    maps are told by the names and sizes of their files.
    """
    keys = [_content_keys(run) for run in (one, two)]
    if not _comparable(*keys):
        keys = [{path: (path.rpartition("/")[2], key[1]) for path, key in of_run.items()} for of_run in keys]
    known = [_class_keys(run, of_run) for run, of_run in zip((one, two), keys, strict=True)]
    return tuple((known[0][key], known[1][key]) for key in known[0] if key in known[1])


def _content_keys(run: OutputContents) -> dict[str, tuple[str, int]]:
    """What is known of the content of each input: a digest of it or of a store's stamps, and its size."""
    entries = run.record.get("fingerprints") or []
    return {entry["path"]: (entry.get("sha256") or OF_STAMPS + entry[OF_STAMPS], entry["bytes"]) for entry in entries}


def _comparable(first: dict[str, tuple[str, int]], second: dict[str, tuple[str, int]]) -> bool:
    kinds = {digest.startswith(OF_STAMPS) for of_run in (first, second) for digest, _ in of_run.values()}
    return len(kinds) < 2


def _class_keys(run: OutputContents, content: dict[str, tuple[str, int]]) -> dict[tuple[tuple[str, int], str, int], int]:
    seen: Counter[tuple[tuple[str, int], str]] = Counter()
    keys = {}
    for row in sorted(run.classes, key=lambda row: row["class_id"]):
        path, _, index = str(row["volume"]).partition("[")
        if path not in content:
            continue
        same = (content[path], index)
        keys[(*same, seen[same])] = row["class_id"]
        seen[same] += 1
    return keys


def _volumes(run: OutputContents) -> set[str]:
    return {str(row["volume"]).partition("[")[0] for row in run.classes}


def _particle_files(run: OutputContents) -> set[str]:
    given = run.record.get("inputs") or {}
    return {*(given.get("particles") or ()), *(given.get("passthrough") or ())}


def _same(one: OutputContents, two: OutputContents, files: Callable[[OutputContents], set[str]]) -> bool | None:
    """Whether some files of two runs have the same content; None where that cannot be told."""
    chosen = [{path: key for path, key in _content_keys(run).items() if path in files(run)} for run in (one, two)]
    if not all(chosen) or not _comparable(*chosen):
        return None
    return sorted(chosen[0].values()) == sorted(chosen[1].values())


def _changed_settings(first: dict[str, Any], second: dict[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    one, two = first.get("settings") or {}, second.get("settings") or {}
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    changed = [(name, one.get(name), two.get(name)) for name in names]
    edits = [[edit for step in record.get("by_hand") or [] for edit in step["edits"]] for record in (first, second)]
    if edits[0] != edits[1]:
        changed.append(("by_hand", edits[0] or None, edits[1] or None))
    versions = [(record.get("versions") or {}).get("regroup-dask") for record in (first, second)]
    if versions[0] != versions[1]:
        changed.append(("version", versions[0], versions[1]))
    return tuple(changed)


def _similarity_change(
    one: OutputContents, two: OutputContents, class_ids: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int, float], ...]:
    if one.pairs is None or two.pairs is None or len(class_ids) < 2:
        return ()
    known = [
        (mine, other)
        for mine, other in class_ids
        if mine in one.pairs["class_i"].values and other in two.pairs["class_i"].values
    ]
    mine, others = [pair[0] for pair in known], [pair[1] for pair in known]
    before = one.pairs["similarity"].sel(class_i=mine, class_j=mine).values
    after = two.pairs["similarity"].sel(class_i=others, class_j=others).values
    change = after - before
    rows, columns = np.triu_indices(len(known), 1)
    entries = [
        (mine[row], mine[column], float(change[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if np.isfinite(change[row, column]) and change[row, column] != 0
    ]
    return tuple(sorted(entries, key=lambda entry: (-abs(entry[2]), entry[0], entry[1])))
