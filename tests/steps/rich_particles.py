"""Particles that have every fact an export converts, as CryoSPARC and as RELION write them."""

import numpy as np

from regroup_dask.formats import parquet_particles
from regroup_dask.formats.particles import open_particles
from tests.formats.cryosparc.making import make_particles, save
from tests.formats.relion.regrouping import plan_for, random_pose, regroup, table_text

POSES = {1: random_pose(1), 2: random_pose(2, mirrored=True)}
LABELS = [0, 0, 1, -1]
MICROGRAPH = (5760, 4092)
PIXEL, BOX = 1.5, 64

CTF = [("ctf/type", "S9"), ("ctf/exp_group_id", "<u4")]
CTF += [(f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df2_A", "df_angle_rad", "phase_shift_rad")]
CTF += [("ctf/scale", "<f4"), ("ctf/tilt_A", "<f4", (2,)), ("ctf/trefoil_A", "<f4", (2,)), ("ctf/anisomag", "<f4", (4,))]
CTF += [("ctf/bfactor", "<f4")]
PLACE = [("location/micrograph_path", "S40"), ("location/micrograph_shape", "<u4", (2,))]
PLACE += [("location/center_x_frac", "<f4"), ("location/center_y_frac", "<f4")]

OPTICS_LABELS = (
    *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnVoltage"),
    *("rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY"),
    *("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11", "rlnOddZernike"),
)
STAR_LABELS = (
    *("rlnCoordinateX", "rlnCoordinateY", "rlnImageName", "rlnMicrographName", "rlnClassNumber"),
    *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnOpticsGroup"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnRandomSubset"),
)


def cryosparc_records(n=200, *, generation="multi", seed=3):
    """Records of n particles of four classes with three exposure groups."""
    random = np.random.default_rng(seed)
    records, _ = make_particles(n, 4, generation, random, extra=CTF + PLACE)
    records["blob/psize_A"], records["blob/shape"] = PIXEL, BOX
    records["blob/path"] = [f">J1/extract/p_{i % 3}.mrc".encode() for i in range(n)]
    records["blob/idx"] = np.arange(n)
    group = np.arange(n) % 3
    records["ctf/exp_group_id"], records["ctf/accel_kv"], records["ctf/cs_mm"] = 4 + group, 300, 2.7
    records["ctf/amp_contrast"], records["ctf/df1_A"], records["ctf/df2_A"] = 0.07, random.uniform(1e4, 2e4, (2, n)).max(0), 9e3
    records["ctf/df_angle_rad"], records["ctf/phase_shift_rad"] = random.uniform(-1.5, 1.5, n), random.uniform(0, 1, n)
    records["ctf/tilt_A"] = np.array([[0, 0], [2700, -5400], [100, 20]])[group]
    records["ctf/anisomag"] = np.array([[0, 0, 0, 0], [0.01, 0.002, -0.003, -0.004], [0, 0, 0, 0]])[group]
    records["ctf/trefoil_A"] = records["ctf/tetra_A"] = 0
    records["ctf/scale"] = random.uniform(0.8, 1.2, n)
    records["location/micrograph_path"] = [f"J2/motion/m_{i % 7}.mrc".encode() for i in range(n)]
    records["location/micrograph_shape"] = MICROGRAPH[::-1]
    records["location/center_x_frac"], records["location/center_y_frac"] = random.uniform(0, 1, (2, n))
    for name in records.dtype.names:
        if name.endswith("/split"):
            records[name] = np.arange(n) % 2
    return records


def regrouped(tmp_path, source, *, labels=LABELS, poses=POSES):
    """An output folder of these particles with their parquet alone."""
    regroup(source, plan_for(source, labels, poses), tmp_path / "OUT", parquet_particles)
    for path in (tmp_path / "OUT" / "volumes").iterdir():
        path.unlink()
    return tmp_path / "OUT"


def from_cryosparc(tmp_path, records, *, fragment_rows=60):
    """An output folder made of records, and their source."""
    tmp_path.mkdir(exist_ok=True)
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=fragment_rows)
    return source, regrouped(tmp_path, source)


def star_rows(n=120, *, seed=5):
    """Rows of `STAR_LABELS`."""
    random = np.random.default_rng(seed)
    return [
        [
            *(float(value) for value in random.uniform(0, 4000, 2)),
            *(f"{row + 1:06d}@Extract/job010/stack_{row % 3}.mrcs", f"MotionCorr/job002/m_{row % 5}.mrc", row % 4 + 1),
            *(float(random.uniform(-180, 180)), float(random.uniform(0, 180)), float(random.uniform(-180, 180))),
            *(float(value) for value in random.normal(0, 5, 2)),
            row % 2 + 1,
            *(float(value) for value in random.uniform(9e3, 2e4, 2)),
            *(float(random.uniform(-90, 90)), float(random.uniform(0, 90)), row % 2 + 1),
        ]
        for row in range(n)
    ]


def write_rich_star(path, *, n=120, zernike="[0,0,0,0,0,0]"):
    """A RELION 3.1 file with two optics groups, the second with beam tilt and magnification."""
    optics = [
        [1, "opticsGroup1", 1.25, 96, 300.0, 2.7, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, zernike],
        [2, "opticsGroup2", 1.4, 96, 200.0, 1.4, 0.07, 0.5, -1.25, 1.01, 0.002, -0.003, 0.996, zernike],
    ]
    text = table_text(OPTICS_LABELS, optics, block="optics") + "\n\n" + table_text(STAR_LABELS, star_rows(n))
    path.write_text(text + " \n")
    return str(path)
