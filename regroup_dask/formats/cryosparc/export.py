"""Particles of any origin as CryoSPARC ``.cs`` files with their groups.

Fields, their order and types are those of CryoSPARC's own files of imported particles: blob, ctf, location,
alignments3D, and alignments3D_multi with one-hot posteriors over the superclasses, which Heterogeneous Reconstruction
Only reads. A particle has one pose, so that all entries of alignments3D_multi have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.aberrations import anisomag_of_magnification, tilt_angstrom_of_mrad
from regroup_dask.formats.cryosparc.record_file import RecordFile, create_record_file, record_header
from regroup_dask.formats.cryosparc.result_group import ResultSlot, write_result_group
from regroup_dask.formats.export_folder import parts_of_export
from regroup_dask.formats.export_plan import ExportPlan, FragmentPlace, image_boxes
from regroup_dask.formats.particle_facts import OPTICS, ParticleFacts
from regroup_dask.formats.rotations import vectors_of_matrices
from regroup_dask.formats.store_parts import JoinedFile, write_part

MATCHED = (
    *("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "alpha", "alpha_min", "weight"),
    *("pose_ess", "shift_ess"),
)
"""Fields of an alignment that only the job that made it knows; 0, and 1 for the scale alpha."""


@dataclass(frozen=True)
class RecordExport:
    """``.cs`` files to be written: regrouped, one for each superclass, remaining; picklable.

    Attributes
    ----------
    folder : str
    n_superclasses : int
    plan : ExportPlan
    extent_angstrom : float or None
        Width of the maps.
    micrograph_size : (int, int) or None
        Width and height of the micrographs in pixels, where the particles do not say them.
    flip_y : bool
        Count places in y from the other edge of the micrograph than RELION.
    files : mapping of str to RecordFile
        Made by `create`.
    """

    folder: str
    n_superclasses: int
    plan: ExportPlan
    extent_angstrom: float | None
    micrograph_size: tuple[int, int] | None = None
    flip_y: bool = True
    files: Mapping[str, RecordFile] = field(default_factory=dict)

    @property
    def has_places(self) -> bool:
        """Whether places on the micrographs can be told."""
        return bool(self.plan.micrograph_bytes and self.plan.has_coordinates and self.micrograph_size is not None)

    @property
    def dtype(self) -> np.dtype:
        """Record of one particle."""
        k = self.n_superclasses
        blob: list[tuple[Any, ...]] = [("path", f"S{max(self.plan.path_bytes, 1)}"), ("idx", "<u4"), ("shape", "<u4", (2,))]
        blob += [("psize_A", "<f4"), ("sign", "<f4"), ("import_sig", "<u8")]
        ctf: list[tuple[Any, ...]] = [("type", "S9"), ("exp_group_id", "<u4")]
        ctf += [(name, "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad")]
        ctf += [(name, "<f4") for name in ("phase_shift_rad", "scale", "scale_const")]
        ctf += [("shift_A", "<f4", (2,)), ("tilt_A", "<f4", (2,)), ("trefoil_A", "<f4", (2,)), ("tetra_A", "<f4", (4,))]
        ctf += [("anisomag", "<f4", (4,)), ("bfactor", "<f4")]
        location: list[tuple[Any, ...]] = [("micrograph_uid", "<u8"), ("exp_group_id", "<u4")]
        location += [("micrograph_path", f"S{max(self.plan.micrograph_bytes, 1)}"), ("micrograph_shape", "<u4", (2,))]
        location += [("center_x_frac", "<f4"), ("center_y_frac", "<f4")]
        if not self.has_places:
            location = location[:3]
        one: list[tuple[Any, ...]] = [("split", "<u4"), ("shift", "<f4", (2,)), ("pose", "<f4", (3,)), ("psize_A", "<f4")]
        one += [*((name, "<f4") for name in (*MATCHED, "class_posterior")), ("class", "<u4"), ("class_ess", "<f4")]
        multi: list[tuple[Any, ...]] = [("split", "<u4"), ("shift", "<f4", (k, 2)), ("pose", "<f4", (k, 3)), ("psize_A", "<f4")]
        multi += [(name, "<f4", (k,)) for name in (*MATCHED, "class_posterior")]
        multi += [("class", "<u4", (k,)), ("class_ess", "<f4", (k,))]
        slots = {"blob": blob, "ctf": ctf if self.plan.has_ctf else [], "location": location}
        slots |= {"alignments3D": one, "alignments3D_multi": multi}
        if not self.plan.micrograph_bytes:
            del slots["location"]
        fields = [(f"{slot}/{name}", *kind) for slot, of_slot in slots.items() for name, *kind in of_slot]
        return np.dtype([("uid", "<u8"), *fields])

    def create(self, counts: np.ndarray) -> RecordExport:
        """Lay out the files; ``counts`` i64[K + 1] are their rows, the last of the remaining ones."""
        sizes = {"regrouped_particles": int(counts[:-1].sum())}
        sizes |= {f"particles_superclass_{number}": int(counts[number]) for number in range(self.n_superclasses)}
        sizes["remaining_particles"] = int(counts[-1])
        files = {
            name: create_record_file(f"{self.folder}/{name}.cs", self.dtype, size) for name, size in sizes.items()
        }
        return replace(self, files=files)

    def write_fragment(self, facts: ParticleFacts, superclass: np.ndarray, place: FragmentPlace) -> None:
        """Write the rows of one fragment to their places, or to a part of a store; may run again."""
        records = self.records(facts, superclass)
        before = [int(place.counts_before[:-1].sum()), *place.counts_before.tolist()]
        groups = [superclass >= 0, *(superclass == number for number in range(self.n_superclasses)), superclass < 0]
        if storage.is_remote(self.folder):
            texts = [records[inside].view(np.uint8) for inside in groups]
            write_part(parts_of_export(self.folder), place.fragment, [texts], len(groups))
            return
        for file, first, inside in zip(self.files.values(), before, groups, strict=True):
            file.write(first, records[inside])

    def files_to_join(self, n_fragments: int) -> list[JoinedFile]:
        """Files that are put together from parts, in an object store."""
        if not storage.is_remote(self.folder):
            return []
        parts, files = parts_of_export(self.folder), self.files.values()
        return [
            JoinedFile(file.path, parts, n_fragments, section, len(files), record_header(file.dtype, file.n_rows), b"")
            for section, file in enumerate(files)
        ]

    def records(self, facts: ParticleFacts, superclass: np.ndarray) -> np.ndarray:
        """Fill records; a particle without a pose has the pose zero."""
        dtype = self.dtype
        records = np.zeros(len(superclass), dtype)
        group = self.plan.group_of_rows(facts.optics)
        optics = dict(zip(OPTICS, self.plan.optics[group].T, strict=True))
        pixel = optics["pixel_angstrom"]
        records["uid"] = facts.uid
        records["blob/path"] = _bytes_of(facts.image_path)
        records["blob/idx"] = facts.image_index
        records["blob/shape"] = np.nan_to_num(image_boxes(self.plan.optics, self.extent_angstrom))[group][:, None]
        records["blob/psize_A"] = pixel
        records["blob/sign"] = 1
        exposure_group = np.maximum(np.nan_to_num(optics["group"], nan=1) - 1, 0)
        if self.plan.has_ctf:
            records["ctf/exp_group_id"] = exposure_group
            self._fill_ctf(records, facts.ctf, optics)
        if self.plan.micrograph_bytes:
            names = facts.micrograph.dictionary_encode()
            uids = np.array([_uid_of(name) for name in names.dictionary.to_pylist()], np.uint64)
            records["location/micrograph_uid"] = uids[names.indices.to_numpy(zero_copy_only=False)]
            records["location/exp_group_id"] = exposure_group
            records["location/micrograph_path"] = _bytes_of(facts.micrograph)
        if self.has_places and self.micrograph_size is not None:
            size = np.array(self.micrograph_size, np.float64)
            place = np.nan_to_num(facts.coordinate_pixel) / size
            records["location/micrograph_shape"] = self.micrograph_size[::-1]
            records["location/center_x_frac"] = place[:, 0]
            records["location/center_y_frac"] = 1 - place[:, 1] if self.flip_y else place[:, 1]
        self._fill_poses(records, facts, superclass, pixel)
        return records

    def _fill_ctf(self, records: np.ndarray, ctf: np.ndarray, optics: dict[str, np.ndarray]) -> None:
        records["ctf/type"] = b"imported"
        for name, fact in (("accel_kv", "voltage_kv"), ("cs_mm", "cs_mm"), ("amp_contrast", "amplitude_contrast")):
            records[f"ctf/{name}"] = np.nan_to_num(optics[fact])
        known = np.nan_to_num(ctf)
        records["ctf/df1_A"], records["ctf/df2_A"] = known[:, 0], known[:, 1]
        records["ctf/df_angle_rad"], records["ctf/phase_shift_rad"] = np.radians(known[:, 2]), np.radians(known[:, 3])
        records["ctf/bfactor"], records["ctf/scale"] = known[:, 4], np.nan_to_num(ctf[:, 5], nan=1)
        tilt = np.column_stack([optics["beam_tilt_x_mrad"], optics["beam_tilt_y_mrad"]])
        records["ctf/tilt_A"] = np.nan_to_num(tilt_angstrom_of_mrad(tilt, optics["cs_mm"]))
        magnification = np.column_stack([optics[name] for name in OPTICS if name.startswith("magnification")])
        records["ctf/anisomag"] = np.nan_to_num(anisomag_of_magnification(magnification))

    def _fill_poses(self, records: np.ndarray, facts: ParticleFacts, superclass: np.ndarray, pixel: np.ndarray) -> None:
        pose = np.nan_to_num(vectors_of_matrices(facts.rotation))
        shift = np.nan_to_num(facts.shift_angstrom[:, :2] / pixel[:, None])
        split = np.maximum(facts.half, 0)
        number = np.arange(self.n_superclasses)
        for slot in ("alignments3D", "alignments3D_multi"):
            multi = slot.endswith("multi")
            records[f"{slot}/split"], records[f"{slot}/psize_A"] = split, pixel
            records[f"{slot}/pose"] = pose[:, None] if multi else pose
            records[f"{slot}/shift"] = shift[:, None] if multi else shift
            records[f"{slot}/alpha"] = records[f"{slot}/alpha_min"] = 1
            records[f"{slot}/class"] = number if multi else np.maximum(superclass, 0)
            records[f"{slot}/class_posterior"] = superclass[:, None] == number if multi else superclass >= 0
            records[f"{slot}/class_ess"] = 1

    def finish(self) -> tuple[Path, ...]:
        """Write a group for each file; returns all files."""
        written = []
        prefixes = list(dict.fromkeys(name.split("/")[0] for name in self.dtype.names or () if "/" in name))
        for name, file in self.files.items():
            slots = {prefix: ResultSlot(f"{name}.cs", file.n_rows, f"particle.{prefix}") for prefix in prefixes}
            group, title = storage.location(f"{self.folder}/{name}.csg"), name.replace("_", " ").capitalize()
            write_result_group(str(group), name=name, title=title, description="", type="particle", slots=slots)
            written += [storage.location(file.path), group]
        return tuple(written)


def check_record_export(plan: ExportPlan) -> None:
    """Refuse particles that CryoSPARC has no place for.

    Raises
    ------
    InputError
        They are subtomograms.
    """
    if plan.n_axes == 3:
        raise InputError("The particles are subtomograms, and CryoSPARC takes images only: export them to relion.")


def _bytes_of(texts: pa.Array) -> list[bytes]:
    return pc.cast(texts, pa.binary()).to_pylist()


def _uid_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
