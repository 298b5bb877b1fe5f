"""The whole job on small jobs of known truth, in this process: what goes in, what comes out, where it goes."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import starfile
import xarray as xr
from cryosparc.dataset import Dataset
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from tests import small_job

HIVE = pa.dataset.partitioning(pa.schema([("superclass", pa.int64())]), flavor="hive")
# The balls of a small job project to within this of where they were, for poses found by alignment.
NEAR_ANGSTROM = 0.6


def particles_of(output: Path) -> tuple[pa.Table, pa.Table]:
    """Regrouped and remaining particles, each sorted by its row in the input."""
    regrouped = pa.dataset.dataset(output / "particles", format="parquet", partitioning=HIVE).to_table()
    files = list((output / "remaining").glob("*.parquet"))
    remaining = pa.dataset.dataset(files, format="parquet").to_table() if files else regrouped.slice(0, 0)
    return regrouped.sort_by("input_row"), remaining.sort_by("input_row")


def cryosparc_views(pose: np.ndarray, shift: np.ndarray, psize: float) -> tuple[np.ndarray, np.ndarray]:
    return np.swapaxes(Rotation.from_rotvec(pose.astype(float)).as_matrix(), 1, 2), shift * psize


def relion_views(table) -> tuple[np.ndarray, np.ndarray]:
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy(float)
    view = np.swapaxes(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), 1, 2)
    return view, table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float)


def worst_projection(job, rows, view, shift, frame_balls) -> float:
    """Largest distance between where the balls of a frame project and where the particle shows them."""
    return max(
        np.abs(small_job.image_coordinates(balls, a, t) - job.seen(row)).max()
        for row, a, t, balls in zip(rows, view, shift, frame_balls, strict=True)
    )


def frame_of(job, result) -> dict[int, np.ndarray]:
    """Balls in the frame of each superclass: its reference class's."""
    return {row["superclass"]: job.balls(row["reference_class"]) for row in result.superclasses.to_pylist()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Six classes of two structures, one inverted; class 4 is of the other hand."""
    job = small_job.make_job(structures=2, members=3, mirrored=(4,), seed=3)
    return job, tmp_path_factory.mktemp("small job")


@pytest.fixture(scope="module")
def cryosparc_run(small):
    job, folder = small
    source = small_job.write_cryosparc(job, folder / "P 1" / "J10")
    result = rd.regroup(
        str(source / "*_volume.mrc"),
        source / "cryosparc_P1_J10_00042_particles.cs",
        passthrough=[source / "P1_J10_passthrough_particles.cs"],
        n_superclasses=2,
        align=True,
        output=folder / "out",
    )
    return job, source, result


@pytest.fixture(scope="module")
def relion_run(small):
    job, folder = small
    source = small_job.write_relion(job, folder / "Class3D" / "job016")
    result = rd.regroup(
        str(source / "*class*.mrc"), source / "run_it025_data.star", n_superclasses=2, align=True, output=folder / "star"
    )
    return job, source, result


@pytest.fixture(params=["cryosparc_run", "relion_run"])
def run(request):
    return request.getfixturevalue(request.param)


def test_superclasses_and_poses_are_the_true_ones(run):
    job, _, result = run
    rows = result.classes.to_pylist()
    labels = np.array([row["superclass"] for row in rows])
    same = labels[:, None] == labels[None]
    np.testing.assert_array_equal(same, job.structure_of_class[:, None] == job.structure_of_class[None])
    frames = frame_of(job, result)
    for row in rows:
        sign = -1 if row["mirrored"] else 1
        moved = Rotation.from_quat(row["rotation_quaternion"]).apply(sign * job.balls(row["class_id"]))
        distance = np.abs(moved + row["shift_angstrom"] - frames[row["superclass"]]).max()
        assert distance < NEAR_ANGSTROM
    references = [row["reference_class"] for row in result.superclasses.to_pylist()]
    assert [row["mirrored"] for row in rows] == [
        bool(job.mirrored[row["class_id"]] != job.mirrored[references[row["superclass"]]]) for row in rows
    ]


def test_the_frame_of_a_superclass_is_its_largest_class_exactly(run):
    job, _, result = run
    sizes = np.bincount(job.class_of_particle, minlength=len(job.maps))
    for row in result.superclasses.to_pylist():
        members = [entry for entry in result.classes.to_pylist() if entry["superclass"] == row["superclass"]]
        largest = max(members, key=lambda entry: (sizes[entry["class_id"]], -entry["class_id"]))
        assert row["reference_class"] == largest["class_id"]
        assert row["n_classes"] == len(members)
        assert largest["rotation_quaternion"] == [0.0, 0.0, 0.0, 1.0]
        assert largest["shift_angstrom"] == [0.0, 0.0, 0.0]
        assert largest["mirrored"] is False
    counts = [row["n_particles"] for row in result.superclasses.to_pylist()]
    assert counts == sorted(counts, reverse=True)


def test_superclass_maps_are_real_space_averages_of_the_moved_class_maps(run):
    job, _, result = run
    for row in result.superclasses.to_pylist():
        members = [entry for entry in result.classes.to_pylist() if entry["superclass"] == row["superclass"]]
        moved = []
        for entry in members:
            matrix = Rotation.from_quat(entry["rotation_quaternion"]).as_matrix() * (-1 if entry["mirrored"] else 1)
            inverse = matrix.T[::-1, ::-1]
            centre = np.full(3, job.box // 2)
            offset = centre - inverse @ (centre + np.array(entry["shift_angstrom"])[::-1] / job.voxel_size)
            volume = job.maps[entry["class_id"]].astype(float)
            distance = np.sqrt(((np.indices(volume.shape) - job.box // 2) ** 2).sum(axis=0))
            solvent = np.median(volume[distance > 0.45 * job.box])
            moved.append(affine_transform(volume, inverse, offset, order=3, cval=solvent))
        expected = np.mean(moved, axis=0)
        path = result.output / row["volume"]
        with mrcfile.open(path) as stream:
            assert float(stream.voxel_size.x) == pytest.approx(job.voxel_size)
            found = stream.data.copy()
        inside = (slice(2, -2),) * 3
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5 * np.abs(expected).max())
        stored = xr.open_zarr(result.output / "volumes.zarr")
        assert stored["volume"].dims == ("superclass", "z", "y", "x")
        np.testing.assert_array_equal(stored["volume"].sel(superclass=row["superclass"]).values, found)


def test_every_map_and_store_opens_with_the_fields_own_tools(run, capsys):
    _, _, result = run
    maps = [*result.output.rglob("*.mrc")]
    assert len(maps) >= 2
    assert all(mrcfile.validate(path) for path in maps)
    pairs = xr.open_zarr(result.output / "pairs.zarr")
    assert pairs["shift_angstrom"].attrs["units"] == "angstrom"
    assert pairs["rotation_quaternion"].dims == ("class_i", "class_j", "quaternion")
    volumes = xr.open_zarr(result.output / "volumes.zarr")
    assert volumes["x"].attrs["units"] == "angstrom"
    assert float(volumes["x"].values[volumes.sizes["x"] // 2]) == 0.0


def test_pairs_are_each_others_inverse(run):
    _, _, result = run
    pairs = result.pairs
    rotation = Rotation.from_quat(pairs["rotation_quaternion"].values.reshape(-1, 4)).as_matrix()
    n = pairs.sizes["class_i"]
    rotation = rotation.reshape(n, n, 3, 3) * np.where(pairs["mirrored"].values, -1, 1)[..., None, None]
    shift = pairs["shift_angstrom"].values
    np.testing.assert_allclose(rotation @ np.swapaxes(rotation, 0, 1), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-9)
    there_and_back = shift + np.einsum("ijab,jib->ija", rotation, shift)
    np.testing.assert_allclose(there_and_back, 0, atol=1e-9)


def test_every_particle_once_with_all_its_columns_where_its_best_class_went(run):
    job, _, result = run
    regrouped, remaining = particles_of(result.output)
    assert remaining.num_rows == 0
    np.testing.assert_array_equal(regrouped["input_row"].to_numpy(), np.arange(len(job.posteriors)))
    superclass_of_class = np.array([row["superclass"] for row in result.classes.to_pylist()])
    best = job.posteriors.argmax(1) if "class" in run[1].parent.name else job.class_of_particle
    np.testing.assert_array_equal(regrouped["assigned_class_id"].to_numpy(), best)
    np.testing.assert_array_equal(regrouped["superclass"].to_numpy(), superclass_of_class[best])


def test_cryosparc_particles_keep_their_values_and_project_right(cryosparc_run):
    job, source, result = cryosparc_run
    given = Dataset.load(source / "cryosparc_P1_J10_00042_particles.cs")
    location = Dataset.load(source / "P1_J10_passthrough_particles.cs")
    written = Dataset.load(result.output / "cryosparc" / "regrouped_particles.cs")
    row_of = {int(uid): row for row, uid in enumerate(given["uid"])}
    rows = np.array([row_of[int(uid)] for uid in written["uid"]])
    assert sorted(rows.tolist()) == list(range(len(given)))
    for name in given.fields():
        if not name.startswith("alignments3D"):
            np.testing.assert_array_equal(written[name], given[name][rows], err_msg=name)
    where = {int(uid): row for row, uid in enumerate(location["uid"])}
    same = np.array([where[int(uid)] for uid in written["uid"]])
    np.testing.assert_array_equal(written["location/micrograph_path"], location["location/micrograph_path"][same])

    superclass = written["alignments3D/class"]
    expected = np.array([row["superclass"] for row in result.classes.to_pylist()])[job.posteriors.argmax(1)][rows]
    np.testing.assert_array_equal(superclass, expected)
    posteriors = written["alignments3D_multi/class_posterior"]
    np.testing.assert_array_equal(posteriors, np.eye(2, dtype=np.float32)[expected])
    frames = frame_of(job, result)
    view, shift = cryosparc_views(written["alignments3D/pose"], written["alignments3D/shift"], job.voxel_size)
    assert worst_projection(job, rows, view, shift, [frames[label] for label in expected]) < NEAR_ANGSTROM
    multi = (written["alignments3D_multi/pose"], written["alignments3D_multi/shift"])
    view, shift = cryosparc_views(*(values[np.arange(len(rows)), expected] for values in multi), job.voxel_size)
    assert worst_projection(job, rows, view, shift, [frames[label] for label in expected]) < NEAR_ANGSTROM


def test_relion_particles_keep_their_text_and_project_right(relion_run):
    job, source, result = relion_run
    given = starfile.read(source / "run_it025_data.star", parse_as_string=["rlnCoordinateX"])
    written = starfile.read(result.output / "relion" / "regrouped_particles.star", parse_as_string=["rlnCoordinateX"])
    assert set(written) >= {"optics", "particles"}
    table = written["particles"].set_index("rlnImageName").loc[given["particles"]["rlnImageName"]].reset_index()
    assert len(written["particles"]) == len(table) == len(job.posteriors)
    np.testing.assert_array_equal(table["rlnCoordinateX"], given["particles"]["rlnCoordinateX"])
    superclass = np.array([row["superclass"] for row in result.classes.to_pylist()])[job.class_of_particle]
    np.testing.assert_array_equal(table["rlnClassNumber"], superclass + 1)
    view, shift = relion_views(table)
    frames = frame_of(job, result)
    rows = range(len(table))
    assert worst_projection(job, rows, view, shift, [frames[label] for label in superclass]) < NEAR_ANGSTROM


def test_parquet_particles_project_right(run):
    job, _, result = run
    regrouped, _ = particles_of(result.output)
    quaternion = np.array(regrouped["superclass_rotation_quaternion"].to_pylist())
    assert (quaternion[:, 3] >= 0).all()
    view = np.swapaxes(Rotation.from_quat(quaternion).as_matrix(), 1, 2)
    shift = np.array(regrouped["superclass_shift_angstrom"].to_pylist())
    frames = frame_of(job, result)
    balls = [frames[label] for label in regrouped["superclass"].to_numpy()]
    assert worst_projection(job, range(len(view)), view, shift, balls) < NEAR_ANGSTROM


def test_run_record_says_what_was_done(run):
    job, _, result = run
    record = json.loads((result.output / "run.json").read_text(), parse_constant=pytest.fail)
    assert record["status"] == "complete"
    assert record["n_particles"] == len(job.posteriors)
    assert record["settings"]["align"] is True
    assert len(record["fingerprints"]) >= 7
    (note,) = record["warnings"]
    assert note.startswith("Of the opposite hand to most of the particles: class 4;")
    assert (result.output / "report.html").stat().st_size > 10_000
    assert not (result.output / "work").exists()
    assert not result.output.with_name(result.output.name + ".partial").exists()
    assert pq.read_table(result.output / "classes.parquet").equals(result.classes)


def test_backgrounds_of_the_maps_change_no_group_and_fill_the_superclass_maps_to_their_faces(tmp_path, monkeypatch):
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
    job = small_job.make_job(structures=2, members=3, seed=4)
    background = 100.0 * np.array([0, 3, -5, 1, 8, 2])
    paths = [
        small_job.write_map(tmp_path / f"class_{number}.mrc", volume + np.float32(level), job.voxel_size)
        for number, (volume, level) in enumerate(zip(job.maps, background, strict=True))
    ]
    result = rd.regroup(paths, n_superclasses=2, align=True, output=tmp_path / "out")
    rows = result.classes.to_pylist()
    for row in result.superclasses.to_pylist():
        members = [entry["class_id"] for entry in rows if entry["superclass"] == row["superclass"]]
        assert len(set(job.structure_of_class[members])) == 1
        density = mrcfile.read(result.output / row["volume"]) - background[members].mean()
        for face in (density[0], density[-1], density[:, 0], density[:, -1], density[..., 0], density[..., -1]):
            assert np.abs(face).max() < 0.1 * density.max()
