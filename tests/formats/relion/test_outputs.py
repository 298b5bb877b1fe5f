import warnings
from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.model_star import read_model_ssnr
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import outputs as relion
from regroup_dask.formats.relion import star_text

from .regrouping import (
    LABELS,
    OPTICS,
    law,
    plan_for,
    random_pose,
    random_rows,
    regroup,
    table_text,
    write_star,
)
from .test_particles import REAL_FILES, star

POINTS = np.random.default_rng(1).normal(0, 50, (20, 3))


def rows_of(path):
    """Lines of the table of a star file that has it last."""
    return [line for line in Path(path).read_text().splitlines() if "@" in line]


def read_particles(path):
    blocks = starfile.read(path, always_dict=True)
    return next(blocks[name] for name in ("particles", "images") if name in blocks)


def projections(rows, points, *, suffix="", pixel=1.0):
    """Where RELION's convention puts points of the volume in each image, relative to the uncentred origin."""
    angles = rows[[f"rlnAngle{name}{suffix}" for name in ("Rot", "Tilt", "Psi")]].to_numpy(dtype=float)
    unit = "" if "rlnOriginX" in rows else "Angst"
    axes = [axis for axis in "XYZ" if f"rlnOrigin{axis}{unit}" in rows] or ["X", "Y"]
    origin = np.zeros((len(rows), len(axes)))
    if f"rlnOriginX{unit}" in rows:
        suffixed = [f"rlnOrigin{axis}{suffix}{unit}" for axis in axes]
        origin = rows[suffixed].to_numpy(dtype=float) * pixel
    matrix = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    return np.einsum("nij,npj->npi", matrix, points)[..., : len(axes)] - origin[:, None]


def moved(points, pose):
    return (-points if pose.mirrored else points) @ pose.rotation.T + pose.shift_angstrom


@pytest.mark.shared_data
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_come_back_identical_when_nothing_changes(shared_data, tmp_path, name):
    path = shared_data / "meta" / name
    source = open_particles(path, fragment_rows=999)
    paths, _ = regroup(source, plan_for(source, [*range(len(source.class_ids))]), tmp_path, relion)
    assert Path(paths[0]).read_bytes() == path.read_bytes()
    for path in paths:
        assert starfile.read(path, always_dict=True)
    assert len(read_particles(paths[-2])) == 0


@pytest.mark.shared_data
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_project_as_before(shared_data, tmp_path, name):
    source = open_particles(shared_data / "meta" / name)
    poses = {class_id: random_pose(class_id + 5) for class_id in source.class_ids}
    plan = plan_for(source, [0] * len(source.class_ids), poses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegroupWarning)
        paths, _ = regroup(source, plan, tmp_path, relion)
    before, after = read_particles(shared_data / "meta" / name), read_particles(paths[0])
    pixel = source.voxel_size_angstrom if "rlnOriginX" in before else 1.0
    old = projections(before, np.broadcast_to(POINTS, (len(before), *POINTS.shape)), pixel=pixel)
    points = np.stack([moved(POINTS, poses[number - 1]) for number in before["rlnClassNumber"]])
    np.testing.assert_allclose(projections(after, points, pixel=pixel), old, atol=2e-4)
    same = [column for column in before if not column.startswith(("rlnAngle", "rlnOrigin", "rlnClassNumber"))]
    assert before[same].equals(after[same])


lines_between = st.sampled_from(["", "\n", "# a comment\n", "   \n"])
separators = st.sampled_from([" ", "    ", "\t"])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 14), n_classes=st.integers(2, 5))
def test_every_row_once_in_order_and_untouched(tmp_path_factory, data, n, n_classes):
    folder = tmp_path_factory.mktemp("rows")
    rows = random_rows(n, n_classes, seed=data.draw(st.integers(0, 99)))
    separator = data.draw(separators)
    table = table_text(LABELS, rows, separator=separator).splitlines(keepends=True)
    head = [line for line in table if not line.count("@")]
    body = [data.draw(lines_between) + line for line in table if line.count("@")]
    text = (
        OPTICS + "".join(head + body) + data.draw(st.sampled_from([" \n", "", "\ndata_extra\n\n_rlnA 1\n"]))
    )
    if data.draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    if data.draw(st.booleans()):
        text = text.rstrip()
    path = star(folder, text)
    n_found = len(open_particles(path).class_ids)
    superclasses = data.draw(st.lists(st.integers(-1, 2), min_size=n_found, max_size=n_found))
    superclasses[0] = max(superclasses[0], 0)
    written = {}
    for name, fragment_rows, chunk in (("whole", None, 10**6), ("parts", data.draw(st.integers(1, n)), 300)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(star_text, "CHUNK_BYTES", chunk)
            source = open_particles(path, fragment_rows=fragment_rows)
            paths, superclass = regroup(source, plan_for(source, superclasses), folder / name, relion)
        written[name] = {Path(item).name: Path(item).read_bytes() for item in paths}
        assert {item.name for item in (folder / name / "relion").glob("*.star")} == set(written[name])
    assert written["whole"] == written["parts"]
    lines = [line for line in text.splitlines() if "@" in line]
    for item, wanted in zip(
        paths[:-1],
        [superclass >= 0, *(superclass == k for k in range(max(superclasses) + 1)), superclass < 0],
        strict=True,
    ):
        found = rows_of(item)
        expected = [line for line, keep in zip(lines, wanted, strict=True) if keep]
        assert [line.split()[:2] + line.split()[3:] for line in found] == [
            line.split()[:2] + line.split()[3:] for line in expected
        ]
        if Path(item).name == "remaining_particles.star":
            assert found == expected
        else:
            assert [int(line.split()[2]) for line in found] == (superclass[wanted] + 1).tolist()
        blocks = starfile.read(item, always_dict=True)
        assert len(blocks["particles"]) == wanted.sum()
        assert blocks["optics"]["rlnImagePixelSize"].tolist() == [1.25]
    if separator == " ":
        assert len({len(line) for line in rows_of(paths[0])}) <= len({len(line) for line in lines})


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    mirrored=st.booleans(),
    tilt=st.sampled_from([None, 0.0, 180.0, 1e-6, 179.999999]),
)
def test_particles_project_as_before(tmp_path_factory, seed, mirrored, tilt):
    folder = tmp_path_factory.mktemp("poses")
    rows = random_rows(12, 3, seed=seed)
    for row in rows:
        row[4] = row[4] if tilt is None else tilt
    path = star(folder, OPTICS + table_text(LABELS, rows))
    source = open_particles(path)
    turn = random_pose(seed, mirrored=mirrored)
    about_z = turn._replace(rotation=Rotation.from_euler("z", seed % 360, degrees=True).as_matrix())
    poses = {1: turn, 2: about_z}
    paths, _ = regroup(source, plan_for(source, [0, 0, 1], poses), folder, relion)
    before, after = read_particles(path), read_particles(paths[0])
    still = before["rlnClassNumber"] == 1
    assert before[still].equals(after[still])
    assert [line for line in rows_of(path) if line.split()[2] == "1"] == rows_of(paths[0])[::3]
    for class_id, pose in poses.items():
        mine = (before["rlnClassNumber"] == class_id + 1).to_numpy()
        old = projections(before[mine], np.broadcast_to(POINTS, (mine.sum(), *POINTS.shape)))
        points = np.broadcast_to(moved(POINTS, pose), (mine.sum(), *POINTS.shape))
        np.testing.assert_allclose(projections(after[mine], points), old, atol=2e-4)
    assert after["rlnAngleTilt"].between(0, 180).all()
    assert after[["rlnAngleRot", "rlnAnglePsi"]].abs().max().max() <= 180


def test_priors_move_with_the_pose(tmp_path):
    priors = [
        "rlnAngleRotPrior",
        "rlnAngleTiltPrior",
        "rlnAnglePsiPrior",
        "rlnOriginXPriorAngst",
        "rlnOriginYPriorAngst",
    ]
    rows = [[*row, *(row[3:8])] for row in random_rows(6, 2)]
    for row in rows:
        row[10] = 90.0
    path = star(tmp_path, OPTICS + table_text([*LABELS, *priors], rows))
    source = open_particles(path)
    pose = random_pose(3)
    paths, _ = regroup(source, plan_for(source, [0, 0], {0: pose, 1: pose}), tmp_path, relion)
    before, after = read_particles(path), read_particles(paths[0])
    points = np.broadcast_to(POINTS, (6, *POINTS.shape))
    np.testing.assert_allclose(
        projections(after, moved(points, pose), suffix="Prior"),
        projections(before, points, suffix="Prior"),
        atol=2e-4,
    )


def test_tilt_and_psi_priors_alone_take_the_rot_of_the_pose(tmp_path):
    rows = [[*row, 90.0, 10.0] for row in random_rows(6, 2)]
    path = star(tmp_path, OPTICS + table_text([*LABELS, "rlnAngleTiltPrior", "rlnAnglePsiPrior"], rows))
    source = open_particles(path)
    # A turn about z changes rot alone: tilt and psi, and their priors, stay.
    about_z = random_pose(3)._replace(rotation=Rotation.from_euler("z", 40, degrees=True).as_matrix())
    with pytest.warns(RegroupWarning, match="without rlnAngleRotPrior"):
        paths, _ = regroup(source, plan_for(source, [0, 0], {0: about_z, 1: about_z}), tmp_path, relion)
    after = read_particles(paths[0])
    np.testing.assert_allclose(after["rlnAngleTiltPrior"], 90)
    np.testing.assert_allclose(after["rlnAnglePsiPrior"], 10)


def test_origins_are_added_where_there_are_none(tmp_path):
    labels = [label for label in LABELS if not label.startswith("rlnOrigin")]
    rows = [[*row[:6], row[8]] for row in random_rows(9, 3)]
    path = star(tmp_path, OPTICS + table_text(labels, rows))
    source = open_particles(path)
    poses = {1: random_pose(4)}
    paths, _ = regroup(source, plan_for(source, [0, 0, -1], poses), tmp_path, relion)
    before, after = read_particles(path), read_particles(paths[0])
    before = before[before["rlnClassNumber"] < 3].reset_index(drop=True)
    assert list(after)[-2:] == ["rlnOriginXAngst", "rlnOriginYAngst"]
    mine = before["rlnClassNumber"] == 2
    old = projections(before[mine], np.broadcast_to(POINTS, (mine.sum(), *POINTS.shape)))
    points = np.broadcast_to(moved(POINTS, poses[1]), (mine.sum(), *POINTS.shape))
    np.testing.assert_allclose(projections(after[mine], points), old, atol=2e-4)
    assert (after.loc[~mine, ["rlnOriginXAngst", "rlnOriginYAngst"]] == 0).all().all()
    assert list(read_particles(paths[-2])) == labels


@pytest.mark.parametrize("with_pixel", [True, False])
def test_origins_in_pixels(tmp_path, with_pixel):
    labels = [
        "rlnClassNumber",
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "rlnOriginX",
        "rlnOriginY",
        "rlnImageName",
    ]
    rows = [[row[2], *row[3:8], row[1]] for row in random_rows(4, 2)]
    if with_pixel:
        labels += ["rlnDetectorPixelSize", "rlnMagnification"]
        rows = [[*row, 5.0, 20000.0] for row in rows]
    path = star(tmp_path, table_text(labels, rows, block="images"))
    source = open_particles(path)
    assert source.voxel_size_angstrom == (2.5 if with_pixel else None)
    pose = random_pose(2)
    plan = plan_for(source, [0, 0], {0: pose, 1: pose})
    if not with_pixel:
        assert source.particle_poses(source.to_table(), np.zeros(4, int)) is None
        with pytest.raises(InputError, match="origins in pixels and does not say its pixel size"):
            relion.create_outputs(source, plan, np.zeros((1, 2)), tmp_path)
        return
    paths, _ = regroup(source, plan, tmp_path, relion)
    points = np.broadcast_to(POINTS, (4, *POINTS.shape))
    before, after = read_particles(path), read_particles(paths[0])
    np.testing.assert_allclose(
        projections(after, moved(points, pose), pixel=2.5), projections(before, points, pixel=2.5), atol=2e-4
    )


def test_a_pose_that_is_not_finite_stays_as_it_is_written(tmp_path):
    rows = random_rows(4, 2)
    rows[2][3] = "nan"
    path = star(tmp_path, OPTICS + table_text(LABELS, rows))
    source = open_particles(path)
    paths, _ = regroup(
        source, plan_for(source, [0, 0], {0: random_pose(1), 1: random_pose(2)}), tmp_path, relion
    )
    found = rows_of(paths[0])
    assert found[2] == rows_of(path)[2]
    assert found[1] != rows_of(path)[1]


def test_a_pose_beyond_all_bounds_is_refused(tmp_path):
    rows = random_rows(4, 2)
    rows[2][6] = "1e72"
    source = open_particles(star(tmp_path, OPTICS + table_text(LABELS, rows)))
    with pytest.raises(InputError, match=r"_rlnOriginXAngst 1e[+]72, which is too large"):
        regroup(source, plan_for(source, [0, 0], {0: random_pose(1)}), tmp_path, relion)


def test_an_opposite_hand_of_subtomograms_is_warned_of(tmp_path):
    rows = [[*row, 1.0] for row in random_rows(4, 2)]
    source = open_particles(star(tmp_path, OPTICS + table_text([*LABELS, "rlnOriginZAngst"], rows)))
    plan = plan_for(source, [0, 0], {1: random_pose(1, mirrored=True)})
    with pytest.warns(RegroupWarning, match="class 1 is of the opposite hand"):
        relion.create_outputs(source, plan, np.zeros((1, 2)), tmp_path)


def test_model_star(tmp_path):
    source = open_particles(write_star(tmp_path / "a.star", n=30, n_classes=4))
    paths, superclass = regroup(source, plan_for(source, [0, 0, 1, -1]), tmp_path, relion)
    model = starfile.read(paths[-1])
    assert model["model_general"]["rlnNrClasses"] == 2
    classes = model["model_classes"]
    assert classes["rlnReferenceImage"].tolist() == ["run_it000_class001.mrc", "run_it000_class002.mrc"]
    for k, name in enumerate(classes["rlnReferenceImage"]):
        assert (Path(paths[-1]).parent / name).read_text().endswith(f"superclass_00{k}.mrc")
    share = np.bincount(superclass[superclass >= 0]) / (superclass >= 0).sum()
    np.testing.assert_allclose(classes["rlnClassDistribution"], share, atol=1e-6)
    assert [line for line in Path(paths[-1]).read_text().splitlines() if line.startswith("#")][-1].endswith(
        "These paths are relative to this file."
    )
    ssnr = read_model_ssnr(paths[-1])
    assert list(ssnr) == [0]  # that of the other is not known
    np.testing.assert_allclose(ssnr[0], np.linspace(100, 0, 49), atol=1e-5)


def test_law_of_these_tests_agrees_with_the_package():
    particle_poses = pytest.importorskip("regroup_dask.science.particle_poses")
    random = np.random.default_rng(0)
    rotation, classes = (Rotation.random(20, random_state=seed).as_matrix() for seed in (0, 1))
    given_ = (
        rotation,
        random.normal(size=(20, 2)),
        classes,
        random.normal(size=(20, 3)),
        np.arange(20) % 2 == 0,
    )
    for mine, theirs in zip(law(*given_), particle_poses.move_poses(*given_), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
