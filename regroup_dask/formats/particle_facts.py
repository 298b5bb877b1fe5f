"""What is known of particles, freed of the program it comes from: the step between CryoSPARC and RELION.

Conventions, as pyem and cs2star publish them, and FORMATS checks by projection: both programs' defocus is in angstrom
and positive; CryoSPARC's angles are radians; CryoSPARC counts images of a stack from 0 and RELION from 1; CryoSPARC's
place on the micrograph is a fraction of its width and height, its shapes are (rows, columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from regroup_dask.errors import InputError
from regroup_dask.formats.rotations import matrices_of_quaternions

QUATERNION, SHIFT = "superclass_rotation_quaternion", "superclass_shift_angstrom"

SPLITS = ("alignments3D/split", "alignments3D_multi/split")

OPTICS = ("pixel_angstrom", "box", "voltage_kv", "cs_mm", "amplitude_contrast", "group")


class ParticleFacts(NamedTuple):
    """Facts of n particles; NaN, 0 or empty text where something is not known."""

    uid: np.ndarray
    """u64[n]"""
    image_path: pa.Array
    image_index: np.ndarray
    """i64[n], from 0"""
    optics: np.ndarray
    """f64[n, 6], the columns of `OPTICS`"""
    defocus_angstrom: np.ndarray
    """f64[n, 2]"""
    defocus_angle_degrees: np.ndarray
    phase_shift_degrees: np.ndarray
    micrograph: pa.Array
    coordinate_pixel: np.ndarray
    """f64[n, 2], x and y"""
    half: np.ndarray
    """i64[n], 0 or 1; -1 where particles are not split"""
    rotation: np.ndarray
    """f64[n, 3, 3], particle frame to volume; NaN where there is no pose"""
    shift_angstrom: np.ndarray
    """f64[n, 2 or 3], the image moves by +shift to centre it"""
    input_row: np.ndarray


def particle_facts(table: pa.Table, optics_groups: Mapping[int, Mapping[str, str]]) -> ParticleFacts:
    """Understand rows of an output folder, whatever they were read from.

    Parameters
    ----------
    table : pyarrow.Table
    optics_groups : mapping
        RELION's table of optics groups by number; empty for CryoSPARC.

    Raises
    ------
    InputError
        The rows name no images.
    """
    if "blob/path" in table.column_names:
        return _from_cryosparc(table)
    if "rlnImageName" in table.column_names:
        return _from_relion(table, optics_groups)
    raise InputError(
        "The particles name no images (neither blob/path nor rlnImageName), so that no other program could find them."
    )


def _from_cryosparc(table: pa.Table) -> ParticleFacts:
    n = table.num_rows
    box = _vectors(table, "blob/shape", 2)[:, 1]
    optics = [_numbers(table, name) for name in ("ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "ctf/exp_group_id")]
    shape = _vectors(table, "location/micrograph_shape", 2)
    fraction = [_numbers(table, f"location/center_{axis}_frac") for axis in "xy"]
    return ParticleFacts(
        uid=table.column("uid").to_numpy().astype(np.uint64),
        image_path=_without_marks(table.column("blob/path")),
        image_index=_numbers(table, "blob/idx").astype(np.int64),
        optics=np.column_stack([_numbers(table, "blob/psize_A"), box, *optics]),
        defocus_angstrom=np.column_stack([_numbers(table, "ctf/df1_A"), _numbers(table, "ctf/df2_A")]),
        defocus_angle_degrees=np.degrees(_numbers(table, "ctf/df_angle_rad")),
        phase_shift_degrees=np.degrees(_numbers(table, "ctf/phase_shift_rad")),
        micrograph=_without_marks(_texts(table, "location/micrograph_path")),
        coordinate_pixel=np.column_stack([fraction[0] * shape[:, 1], fraction[1] * shape[:, 0]]),
        half=_half(next((name for name in table.column_names if name in SPLITS), ""), table, first=0),
        **_poses(table, n),
    )


def _from_relion(table: pa.Table, optics_groups: Mapping[int, Mapping[str, str]]) -> ParticleFacts:
    n = table.num_rows
    names = table.column("rlnImageName").to_pylist()
    parts = [str(name).split("@", 1) if "@" in str(name) else ["1", str(name)] for name in names]
    if not all(part[0].isdecimal() for part in parts):
        wrong = next(part for part in parts if not part[0].isdecimal())
        raise InputError(f"rlnImageName {'@'.join(wrong)} has no number before its @.")
    group = np.nan_to_num(_numbers(table, "rlnOpticsGroup"), nan=1).astype(int)
    columns = []
    for label, optics_label in (
        ("rlnImagePixelSize", "rlnImagePixelSize"),
        ("rlnImageSize", "rlnImageSize"),
        ("rlnVoltage", "rlnVoltage"),
        ("rlnSphericalAberration", "rlnSphericalAberration"),
        ("rlnAmplitudeContrast", "rlnAmplitudeContrast"),
    ):
        by_group = {number: _float(facts.get(optics_label)) for number, facts in optics_groups.items()}
        values = np.array([by_group.get(number, np.nan) for number in group.tolist()])
        columns.append(np.where(np.isfinite(values), values, _numbers(table, label)))
    if not np.isfinite(columns[0]).any():
        columns[0] = _numbers(table, "rlnDetectorPixelSize") * 1e4 / _numbers(table, "rlnMagnification")
    return ParticleFacts(
        uid=_mixed(table.column("input_row").to_numpy()),
        image_path=pa.array([part[1] for part in parts]),
        image_index=np.array([int(part[0]) - 1 for part in parts]),
        optics=np.column_stack([*columns, group]),
        defocus_angstrom=np.column_stack([_numbers(table, "rlnDefocusU"), _numbers(table, "rlnDefocusV")]),
        defocus_angle_degrees=_numbers(table, "rlnDefocusAngle"),
        phase_shift_degrees=_numbers(table, "rlnPhaseShift"),
        micrograph=_texts(table, "rlnMicrographName"),
        coordinate_pixel=np.column_stack([_numbers(table, "rlnCoordinateX"), _numbers(table, "rlnCoordinateY")]),
        half=_half("rlnRandomSubset", table, first=1),
        **_poses(table, n),
    )


def _poses(table: pa.Table, n: int) -> dict[str, np.ndarray]:
    quaternion, shift = np.full((n, 4), np.nan), np.full((n, 2), np.nan)
    if QUATERNION in table.column_names:
        quaternion = _vectors(table, QUATERNION, 4)
        shift = _vectors(table, SHIFT, table.schema.field(SHIFT).type.list_size)
    return {
        "rotation": matrices_of_quaternions(quaternion),
        "shift_angstrom": shift,
        "input_row": table.column("input_row").to_numpy(),
    }


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"The column {name} holds {column.type}, where numbers are expected.")
    return column.to_numpy().astype(np.float64)


def _vectors(table: pa.Table, name: str, length: int) -> np.ndarray:
    result = np.full((table.num_rows, length), np.nan)
    if name in table.column_names:
        column = table.column(name).combine_chunks()
        valid = np.asarray(column.is_valid())
        result[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, length)
    return result


def _texts(table: pa.Table, name: str) -> pa.ChunkedArray | pa.Array:
    return table.column(name) if name in table.column_names else pa.array([""] * table.num_rows)


def _without_marks(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Take away CryoSPARC's > before paths that are relative to the file that names them."""
    texts = column.to_pylist()
    if pa.types.is_binary(column.type):
        texts = [text.decode("utf-8", "replace") for text in texts]
    return pa.array([text.removeprefix(">") for text in texts], pa.string())


def _half(name: str, table: pa.Table, *, first: int) -> np.ndarray:
    values = _numbers(table, name)
    return np.where(np.isfinite(values), np.nan_to_num(values) - first, -1).astype(np.int64)


def _float(text: str | None) -> float:
    try:
        return float(text) if text is not None else np.nan
    except ValueError:
        return np.nan


def _mixed(rows: np.ndarray) -> np.ndarray:
    """Identifiers that look like CryoSPARC's, different for every row (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        value = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
