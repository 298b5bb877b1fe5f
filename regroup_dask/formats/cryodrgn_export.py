"""Particles of any origin as cryoDRGN takes them: labels, indices of each superclass, poses and CTF parameters.

``labels.pkl``              i64[n], superclass of each row of the input; -1 for remaining
``ind_superclass_K.pkl``    i64[m], rows of superclass K, for ``--ind``
``poses.pkl``               f32[n, 3, 3] volume to image, and f32[n, 2] translation as a fraction of the box
``ctf.pkl``                 f32[n, 9]: box, pixel size, two defoci, angle, voltage, Cs, amplitude contrast, phase shift
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regroup_dask.formats import storage
from regroup_dask.formats.export_folder import parts_of_export
from regroup_dask.formats.export_plan import ExportPlan, FragmentPlace, image_boxes
from regroup_dask.formats.particle_facts import OPTICS, ParticleFacts
from regroup_dask.formats.pickled_arrays import ArrayFile, array_file, create_array_file, pickle_around
from regroup_dask.formats.store_parts import JoinedFile, write_part


@dataclass(frozen=True)
class ArrayExport:
    """Pickles to be written; picklable.

    Attributes
    ----------
    folder : str
    n_superclasses : int
    plan : ExportPlan or None
        None where the particles name no images: there is no CTF then.
    extent_angstrom : float or None
        Width of the images where `plan` does not say it: that of the maps.
    has_poses : bool
    files : mapping of str to ArrayFile
        Made by `create`.
    """

    folder: str
    n_superclasses: int
    plan: ExportPlan | None
    extent_angstrom: float | None
    has_poses: bool
    files: Mapping[str, ArrayFile] = field(default_factory=dict)

    def create(self, counts: np.ndarray) -> ArrayExport:
        """Lay out the files; ``counts`` i64[K + 1] are rows of each superclass, the last of the remaining ones."""
        n = int(counts.sum())
        arrays: dict[str, list[tuple[str, tuple[int, ...]]]] = {"labels": [("<i8", (n,))]}
        for number in range(self.n_superclasses):
            arrays[f"ind_superclass_{number}"] = [("<i8", (int(counts[number]),))]
        if self.has_poses:
            arrays["poses"] = [("<f4", (n, 3, 3)), ("<f4", (n, 2))]
        if self.plan is not None and self.plan.has_ctf:
            arrays["ctf"] = [("<f4", (n, 9))]
        make = array_file if storage.is_remote(self.folder) else create_array_file
        files = {name: make(f"{self.folder}/{name}.pkl", kinds) for name, kinds in arrays.items()}
        return ArrayExport(self.folder, self.n_superclasses, self.plan, self.extent_angstrom, self.has_poses, files)

    def write_fragment(
        self,
        facts: ParticleFacts | None,
        superclass: np.ndarray,
        place: FragmentPlace,
        *,
        poses: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Write the rows of one fragment to their places, or to a part of a store; may run again."""
        rows = self._rows(facts, superclass, place.first_row, poses)
        if storage.is_remote(self.folder):
            texts = [file.as_stored(array, rows[name][array]) for name, file in self.files.items() for array in file.arrays]
            write_part(parts_of_export(self.folder), place.fragment, [texts], len(texts))
            return
        for name, file in self.files.items():
            of_superclass = re.fullmatch(r"ind_superclass_(\d+)", name)
            first = place.first_row if of_superclass is None else int(place.counts_before[int(of_superclass[1])])
            for array in file.arrays:
                file.write(array, first, rows[name][array])

    def _rows(
        self,
        facts: ParticleFacts | None,
        superclass: np.ndarray,
        first_row: int,
        poses: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, tuple[np.ndarray, ...]]:
        """Rows of one fragment for each array of each file."""
        rows: dict[str, tuple[np.ndarray, ...]] = {"labels": (superclass,)}
        for number in range(self.n_superclasses):
            rows[f"ind_superclass_{number}"] = (first_row + np.flatnonzero(superclass == number),)
        optics = None
        if facts is not None and self.plan is not None:
            optics = self.plan.optics[self.plan.group_of_rows(facts.optics)]
            boxes = image_boxes(optics, self.extent_angstrom)
            pixel = optics[:, OPTICS.index("pixel_angstrom")]
        if "poses" in self.files:
            rotation, shift = poses
            extent = np.full(len(superclass), self.extent_angstrom) if optics is None else boxes * pixel
            known = np.isfinite(rotation).all(axis=(1, 2))
            rotation = np.where(known[:, None, None], rotation, np.eye(3)).transpose(0, 2, 1)
            rows["poses"] = (rotation, np.nan_to_num(shift[:, :2] / extent[:, None]))
        if "ctf" in self.files and facts is not None and optics is not None:
            named = dict(zip(OPTICS, optics.T, strict=True))
            lens = [named[name] for name in ("voltage_kv", "cs_mm", "amplitude_contrast")]
            columns = [boxes, pixel, *facts.ctf[:, :3].T, *lens, facts.ctf[:, 3]]
            rows["ctf"] = (np.nan_to_num(np.column_stack(columns)),)
        return rows

    def files_to_join(self, n_fragments: int) -> list[JoinedFile]:
        """Files that are put together from parts, in an object store."""
        if not storage.is_remote(self.folder):
            return []
        parts, n_sections, section = parts_of_export(self.folder), sum(len(file.dtypes) for file in self.files.values()), 0
        joined = []
        for file in self.files.values():
            heads, end = pickle_around(list(zip(file.dtypes, file.shapes, strict=True)))
            more = tuple((head, section + number) for number, head in enumerate(heads[1:], 1))
            joined.append(JoinedFile(file.path, parts, n_fragments, section, n_sections, heads[0], end, more))
            section += len(heads)
        return joined

    def finish(self) -> tuple[Path, ...]:
        """Return the files."""
        return tuple(storage.location(file.path) for file in self.files.values())
