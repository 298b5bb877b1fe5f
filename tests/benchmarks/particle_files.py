"""Large particle files for benchmarks: twelve classes as .cs, star and parquet, of any number of rows.

A block of random rows is made once and repeated, with new identifiers, until the file has its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation

N_CLASSES = 12
BLOCK_ROWS = 2**18
PIXEL_ANGSTROM = 1.25
BOX = 256
SLOT = [
    *(("split", "<u4"), ("shift", "<f4", (2,)), ("pose", "<f4", (3,)), ("psize_A", "<f4"), ("error", "<f4")),
    *(("error_min", "<f4"), ("resid_pow", "<f4"), ("slice_pow", "<f4"), ("image_pow", "<f4"), ("cross_cor", "<f4")),
    *(("alpha", "<f4"), ("alpha_min", "<f4"), ("weight", "<f4"), ("pose_ess", "<f4"), ("shift_ess", "<f4")),
    *(("class_posterior", "<f4"), ("class", "<u4"), ("class_ess", "<f4")),
]
CRYOSPARC = np.dtype(
    [
        *(("uid", "<u8"), ("blob/path", "S64"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,))),
        *(("blob/psize_A", "<f4"), ("blob/sign", "<f4"), ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4")),
        *(("ctf/df_angle_rad", "<f4"), ("ctf/cs_mm", "<f4"), ("ctf/accel_kv", "<f4"), ("ctf/amp_contrast", "<f4")),
        *((f"alignments3D/{field[0]}", *field[1:]) for field in SLOT),
        *(
            (f"alignments_class3D_{k}/{name}", kind)
            for k in range(N_CLASSES)
            for name, kind in (("class", "<u4"), ("class_posterior", "<f4"))
        ),
    ]
)
STAR_HEADER = """\
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnImageSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
           1 opticsGroup1     1.250000          256   300.000000     2.700000     0.100000


# version 30001

data_particles

loop_
"""
STAR_LABELS = (
    *("rlnCoordinateX", "rlnCoordinateY", "rlnImageName", "rlnMicrographName", "rlnOpticsGroup"),
    *("rlnCtfMaxResolution", "rlnCtfFigureOfMerit", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
    *("rlnGroupNumber", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"),
    *("rlnClassNumber", "rlnNormCorrection", "rlnLogLikeliContribution", "rlnMaxValueProbDistribution"),
    *("rlnNrOfSignificantSamples", "rlnRandomSubset"),
)


class Rows:
    """Random particles of one block."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self.rotation = Rotation.random(n, rng=rng)
        self.shift_angstrom = rng.normal(0, 5, (n, 2))
        logits = 3 * rng.normal(size=(n, N_CLASSES)) + np.linspace(1, 0, N_CLASSES)
        exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.posterior = (exponential / exponential.sum(axis=1, keepdims=True)).astype(np.float32)
        self.defocus = rng.uniform(8000, 25000, (n, 2))
        self.coordinate = rng.uniform(0, 4000, (n, 2))
        self.micrograph = np.sort(rng.integers(0, n // 400 + 1, n))
        self.random = rng


def write_particles(kind: str, path: Path, n_rows: int) -> Path:
    """Write a file of ``kind`` cs, star or parquet."""
    {"cs": _write_cryosparc, "star": _write_star, "parquet": _write_parquet}[kind](path, n_rows)
    return path


def _blocks(n_rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n_rows, BLOCK_ROWS):
        yield first, min(BLOCK_ROWS, n_rows - first)


def _uids(first: int, n: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return (np.arange(first, first + n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0xD1342543DE82EF95)


def _write_cryosparc(path: Path, n_rows: int) -> None:
    rows = Rows(min(n_rows, BLOCK_ROWS))
    records = np.zeros(rows.n, CRYOSPARC)
    for name in records.dtype.names or ():
        kind = records.dtype[name]
        if kind.base.kind == "f":
            records[name] = rows.random.normal(size=(rows.n, *kind.shape)).astype(np.float32)
    records["blob/path"] = [f"J42/extract/{m:021d}_micrograph_particles.mrc".encode() for m in rows.micrograph]
    records["blob/idx"] = np.arange(rows.n) % 400
    records["blob/shape"] = BOX
    records["blob/psize_A"] = records["alignments3D/psize_A"] = PIXEL_ANGSTROM
    records["ctf/df1_A"], records["ctf/df2_A"] = rows.defocus.T
    records["ctf/cs_mm"], records["ctf/accel_kv"], records["ctf/amp_contrast"] = 2.7, 300, 0.1
    records["alignments3D/pose"] = rows.rotation.as_rotvec()
    records["alignments3D/shift"] = rows.shift_angstrom / PIXEL_ANGSTROM
    records["alignments3D/split"] = np.arange(rows.n) % 2
    for k in range(N_CLASSES):
        records[f"alignments_class3D_{k}/class"] = k
        records[f"alignments_class3D_{k}/class_posterior"] = rows.posterior[:, k]
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_2_0(
            stream, {"descr": records.dtype.descr, "fortran_order": False, "shape": (n_rows,)}
        )
        for first, n in _blocks(n_rows):
            records["uid"][:n] = _uids(first, n)
            records[:n].tofile(stream)


def _write_star(path: Path, n_rows: int) -> None:
    rows = Rows(min(n_rows, BLOCK_ROWS))
    angles = rows.rotation.as_euler("ZYZ", degrees=True)
    columns = [
        *rows.coordinate.T,
        [f"{i % 400 + 1:06d}@Extract/job017/movies/{m:06d}_micrograph.mrcs" for i, m in enumerate(rows.micrograph)],
        [f"MotionCorr/job002/movies/{m:06d}_micrograph.mrc" for m in rows.micrograph],
        np.ones(rows.n, int),
        rows.random.uniform(3, 5, rows.n),
        rows.random.uniform(0, 0.2, rows.n),
        *rows.defocus.T,
        rows.random.uniform(-90, 90, rows.n),
        rows.micrograph + 1,
        *angles.T,
        *rows.shift_angstrom.T,
        rows.posterior.argmax(axis=1) + 1,
        rows.random.uniform(0.5, 1, rows.n),
        rows.random.uniform(1e5, 2e5, rows.n),
        rows.random.uniform(0, 1, rows.n),
        rows.random.integers(1, 50, rows.n),
        np.arange(rows.n) % 2 + 1,
    ]
    line = " ".join(
        "%s" if isinstance(column, list) else "%12d" if np.asarray(column).dtype.kind == "i" else "%12.6f"
        for column in columns
    )
    lists = [column if isinstance(column, list) else np.asarray(column).tolist() for column in columns]
    lines = [line % row + " \n" for row in zip(*lists, strict=True)]
    whole = "".join(lines).encode()
    with open(path, "wb") as stream:
        stream.write(STAR_HEADER.encode())
        stream.write("".join(f"_{label} #{i}\n" for i, label in enumerate(STAR_LABELS, 1)).encode())
        for _, n in _blocks(n_rows):
            stream.write(whole if n == rows.n else "".join(lines[:n]).encode())


def _write_parquet(path: Path, n_rows: int) -> None:
    rows = Rows(min(n_rows, BLOCK_ROWS))

    def vectors(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])

    table = pa.table(
        {
            "uid": pa.array(_uids(0, rows.n)),
            "class_posterior": vectors(rows.posterior),
            "rotation_quaternion": vectors(rows.rotation.as_quat(canonical=True)),
            "shift_angstrom": vectors(rows.shift_angstrom),
            "image": [f"{i % 400 + 1:06d}@{m:06d}_micrograph.mrcs" for i, m in enumerate(rows.micrograph)],
            "defocus_angstrom": vectors(rows.defocus),
            "coordinate_pixel": vectors(rows.coordinate),
        }
    )
    with pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1) as writer:
        for first, n in _blocks(n_rows):
            block = table.slice(0, n).set_column(0, "uid", pa.array(_uids(first, n)))
            writer.write_table(block, row_group_size=2**17)
