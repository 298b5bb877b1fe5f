"""The files of a CryoSPARC 3D Classification, Heterogeneous Refinement or Ab-Initio job."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.job import Job
from regroup_dask.formats.volume_names import stem_of

FINAL = 10**9

# J10, P1_J10, cryosparc_P1_J10, gP25W6J1497
_PREFIX = re.compile(r"^(?:cryosparc_)?(?:[A-Za-z]*P\d+)?_?(?:W\d+)?_?J(?P<job>\d+)_")
_PARTICLES = re.compile(r"^(?:.*_)?particles(?:_all_classes|_class_\d+)?(?:\.csdat)?\.cs$")
_VOLUME = re.compile(r"^.*_volume(?:_map)?(?P<half>_half_[AB])?\.mrc(?:\.gz)?$")
_CLASS = re.compile(r"(?:^|_)class_(\d+)(?=[_.])")
_ITERATION = re.compile(r"(?:^|_)(\d{3,}|final)(?=_)")


class _File(NamedTuple):
    name: str
    iteration: int
    class_id: int | None


def recognise_cryosparc_job(folder: str, file_names: Sequence[str]) -> Job | None:
    """Recognise a CryoSPARC classification, or return None where there is no sign of one.

    Parameters
    ----------
    folder : str
    file_names : sequence of str
        The folder's files, sorted.

    Raises
    ------
    InputError
        A class without a map, maps without particles, or a job with nothing to regroup.
    """
    file_names = [name for name in file_names if _PREFIX.match(name)]
    particles = _without_copies([_parse(name) for name in file_names if _is_particles(name)])
    passthrough = _without_copies([_parse(name) for name in file_names if "passthrough_particles" in name])
    maps = [_parse(name) for name in file_names if (match := _VOLUME.match(name)) and not match["half"]]
    maps = [one for one in maps if one.class_id is not None]
    if not maps or not (particles or passthrough):
        return None
    if not particles:
        raise InputError(
            f"{folder} has class maps and no *_particles.cs with class posteriors; give --particles and "
            "--volumes instead."
        )
    iteration = _newest_in_both(maps, particles)
    map_iteration = iteration if iteration is not None else max(one.iteration for one in maps)
    particle_iteration = iteration if iteration is not None else max(one.iteration for one in particles)
    volumes = {
        one.class_id: one.name for one in maps if one.iteration == map_iteration and one.class_id is not None
    }
    tables = _all_classes_or_each([one for one in particles if one.iteration == particle_iteration])
    _check_classes(folder, volumes, [*maps, *tables])
    extras = _all_classes_or_each(passthrough)
    masks = [name for name in file_names if re.search(r"_mask.*\.mrc$", name)]
    job_type = _job_type(folder)
    paths = {class_id: os.path.join(folder, name) for class_id, name in sorted(volumes.items())}
    lines = [
        f"CryoSPARC job {job_type or _job_number(file_names)} in {folder}, {_text(map_iteration)}",
        f"particles: {', '.join(one.name for one in tables)}",
        f"passthrough: {', '.join(one.name for one in extras) or 'none'}",
        f"class maps: {len(paths)}, {volumes[0]} (class id 0) to {volumes[max(volumes)]}",
    ]
    if particle_iteration != map_iteration:
        lines.append(f"the particles are of {_text(particle_iteration)}, the maps of {_text(map_iteration)}")
    if masks:
        lines.append(f"a mask lies there, which is used only if given with --mask: {', '.join(masks)}")
    return Job(
        kind="cryosparc",
        folder=folder,
        iteration=None if map_iteration in (FINAL, -1) else map_iteration,
        particle_files=tuple(os.path.join(folder, one.name) for one in tables),
        passthrough_files=tuple(os.path.join(folder, one.name) for one in extras),
        volume_files=paths,
        half_map_files=_half_maps(folder, paths, file_names),
        class_names={class_id: stem_of(path) for class_id, path in paths.items()},
        mask=os.path.join(folder, masks[0]) if len(masks) == 1 else None,
        job_type=job_type,
        lines=tuple(lines),
    )


def _is_particles(name: str) -> bool:
    return "passthrough" not in name and bool(_PARTICLES.match(name))


def _parse(name: str) -> _File:
    rest = _PREFIX.sub("", name, count=1)
    class_match = _CLASS.search(rest)
    without_class = _CLASS.sub("", rest)
    iteration_match = _ITERATION.search(without_class)
    iteration = -1
    if iteration_match:
        iteration = FINAL if iteration_match[1] == "final" else int(iteration_match[1])
    return _File(name, iteration, int(class_match[1]) if class_match else None)


def _without_copies(files: Sequence[_File]) -> list[_File]:
    """Leave out the copy of a table in the other encoding (`x.csdat.cs` beside `x.cs`)."""
    plain = {one.name for one in files}
    return [
        one
        for one in files
        if not one.name.endswith(".csdat.cs") or one.name[: -len(".csdat.cs")] + ".cs" not in plain
    ]


def _newest_in_both(maps: Sequence[_File], particles: Sequence[_File]) -> int | None:
    both = {one.iteration for one in maps} & {one.iteration for one in particles}
    return max(both) if both else None


def _all_classes_or_each(files: Sequence[_File]) -> list[_File]:
    """Choose the newest table of all classes, else the newest tables of each class."""
    whole = [one for one in files if one.class_id is None]
    if whole:
        # an explicit "all_classes" says more than a bare name of the same iteration
        return [max(whole, key=lambda one: (one.iteration, "all_classes" in one.name, one.name))]
    by_class: dict[int, list[_File]] = defaultdict(list)
    for one in files:
        if one.class_id is not None:
            by_class[one.class_id].append(one)
    return [max(by_class[class_id], key=lambda one: one.iteration) for class_id in sorted(by_class)]


def _check_classes(folder: str, volumes: dict[int, str], files: Sequence[_File]) -> None:
    """Refuse a class that some file speaks of, of any iteration, and that has no map in the one taken."""
    named = {one.class_id for one in files if one.class_id is not None}
    n_classes = max([*volumes, *named]) + 1
    for class_id in range(n_classes):
        if class_id not in volumes:
            raise InputError(
                f"class {class_id} of {n_classes} in {folder} has no map of that iteration "
                f"(*_class_{class_id:02d}_*_volume.mrc); "
                "copy the class maps into the folder."
            )
    if n_classes < 2:
        raise InputError(f"{folder} has one class; there is nothing to regroup with fewer than two.")


def _half_maps(folder: str, paths: dict[int, str], file_names: Sequence[str]) -> dict[int, tuple[str, str]]:
    found = {}
    for class_id, path in paths.items():
        stem = stem_of(path)
        suffix = os.path.basename(path)[len(stem) :]
        halves = [f"{stem}_half_{half}{suffix}" for half in "AB"]
        if all(half in file_names for half in halves):
            found[class_id] = (os.path.join(folder, halves[0]), os.path.join(folder, halves[1]))
    return found


def _job_type(folder: str) -> str | None:
    try:
        described = json.loads(storage.read_bytes(os.path.join(folder, "job.json")))
    except (OSError, ValueError):
        return None
    kind = described.get("job_type") or described.get("type") if isinstance(described, dict) else None
    return str(kind) if kind else None


def _job_number(file_names: Sequence[str]) -> str:
    match = _PREFIX.match(file_names[0])
    return f"J{match['job']}" if match else ""


def _text(iteration: int) -> str:
    if iteration == FINAL:
        return "final iteration"
    return "no iteration in its file names" if iteration == -1 else f"iteration {iteration}"
