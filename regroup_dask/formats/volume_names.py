"""Class ids and names as the names of map files tell them, and which files of a folder are no class maps."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from regroup_dask.formats import storage

MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".mrc.gz", ".map.gz", ".mrc.bz2", ".map.bz2", ".ccp4.gz")

# CryoSPARC counts from 0 and writes class_06 or class_6; RELION counts from 1 and writes class007.
_CRYOSPARC_CLASS = re.compile(r"class_(\d+)(?=_|$)", re.IGNORECASE)
_RELION_CLASS = re.compile(r"class(\d{3})(?!\d)", re.IGNORECASE)
_NO_CLASS_MAP = re.compile(
    r"(_sharp|_half_?[ab12]|(^|_)half[12]_|(^|_)mask(_|$)|_precision|_fsc)", re.IGNORECASE
)


def stem_of(path: str | Path) -> str:
    """File name without its map suffix, `.gz` and the like included."""
    name = os.path.basename(os.fspath(path).rstrip("/"))
    for suffix in sorted(MAP_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return os.path.splitext(name)[0]


def natural_key(path: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which `map_2` comes before `map_10`."""
    parts = re.split(r"(\d+)", path)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)


def class_maps_among(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split files into class maps and the sharpened maps, half maps and masks that lie beside them.

    Where every file is of the second kind they are what was meant, and all are class maps.
    """
    left_out = [path for path in paths if _NO_CLASS_MAP.search(stem_of(path))]
    if len(left_out) == len(paths):
        return list(paths), []
    return [path for path in paths if path not in set(left_out)], left_out


def class_ids_in_names(paths: Sequence[str]) -> tuple[int, ...] | None:
    """Zero-based class ids where every file name carries one, in one style and no two alike; else None."""
    stems = [stem_of(path) for path in paths]
    for pattern, first in ((_CRYOSPARC_CLASS, 0), (_RELION_CLASS, 1)):
        found = [pattern.findall(stem) for stem in stems]
        if all(len(numbers) == 1 for numbers in found):
            class_ids = tuple(int(numbers[0]) - first for numbers in found)
            if min(class_ids) >= 0 and len(set(class_ids)) == len(class_ids):
                return class_ids
    return None


def unique_names(paths: Sequence[str]) -> tuple[str, ...]:
    """A name for each file: its stem, with the folder before it where stems repeat."""
    stems = [stem_of(path) for path in paths]
    repeated = {stem for stem, count in Counter(stems).items() if count > 1}
    return tuple(
        f"{os.path.basename(os.path.dirname(path))}/{stem}" if stem in repeated else stem
        for path, stem in zip(paths, stems, strict=True)
    )


def half_maps_beside(path: str) -> tuple[str, str] | None:
    """Paths of the half maps that lie beside a CryoSPARC class map, or None."""
    stem = stem_of(path)
    suffix = os.path.basename(path)[len(stem) :]
    folder = os.path.dirname(path)
    halves = [os.path.join(folder, f"{stem}_half_{half}{suffix}") for half in "AB"]
    return (halves[0], halves[1]) if all(storage.is_file(half) for half in halves) else None
