"""Particles of any origin as CryoSPARC ``.cs`` files with their groups."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from regroup_dask.formats.cryosparc.record_file import create_record_file
from regroup_dask.formats.cryosparc.result_group import ResultSlot, write_result_group
from regroup_dask.formats.particle_facts import ParticleFacts
from regroup_dask.formats.rotations import vectors_of_matrices


def record_dtype(path_bytes: int, micrograph_bytes: int) -> np.dtype:
    """Record of one particle: image, defocus, micrograph and pose."""
    ctf = ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad", "phase_shift_rad", "scale")
    fields = [
        *(("uid", "<u8"), ("blob/path", f"S{max(path_bytes, 1)}"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))),
        *(("blob/psize_A", "<f4"), ("blob/sign", "<f4"), ("ctf/type", "S9"), ("ctf/exp_group_id", "<u4")),
        *((f"ctf/{name}", "<f4") for name in ctf),
        ("location/micrograph_path", f"S{max(micrograph_bytes, 1)}"),
        *(("alignments3D/split", "<u4"), ("alignments3D/shift", "<f4", (2,))),
        *(("alignments3D/pose", "<f4", (3,)), ("alignments3D/psize_A", "<f4"), ("alignments3D/class", "<u4")),
        *(("alignments3D/class_posterior", "<f4"), ("alignments3D/class_ess", "<f4")),
    ]
    return np.dtype(fields)


def records_of(facts: ParticleFacts, superclass: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Fill records; a particle without a pose has the pose zero."""
    records = np.zeros(len(superclass), dtype)
    pixel, box, voltage, cs, contrast, group = facts.optics.T
    records["uid"] = facts.uid
    records["blob/path"] = [text.encode() for text in facts.image_path.to_pylist()]
    records["blob/idx"] = facts.image_index
    records["blob/shape"] = np.nan_to_num(box)[:, None]
    records["blob/psize_A"] = records["alignments3D/psize_A"] = pixel
    records["blob/sign"], records["ctf/type"], records["ctf/scale"] = 1, b"spherical", 1
    for name, values in (("accel_kv", voltage), ("cs_mm", cs), ("amp_contrast", contrast)):
        records[f"ctf/{name}"] = np.nan_to_num(values)
    records["ctf/exp_group_id"] = np.nan_to_num(group)
    records["ctf/df1_A"], records["ctf/df2_A"] = np.nan_to_num(facts.defocus_angstrom).T
    records["ctf/df_angle_rad"] = np.radians(np.nan_to_num(facts.defocus_angle_degrees))
    records["ctf/phase_shift_rad"] = np.radians(np.nan_to_num(facts.phase_shift_degrees))
    records["location/micrograph_path"] = [text.encode() for text in facts.micrograph.to_pylist()]
    records["alignments3D/split"] = np.maximum(facts.half, 0)
    records["alignments3D/pose"] = np.nan_to_num(vectors_of_matrices(facts.rotation))
    with np.errstate(invalid="ignore", divide="ignore"):
        records["alignments3D/shift"] = np.nan_to_num(facts.shift_angstrom[:, :2] / pixel[:, None])
    records["alignments3D/class"] = np.maximum(superclass, 0)
    records["alignments3D/class_posterior"] = records["alignments3D/class_ess"] = 1
    return records


def write_record_files(
    folder: Path, parts: Iterable[tuple[ParticleFacts, np.ndarray]], counts: np.ndarray, dtype: np.dtype
) -> tuple[Path, ...]:
    """Write regrouped_particles, particles_superclass_K and remaining_particles with a group for each.

    Parameters
    ----------
    folder : path
    parts : iterable of (ParticleFacts, i64[n])
        Rows in input order and the superclass of each, -1 for remaining.
    counts : i64[K + 1]
        Rows of each superclass, and of the remaining ones.
    dtype : numpy.dtype
        From `record_dtype`.
    """
    k = len(counts) - 1
    sizes = {"regrouped_particles": int(counts[:-1].sum())}
    sizes |= {f"particles_superclass_{number}": int(counts[number]) for number in range(k)}
    sizes["remaining_particles"] = int(counts[-1])
    files = {name: create_record_file(str(folder / f"{name}.cs"), dtype, size) for name, size in sizes.items()}
    place = dict.fromkeys(files, 0)
    for facts, superclass in parts:
        records = records_of(facts, superclass, dtype)
        pieces = {"regrouped_particles": records[superclass >= 0], "remaining_particles": records[superclass < 0]}
        pieces |= {f"particles_superclass_{number}": records[superclass == number] for number in range(k)}
        for name, piece in pieces.items():
            files[name].write(place[name], piece)
            place[name] += len(piece)
    written = []
    prefixes = list(dict.fromkeys(name.split("/")[0] for name in dtype.names or () if "/" in name))
    for name, file in files.items():
        slots = {prefix: ResultSlot(f"{name}.cs", file.n_rows, f"particle.{prefix}") for prefix in prefixes}
        group, title = folder / f"{name}.csg", name.replace("_", " ").capitalize()
        write_result_group(str(group), name=name, title=title, description="", type="particle", slots=slots)
        written += [Path(file.path), group]
    return tuple(written)
