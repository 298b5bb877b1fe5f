"""What an export says, against recorded output of pyem and cs2star.

`PYEM` is what pyem 0.67 (asarnow/pyem, de18347) made of `PARTICLES` with the defaults of its csparc2star.py: its
``parse_cryosparc_2_cs`` with ``swapxy`` and ``inverty``, then ``check_defaults``; beam tilts by its
``cryosparc_2_cs_ctf_parameters``. `CS2STAR` is what cs2star 0.7.0 (with brisvag/pyem, e627a58) made of the
``regrouped_particles.cs`` that is written for the same particles when class 1 has moved by `MOVED`. Nothing
in them was made by the code under test. They are also what these formulas say, so that a typing error shows::

    angles   rotvec = log(Rz(rot) Ry(tilt) Rz(psi));           origin = shift psize, in angstrom, of the same sign
    x, y     x = columns x_frac, y = rows (1 - y_frac), to the pixel; micrograph_shape is (rows, columns)
    defocus  as it is, its angle and the phase shift in degrees;   tilt = 1000 arcsin(tilt_A / (1e7 Cs_mm)) mrad
    counted  from 1: image, optics group, class, half

pyem also copies ctf/anisomag into rlnMagMat without adding the identity, which RELION would read as a magnification of
0; there the export follows the two programs (`formats.aberrations`).
"""

import numpy as np
import pandas as pd
import starfile
from scipy.spatial.transform import Rotation

from regroup_dask.formats.cryosparc import outputs as cryosparc
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.regroup_plan import ClassPose
from regroup_dask.steps.exporting import export
from tests.formats.cryosparc.making import save, slot_fields
from tests.formats.relion.regrouping import plan_for, regroup, table_text
from tests.steps.rich_particles import CTF, MICROGRAPH, PLACE, regrouped

MOVED = ClassPose(Rotation.from_rotvec([0.2, -0.3, 0.4]).as_matrix(), np.array([5.0, -7.0, 9.0]))

PARTICLES = (
    # rotation vector, shift in pixels, pixel, two defoci, their angle, phase shift, x and y as fractions, image, group, half,
    # B-factor, tilt_A, Cs; classes take turns
    ((0, 0, 0), (0, 0), 1.5, 10000, 9000, 0.0, 0.0, 0.5, 0.5, 0, 0, 0, 0, (0, 0), 2.7),
    ((0, 0, 0.5), (1, -2), 1.5, 12000, 11000, 0.5, 0.25, 0.25, 0.75, 1, 0, 1, 10, (0, 0), 2.7),
    ((0.5, 0, 0), (-3.25, 4.5), 1.5, 15000, 14500, -0.7, 0.5, 0.1, 0.9, 2, 0, 0, 20, (0, 0), 2.7),
    ((0, 0.5, 0), (0.125, 0.0625), 0.83, 8000, 7900, 1.5, 1.0, 0.9, 0.1, 9, 1, 1, 30, (2700, -5400), 2.7),
    ((0.3, -0.4, 1.2), (10, -20), 0.83, 20000, 19000, -1.5, 1.5, 0.125, 0.375, 41, 1, 0, 40, (2700, -5400), 2.7),
    ((-1.1, 2.0, 0.7), (-0.5, -0.25), 0.83, 30000, 28000, 3.0, 3.0, 0.625, 0.875, 99, 1, 1, 50, (2700, -5400), 2.7),
    ((np.pi, 0, 0), (7, 0), 2.125, 9500, 9500, 0.1, 0.2, 0.0625, 0.9375, 123, 2, 0, 60, (100, 20), 1.4),
    ((2.4, 1.3, -0.9), (0, -11), 2.125, 5000, 4800, -0.3, 0.75, 0.7, 0.2, 999, 2, 1, 70, (100, 20), 1.4),
)
LABELS = (
    *("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
    *("rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"),
    *("rlnCtfBfactor", "rlnOpticsGroup", "rlnRandomSubset", "rlnClassNumber"),
)
PYEM = """\
000001@J1/s0.mrc J2/m.mrc 2880 2046 0 0 0 0 0 10000 9000 0 0 0 1 1 1
000002@J1/s1.mrc J2/m.mrc 1440 1023 0 0 28.647888 1.5 -3 12000 11000 28.647888 14.323944 10 1 2 2
000003@J1/s0.mrc J2/m.mrc 576 409 -90 28.647888 90 -4.875 6.75 15000 14500 -40.107044 28.647888 20 1 1 1
000010@J1/s1.mrc J2/m.mrc 5184 3683 0 28.647888 0 0.10375 0.051875 8000 7900 85.943665 57.295776 30 2 2 2
000042@J1/s0.mrc J2/m.mrc 720 2558 -108.071709 26.919708 178.188477 8.3 -16.6 20000 19000 -85.943665 85.943665 40 2 1 1
000100@J1/s1.mrc J2/m.mrc 3600 512 65.326233 125.468002 7.704646 -0.415 -0.2075 30000 28000 171.887329 171.887329 50 2 2 2
000124@J1/s0.mrc J2/m.mrc 360 256 90 179.999985 -90 14.875 0 9500 9500 5.729578 11.459155 60 3 1 1
001000@J1/s1.mrc J2/m.mrc 4032 3274 -128.299393 140.513947 -5.185261 0 -23.375 5000 4800 -17.188734 42.971832 70 3 2 2
"""
TILTS = {1: (0, 0), 2: (0.1, -0.2), 3: (0.007143, 0.001429)}
"""By optics group, in mrad."""
CS2STAR = {
    # angles and origins
    "000001@J1/s0.mrc": (0, 0, 0, 0, 0),
    "000002@J1/s1.mrc": (-134.726013, 20.519043, -173.458252, 2.314607, -11.627399),
    "000003@J1/s0.mrc": (-90, 28.647888, 90, -4.875, 6.75),
    "000010@J1/s1.mrc": (-13.729465, 12.150227, 38.808292, 0.075424, -7.128837),
    "000042@J1/s0.mrc": (-108.071709, 26.919708, 178.188477, 8.3, -16.6),
    "000100@J1/s1.mrc": (81.574631, 109.59687, -7.056789, -6.0348, -6.920445),
    "000124@J1/s0.mrc": (90, 179.999985, -90, 14.875, 0),
    "001000@J1/s1.mrc": (-82.949226, 156.438019, 20.475752, -8.427697, -15.848424),
}
ANGLES, ORIGINS = list(LABELS[4:7]), list(LABELS[7:9])


def records():
    """`PARTICLES` as CryoSPARC writes them."""
    base = [("uid", "<u8"), ("blob/path", "S40"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4")]
    particles = np.zeros(len(PARTICLES), [*base, ("ctf/df1_A", "<f4"), *CTF, *PLACE, *slot_fields("alignments3D")])
    names = (
        *("alignments3D/pose", "alignments3D/shift", "blob/psize_A", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad"),
        *("ctf/phase_shift_rad", "location/center_x_frac", "location/center_y_frac", "blob/idx", "ctf/exp_group_id"),
        *("alignments3D/split", "ctf/bfactor", "ctf/tilt_A", "ctf/cs_mm"),
    )
    for name, values in zip(names, zip(*PARTICLES, strict=True), strict=True):
        particles[name] = values
    particles["uid"] = np.arange(len(particles)) + 1
    particles["alignments3D/psize_A"] = particles["blob/psize_A"]
    particles["alignments3D/class"] = np.arange(len(particles)) % 2
    particles["alignments3D/class_posterior"] = 1
    particles["blob/path"] = [f">J1/s{i % 2}.mrc".encode() for i in range(len(particles))]
    particles["blob/shape"], particles["location/micrograph_path"] = 128, b"J2/m.mrc"
    particles["location/micrograph_shape"] = MICROGRAPH[::-1]
    particles["ctf/accel_kv"], particles["ctf/amp_contrast"], particles["ctf/scale"] = 300, 0.1, 1
    return particles


def exported(folder, poses=None):
    """The star file of an export of `PARTICLES`, as tables, and what was regrouped."""
    source = open_particles(save(folder / "p.cs", records()))
    output = regrouped(folder, source, labels=[0, 1], poses=poses)
    export(output, "relion", folder / "relion")
    return starfile.read(folder / "relion" / "regrouped_particles.star", always_dict=True), source


def recorded():
    """`PYEM` as a table by image."""
    table = pd.DataFrame([line.split() for line in PYEM.splitlines()], columns=list(LABELS))
    return table.astype({label: float for label in LABELS[2:]}).set_index("rlnImageName")


def turn_from(rotation, angles):
    """The largest turn between rotations and angles in degrees, in radians."""
    return (rotation.inv() * rotations(angles)).magnitude().max()


def rotations(angles):
    return Rotation.from_euler("ZYZ", np.asarray(angles, float), degrees=True)


def test_what_was_recorded_is_what_the_formulas_say():
    particles, table = records(), recorded()
    p = Rotation.from_rotvec(particles["alignments3D/pose"].astype(float))
    assert turn_from(p, table[ANGLES]) < 1e-5
    np.testing.assert_allclose(table[ORIGINS], particles["alignments3D/shift"] * particles["blob/psize_A"][:, None], atol=1e-5)
    x, y = (particles[f"location/center_{axis}_frac"].astype(float) for axis in "xy")
    np.testing.assert_allclose(table["rlnCoordinateX"], MICROGRAPH[0] * x, atol=0.501)
    np.testing.assert_allclose(table["rlnCoordinateY"], MICROGRAPH[1] * (1 - y), atol=0.501)
    np.testing.assert_allclose(table["rlnDefocusAngle"], np.degrees(particles["ctf/df_angle_rad"]), atol=1e-4)
    np.testing.assert_allclose(table["rlnPhaseShift"], np.degrees(particles["ctf/phase_shift_rad"]), atol=1e-4)
    tilt = 1e3 * np.arcsin(particles["ctf/tilt_A"] / (1e7 * particles["ctf/cs_mm"][:, None]))
    np.testing.assert_allclose([TILTS[group] for group in table["rlnOpticsGroup"]], tilt, atol=1e-6)
    # The moved ones: P' = R P, and the shift follows by (P'^T t)_xy.
    moved = np.arange(len(table)) % 2 == 1
    own = np.where(moved[:, None, None], MOVED.rotation, np.eye(3)) @ p.as_matrix()
    numbers = np.array([CS2STAR[name] for name in table.index])
    assert turn_from(Rotation.from_matrix(own), numbers[:, :3]) < 1e-5
    follows = np.where(moved[:, None], (own.transpose(0, 2, 1) @ MOVED.shift_angstrom)[:, :2], 0)
    np.testing.assert_allclose(numbers[:, 3:], table[ORIGINS] + follows, atol=1e-5)


def test_an_export_to_relion_says_what_pyem_says(tmp_path):
    blocks, _ = exported(tmp_path)
    table, expected = blocks["particles"].set_index("rlnImageName"), recorded()
    assert table.index.tolist() == expected.index.tolist()
    assert table["rlnMicrographName"].tolist() == expected["rlnMicrographName"].tolist()
    assert turn_from(rotations(table[ANGLES]), expected[ANGLES]) < 1e-5
    np.testing.assert_allclose(table[ORIGINS], expected[ORIGINS], atol=1e-5)
    for label in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor"):
        np.testing.assert_allclose(table[label], expected[label], atol=2e-5, err_msg=label)
    for label in ("rlnOpticsGroup", "rlnRandomSubset", "rlnClassNumber"):
        assert table[label].tolist() == expected[label].tolist(), label
    # pyem rounds places to pixels.
    for label in ("rlnCoordinateX", "rlnCoordinateY"):
        np.testing.assert_allclose(table[label], expected[label], atol=0.501, err_msg=label)
    optics = blocks["optics"].set_index("rlnOpticsGroup")
    np.testing.assert_allclose(optics[["rlnBeamTiltX", "rlnBeamTiltY"]], [TILTS[group] for group in optics.index], atol=1e-6)
    assert optics["rlnImagePixelSize"].tolist() == [1.5, 0.83, 2.125]
    assert optics["rlnImageSize"].tolist() == [128] * 3


def test_cs2star_reads_moved_poses_from_our_cs_as_the_export_has_them(tmp_path):
    blocks, source = exported(tmp_path, {1: MOVED})
    table = blocks["particles"].set_index("rlnImageName")
    expected = np.array([CS2STAR[name] for name in table.index])
    assert turn_from(rotations(table[ANGLES]), expected[:, :3]) < 1e-5
    np.testing.assert_allclose(table[ORIGINS], expected[:, 3:], atol=1e-5)
    regroup(source, plan_for(source, [0, 1], {1: MOVED}), tmp_path / "own", cryosparc)
    own = np.load(tmp_path / "own" / "cryosparc" / "regrouped_particles.cs", max_header_size=10**6)
    assert own["blob/idx"].tolist() == [int(name.split("@")[0]) - 1 for name in table.index]
    p = Rotation.from_rotvec(own["alignments3D/pose"].astype(float))
    assert turn_from(p, expected[:, :3]) < 1e-5
    np.testing.assert_allclose(own["alignments3D/shift"] * own["alignments3D/psize_A"][:, None], expected[:, 3:], atol=1e-4)


def test_an_export_to_cryosparc_undoes_what_pyem_does(tmp_path):
    optics = [
        [group, f"opticsGroup{group}", pixel, 128, 300.0, cs, 0.1, *map(float, TILTS[group])]
        for group, pixel, cs in ((1, 1.5, 2.7), (2, 0.83, 2.7), (3, 2.125, 1.4))
    ]
    labels = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnVoltage")
    labels = (*labels, "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY")
    rows = [line.split() for line in PYEM.splitlines()]
    text = table_text(labels, optics, block="optics") + "\n" + table_text(LABELS, rows) + "\n"
    (tmp_path / "pyem.star").write_text(text)
    output = regrouped(tmp_path, open_particles(tmp_path / "pyem.star"), labels=[0, 1], poses=None)
    (output / "relion").mkdir()
    (output / "relion" / "regrouped_particles.star").write_text(text)
    export(output, "cryosparc", tmp_path / "back", micrograph_size=MICROGRAPH)
    found, particles = np.load(tmp_path / "back" / "regrouped_particles.cs", max_header_size=10**6), records()
    p, expected = (Rotation.from_rotvec(item["alignments3D/pose"].astype(float)) for item in (found, particles))
    assert (p.inv() * expected).magnitude().max() < 1e-5
    for name in ("alignments3D/shift", "alignments3D/psize_A", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/cs_mm",
                 "ctf/phase_shift_rad", "ctf/bfactor", "ctf/accel_kv", "ctf/amp_contrast", "blob/psize_A"):  # fmt: skip
        np.testing.assert_allclose(found[name], particles[name], rtol=1e-6, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(found["ctf/tilt_A"], particles["ctf/tilt_A"], atol=0.01)
    for name in ("blob/idx", "blob/shape", "ctf/exp_group_id", "alignments3D/split", "alignments3D/class"):
        assert (found[name] == particles[name]).all(), name
    assert [path.decode() for path in found["blob/path"]] == [path.decode()[1:] for path in particles["blob/path"]]
    for axis, pixels in zip("xy", MICROGRAPH, strict=True):
        name = f"location/center_{axis}_frac"
        np.testing.assert_allclose(found[name] * pixels, particles[name] * pixels, atol=0.502, err_msg=name)
    assert (found["location/micrograph_shape"] == particles["location/micrograph_shape"]).all()
