"""What is known of particles, freed of the program it comes from: the step between CryoSPARC, RELION and cryoDRGN.

Conventions, as pyem and cs2star publish them, and FORMATS checks by projection: both programs' defocus is in angstrom
and positive; CryoSPARC's angles are radians; CryoSPARC counts images of a stack from 0 and RELION from 1, exposure and
optics groups and half-sets likewise; CryoSPARC's place on the micrograph is a fraction of its width and height, counted
in y from the other edge than RELION's pixels; its shapes are (rows, columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regroup_dask.errors import InputError
from regroup_dask.formats.aberrations import LEFT_OUT, magnification_of_anisomag, tilt_mrad_of_angstrom, zernike_is_zero
from regroup_dask.formats.own_poses import columns_of_own_poses, own_poses
from regroup_dask.formats.rotations import matrices_of_quaternions

QUATERNION, SHIFT, ROW = "superclass_rotation_quaternion", "superclass_shift_angstrom", "input_row"

SPLITS = ("alignments3D/split", "alignments3D_multi/split", "alignments_class_0/split", "alignments2D/split")

OPTICS = (
    *("group", "pixel_angstrom", "box", "voltage_kv", "cs_mm", "amplitude_contrast"),
    *("beam_tilt_x_mrad", "beam_tilt_y_mrad", "magnification_00", "magnification_01", "magnification_10", "magnification_11"),
)
"""Facts of an optics group, the number of the group from 1 first."""

RELION_OPTICS = (
    *("rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
    *("rlnBeamTiltX", "rlnBeamTiltY", "rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11"),
)
"""RELION's labels of `OPTICS`, but for the first."""

CRYOSPARC_COLUMNS = (
    *("blob/path", "blob/idx", "blob/shape", "blob/psize_A", "ctf/exp_group_id", "ctf/accel_kv", "ctf/cs_mm"),
    *("ctf/amp_contrast", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad", "ctf/tilt_A"),
    *("ctf/anisomag", "ctf/trefoil_A", "ctf/tetra_A", "ctf/bfactor", "ctf/scale", "location/micrograph_path"),
    *("location/micrograph_shape", "location/center_x_frac", "location/center_y_frac", *SPLITS, "uid"),
)
CTF_LABELS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor")
RELION_COLUMNS = (
    *("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup", *CTF_LABELS),
    *("rlnRandomSubset", "rlnDetectorPixelSize", "rlnMagnification", *RELION_OPTICS),
)


class ParticleFacts(NamedTuple):
    """Facts of n particles; NaN or empty text where something is not known."""

    uid: np.ndarray
    """u64[n]"""
    image_path: pa.Array
    image_index: np.ndarray
    """i64[n], from 0"""
    optics: np.ndarray
    """f64[n, 12], the columns of `OPTICS`"""
    ctf: np.ndarray
    """f64[n, 6]: two defoci in angstrom, their angle and the phase shift in degrees, B-factor, scale"""
    micrograph: pa.Array
    coordinate_pixel: np.ndarray
    """f64[n, 2], x and y from RELION's origin"""
    half: np.ndarray
    """i64[n], 0 or 1; -1 where particles are not split"""
    rotation: np.ndarray
    """f64[n, 3, 3], particle frame to volume; NaN where there is no pose"""
    shift_angstrom: np.ndarray
    """f64[n, 2 or 3], the image moves by +shift to centre it"""
    left_out: tuple[str, ...]
    """columns with values that are not converted"""


def columns_of_facts(names: Sequence[str], *, with_own_poses: bool) -> list[str]:
    """Name those of the columns of a table that `particle_facts` reads.

    ``with_own_poses`` adds those of the poses that remaining particles keep.
    """
    wanted = {*CRYOSPARC_COLUMNS, *RELION_COLUMNS, QUATERNION, SHIFT, ROW}
    wanted.update(columns_of_own_poses(names) if with_own_poses else ())
    return [name for name in names if name in wanted]


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


def poses_of_table(table: pa.Table, pixel_angstrom: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rotation f64[n, 3, 3] and shift f64[n, 2 or 3] in the superclass frame; NaN where there is no pose.

    With the pixel size of the images, particles of no superclass have the pose they came with.
    """
    n = table.num_rows
    if QUATERNION not in table.column_names:
        return np.full((n, 3, 3), np.nan), np.full((n, 2), np.nan)
    shift = _vectors(table, SHIFT, table.schema.field(SHIFT).type.list_size)
    rotation = matrices_of_quaternions(_vectors(table, QUATERNION, 4))
    missing = ~np.isfinite(rotation).all(axis=(1, 2))
    own = own_poses(table, pixel_angstrom, shift.shape[1]) if missing.any() and pixel_angstrom is not None else None
    if own is not None:
        rotation[missing], shift[missing] = own[0][missing], own[1][missing]
    return rotation, shift


def _from_cryosparc(table: pa.Table) -> ParticleFacts:
    group = _numbers(table, "ctf/exp_group_id") + 1
    box = _vectors(table, "blob/shape", 2)[:, 1]
    cs = _numbers(table, "ctf/cs_mm")
    shape = _vectors(table, "location/micrograph_shape", 2)
    x, y = (_numbers(table, f"location/center_{axis}_frac") for axis in "xy")
    angles = [np.degrees(_numbers(table, name)) for name in ("ctf/df_angle_rad", "ctf/phase_shift_rad")]
    pixel = _numbers(table, "blob/psize_A")
    rotation, shift = poses_of_table(table, pixel)
    tilt = tilt_mrad_of_angstrom(_vectors(table, "ctf/tilt_A", 2), cs)
    magnification = magnification_of_anisomag(_vectors(table, "ctf/anisomag", 4))
    optics = [group, pixel, box, _numbers(table, "ctf/accel_kv"), cs]
    return ParticleFacts(
        uid=table.column("uid").to_numpy().astype(np.uint64),
        image_path=_without_marks(table.column("blob/path")),
        image_index=_numbers(table, "blob/idx").astype(np.int64),
        optics=np.column_stack([*optics, _numbers(table, "ctf/amp_contrast"), tilt, magnification]),
        ctf=_ctf([_numbers(table, name) for name in ("ctf/df1_A", "ctf/df2_A")], angles,
                 [_numbers(table, name) for name in ("ctf/bfactor", "ctf/scale")]),
        micrograph=_without_marks(_texts(table, "location/micrograph_path")),
        coordinate_pixel=np.column_stack([x * shape[:, 1], (1 - y) * shape[:, 0]]),
        half=_half(next((name for name in SPLITS if name in table.column_names), ""), table, first=0),
        rotation=rotation,
        shift_angstrom=shift,
        left_out=tuple(
            name
            for name, length in (("ctf/trefoil_A", 2), ("ctf/tetra_A", 4))
            if np.nan_to_num(_vectors(table, name, length)).any()
        ),
    )


def _from_relion(table: pa.Table, optics_groups: Mapping[int, Mapping[str, str]]) -> ParticleFacts:
    n = table.num_rows
    index, path = _stack_and_index(table.column("rlnImageName"))
    numbers = np.nan_to_num(_numbers(table, "rlnOpticsGroup"), nan=1).astype(int)
    optics = np.full((n, len(OPTICS)), np.nan)
    optics[:, 0] = numbers
    for column, label in enumerate(RELION_OPTICS, 1):
        optics[:, column] = _numbers(table, label)
        for group, facts in optics_groups.items():
            if np.isfinite(value := _float(facts.get(label))):
                optics[numbers == group, column] = value
    if not np.isfinite(optics[:, 1]).any():
        # Before 3.1: the pixel of the detector in micrometre, and the magnification.
        optics[:, 1] = _numbers(table, "rlnDetectorPixelSize") * 1e4 / _numbers(table, "rlnMagnification")
    ctf = [_numbers(table, label) for label in CTF_LABELS]
    rotation, shift = poses_of_table(table, optics[:, 1])
    here = [facts for group, facts in optics_groups.items() if (numbers == group).any()]
    return ParticleFacts(
        uid=_mixed(table.column(ROW).to_numpy()),
        image_path=path,
        image_index=index,
        optics=optics,
        ctf=_ctf(ctf[:2], ctf[2:4], ctf[4:]),
        micrograph=_as_array(_texts(table, "rlnMicrographName").cast(pa.string())),
        coordinate_pixel=np.column_stack([_numbers(table, "rlnCoordinateX"), _numbers(table, "rlnCoordinateY")]),
        half=_half("rlnRandomSubset", table, first=1),
        rotation=rotation,
        shift_angstrom=shift,
        left_out=tuple(label for label in LEFT_OUT if not all(zernike_is_zero(facts.get(label)) for facts in here)),
    )


def _ctf(defocus: Sequence[np.ndarray], angles: Sequence[np.ndarray], scale: Sequence[np.ndarray]) -> np.ndarray:
    """Join the columns of the CTF; one defocus alone is that of all directions."""
    first, second = defocus
    return np.column_stack([first, np.where(np.isnan(second), first, second), *angles, *scale])


def _stack_and_index(names: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Take ``000012@stack.mrcs`` apart; a name without @ is a file of one image."""
    texts = _as_array(names.cast(pa.string()))
    found = pc.extract_regex(texts, r"^(?:(?P<index>[0-9]{1,9})@)?(?P<path>[^@].*)$")
    if found.null_count:
        wrong = texts[pc.index(found.is_null(), True).as_py()].as_py()
        raise InputError(f"rlnImageName {wrong!r} has no number before its @, or no file after it.")
    index = pc.if_else(pc.equal(found.field("index"), ""), "1", found.field("index")).cast(pa.int64())
    if pc.min(index).as_py() == 0:
        raise InputError("rlnImageName counts images from 1, and a particle has the image 0.")
    return index.to_numpy(zero_copy_only=False) - 1, found.field("path")


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
        if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != length:
            raise InputError(f"The column {name} holds {column.type}, where {length} numbers a row are expected.")
        valid = np.asarray(column.is_valid())
        result[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, length)
    return result


def _texts(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table.column(name) if name in table.column_names else pa.chunked_array([pa.array([""] * table.num_rows)])


def _as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def _without_marks(column: pa.ChunkedArray) -> pa.Array:
    """Take away CryoSPARC's > before paths that are relative to the file that names them."""
    texts = _as_array(column)
    if pa.types.is_binary(texts.type):
        texts = pa.array([text.decode("utf-8", "replace") for text in texts.to_pylist()], pa.string())
    return pc.replace_substring_regex(texts.cast(pa.string()), "^>", "")


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
