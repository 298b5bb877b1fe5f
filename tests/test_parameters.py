"""Every parameter of the job does what it says, on small jobs of known truth; all forms of input are taken."""

import gzip
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import xarray as xr
from cryosparc.dataset import Dataset
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.errors import RegroupWarning
from tests import small_job
from tests.test_main_job import NEAR_ANGSTROM, cryosparc_views, frame_of, particles_of, worst_projection


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """The page has tests of its own, and takes most of the time of a small run."""
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")


@pytest.fixture(scope="module")
def flat():
    """Six classes of two structures in one frame, so that nothing has to be aligned."""
    return small_job.make_job(structures=2, members=3, box=16, moved=False, seed=6)


@pytest.fixture(scope="module")
def moved():
    return small_job.make_job(structures=2, members=2, mirrored=(2,), seed=5)


@pytest.fixture(scope="module")
def particles(flat, tmp_path_factory):
    return small_job.write_parquet(flat, tmp_path_factory.mktemp("particles") / "flat.parquet")


def regroup(job, folder, particles=None, *, volumes=None, k=2, **options):
    given = {"voxel_size_angstrom": job.voxel_size} if volumes is None else {}
    return rd.regroup(
        job.maps if volumes is None else volumes, particles, n_superclasses=k, output=folder / "out", **given, **options
    )


def labels_of(result) -> np.ndarray:
    return np.array([row["superclass"] for row in result.classes.to_pylist()])


def assert_true_groups(job, result):
    labels = labels_of(result)
    grouped = labels >= 0
    same = (labels[:, None] == labels) == (job.structure_of_class[:, None] == job.structure_of_class)
    assert same[grouped][:, grouped].all(), labels


# ---- what it takes in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["class", "class3D"])
def test_older_cryosparc_generations(moved, tmp_path, generation):
    source = small_job.write_cryosparc(moved, tmp_path / "J1", generation=generation)
    file = source / "cryosparc_P1_J10_00042_particles.cs"
    result = regroup(moved, tmp_path, file, volumes=str(source / "*volume.mrc"), align=True)
    assert_true_groups(moved, result)
    given, written = Dataset.load(file), Dataset.load(result.output / "cryosparc" / "regrouped_particles.cs")
    row_of = {int(uid): row for row, uid in enumerate(given["uid"])}
    rows = np.array([row_of[int(uid)] for uid in written["uid"]])
    superclass = labels_of(result)[moved.posteriors.argmax(1)][rows]
    prefix = small_job.PREFIX[generation]
    posteriors = np.stack([written[f"{prefix}{k}/class_posterior"] for k in range(2)], axis=1)
    np.testing.assert_array_equal(posteriors, np.eye(2, dtype=np.float32)[superclass])
    assert f"{prefix}2/class_posterior" not in written.fields()
    slots = [written["alignments3D/pose"], written["alignments3D/shift"]]
    poses = [slots]
    if generation == "class":
        chosen = np.arange(len(rows)), superclass
        poses.append([np.stack([written[f"{prefix}{k}/{name}"] for k in range(2)], 1)[chosen] for name in ("pose", "shift")])
    frames = frame_of(moved, result)
    for pose, shift in poses:
        view, origin = cryosparc_views(pose, shift, moved.voxel_size)
        assert worst_projection(moved, rows, view, origin, [frames[label] for label in superclass]) < NEAR_ANGSTROM


def test_relion_3_0_with_shifts_in_pixels(moved, tmp_path):
    source = small_job.write_relion(moved, tmp_path / "job", style="3.0")
    result = regroup(
        moved, tmp_path, source / "run_it025_data.star", volumes=str(source / "*class*.mrc"), align=True
    )
    table = starfile.read(result.output / "relion" / "regrouped_particles.star")
    table = table.sort_values("rlnImageName", ignore_index=True)
    superclass = labels_of(result)[moved.class_of_particle]
    np.testing.assert_array_equal(table["rlnClassNumber"], superclass + 1)
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy(float)
    view = np.swapaxes(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), 1, 2)
    shift = table[["rlnOriginX", "rlnOriginY"]].to_numpy(float) * moved.voxel_size
    frames = frame_of(moved, result)
    assert worst_projection(moved, range(len(table)), view, shift, [frames[label] for label in superclass]) < NEAR_ANGSTROM


def test_parquet_with_one_class_per_particle(flat, tmp_path):
    file = small_job.write_parquet(flat, tmp_path / "hard.parquet", posteriors=False)
    result = regroup(flat, tmp_path, file)
    regrouped, _ = particles_of(result.output)
    np.testing.assert_array_equal(regrouped["assigned_class_id"].to_numpy(), flat.class_of_particle)
    np.testing.assert_array_equal(regrouped["superclass"].to_numpy(), labels_of(result)[flat.class_of_particle])
    np.testing.assert_array_equal(regrouped["uid"].to_numpy(), np.arange(len(regrouped)) + 1000)


def test_maps_alone_all_count_the_same(flat, tmp_path):
    result = regroup(flat, tmp_path)
    assert_true_groups(flat, result)
    assert [row["n_particles"] for row in result.superclasses.to_pylist()] == [None, None]
    assert not (result.output / "particles").exists()
    assert [row["reference_class"] for row in result.superclasses.to_pylist()] == [0, 1]


def store_zarr(job, folder):
    data = xr.DataArray(job.maps, dims=("class_id", "z", "y", "x"), attrs={"voxel_size_angstrom": job.voxel_size})
    data.to_dataset(name="volume").to_zarr(folder / "maps.zarr", consolidated=False)
    return folder / "maps.zarr"


def labelled(job, folder):
    names = ("class_id", "z", "y", "x")
    return xr.DataArray(job.maps, dims=names, attrs={"voxel_size_angstrom": job.voxel_size})


def files(job, folder, suffix=".mrc", dtype=np.float32):
    for class_id, volume in enumerate(job.maps):
        scaled = volume if np.dtype(dtype).kind == "f" else 100 * volume / np.abs(job.maps).max()
        path = small_job.write_map(folder / "maps" / f"my map_{class_id}.mrc", scaled.astype(dtype), job.voxel_size)
        if suffix == ".mrc.gz":
            path.with_suffix(suffix).write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return sorted((folder / "maps").iterdir())


@pytest.mark.parametrize(
    "given",
    [
        store_zarr,
        labelled,
        lambda job, folder: rd.open_volumes(store_zarr(job, folder)),
        lambda job, folder: list(labelled(job, folder).values),
        files,
        lambda job, folder: [str(path) for path in files(job, folder)],
        lambda job, folder: str(files(job, folder)[0].parent / "*.mrc"),
        lambda job, folder: files(job, folder, suffix=".mrc.gz"),
        lambda job, folder: files(job, folder, dtype=np.int8),
        lambda job, folder: files(job, folder, dtype=np.float16),
        lambda job, folder: rd.open_volumes(files(job, folder)),
        lambda job, folder: rd.open_volumes(files(job, folder)) * 2,
        lambda job, folder: rd.open_volumes(files(job, folder)).isel(class_id=slice(0, 4)),
    ],
    ids=["zarr", "labelled", "opened zarr", "arrays", "paths", "names", "glob", "gzip", "int8", "float16", "opened",
         "computed", "some"],
)  # fmt: skip
def test_volumes_in_every_form(flat, tmp_path, given):
    volumes = given(flat, tmp_path)
    voxel_size = {"voxel_size_angstrom": flat.voxel_size} if isinstance(volumes, list) and hasattr(volumes[0], "ndim") else {}
    pairs = rd.compare(volumes, **voxel_size)
    n = pairs.sizes["class_i"]
    expected = np.corrcoef(flat.maps.reshape(6, -1).astype(float))[:n, :n]
    np.testing.assert_allclose(pairs["correlation"].values, expected, atol=2e-2)
    groups = rd.group(pairs, 2)
    labels = groups["superclass"].values
    same_structure = flat.structure_of_class[:, None] == flat.structure_of_class
    np.testing.assert_array_equal(labels[:, None] == labels, same_structure[:n, :n])
    assert float(pairs.attrs["voxel_size_angstrom"]) == flat.voxel_size


def test_volumes_open_lazily_and_labelled(flat, tmp_path):
    volumes = rd.open_volumes(files(flat, tmp_path))
    assert volumes.dims == ("class_id", "z", "y", "x")
    assert volumes.chunks is not None
    assert volumes.attrs["voxel_size_angstrom"] == flat.voxel_size
    np.testing.assert_array_equal(volumes.values, flat.maps)


def test_voxel_size_zero_is_taken_from_the_particles_and_said(moved, tmp_path):
    source = small_job.write_cryosparc(moved, tmp_path / "J1")
    for path in source.glob("*volume.mrc"):
        with mrcfile.open(path, "r+") as stream:
            stream.voxel_size = 0.0
    file = source / "cryosparc_P1_J10_00042_particles.cs"
    with pytest.warns(RegroupWarning, match="voxel size"):
        result = regroup(moved, tmp_path, file, volumes=str(source / "*volume.mrc"))
    assert result.pairs.attrs["voxel_size_angstrom"] == moved.voxel_size
    record = json.loads((result.output / "run.json").read_text())
    assert any("voxel size" in sentence for sentence in record["warnings"])


def test_voxel_sizes_that_differ_by_little_are_warned_of(flat, tmp_path):
    paths = files(flat, tmp_path)
    small_job.write_map(paths[1], flat.maps[1], flat.voxel_size * 1.005)
    with pytest.warns(RegroupWarning, match=r"my map_1\.mrc"):
        rd.compare(paths)


@pytest.mark.parametrize("box", [17, 25])
def test_odd_boxes(tmp_path, box):
    job = small_job.make_job(structures=2, members=2, box=box, voxel_size=120 / box, seed=9, mirrored=(1,))
    result = regroup(job, tmp_path, align=True)
    assert_true_groups(job, result)
    frames = frame_of(job, result)
    for row in result.classes.to_pylist():
        sign = -1 if row["mirrored"] else 1
        found = Rotation.from_quat(row["rotation_quaternion"]).apply(sign * job.balls(row["class_id"]))
        assert np.abs(found + row["shift_angstrom"] - frames[row["superclass"]]).max() < 1.0
    with mrcfile.open(result.output / "volumes" / "superclass_000.mrc") as stream:
        assert stream.data.shape == (box,) * 3


# ---- the parameters of the original job ------------------------------------------------------------------------------


def weighted_correlation(maps, weight):
    mean = (maps * weight).sum(1, keepdims=True) / weight.sum()
    centred = (maps - mean) * np.sqrt(weight)
    return np.corrcoef(centred) if np.allclose(weight, 1) else (centred @ centred.T) / np.sqrt(
        np.outer((centred**2).sum(1), (centred**2).sum(1))
    )  # fmt: skip


@pytest.mark.parametrize("sphere", [None, 0.5, 1.0])
@pytest.mark.parametrize("with_mask", [False, True])
def test_unaligned_correlation_is_the_masked_correlation_in_the_common_frame(flat, tmp_path, sphere, with_mask):
    result = regroup(
        flat, tmp_path, mask_inner_radius=sphere, mask=soft_mask(flat, tmp_path) if with_mask else None
    )
    weight = np.ones(flat.maps[0].size)
    if sphere or with_mask:
        with mrcfile.open(result.output / "mask.mrc") as stream:
            weight = stream.data.astype(float).ravel()
            assert weight.min() >= 0
            assert weight.max() <= 1
    if sphere == 0.5:
        axis = np.arange(flat.box) - flat.box // 2
        radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).ravel()
        if not with_mask:
            np.testing.assert_array_equal(weight[radius <= 0.5 * flat.box / 2], 1)
        assert weight[radius > flat.box / 2].max() < 0.5
        assert weight.reshape(flat.maps[0].shape)[0, 0, 0] == 0
    expected = weighted_correlation(flat.maps.reshape(6, -1).astype(float), weight)
    np.testing.assert_allclose(result.pairs["correlation"].values, expected, atol=1e-5)
    np.testing.assert_array_equal(result.pairs["rotation_quaternion"].values, np.broadcast_to([0, 0, 0, 1.0], (6, 6, 4)))
    assert not result.pairs["shift_angstrom"].values.any()
    for row in result.superclasses.to_pylist():
        members = labels_of(result) == row["superclass"]
        with mrcfile.open(result.output / row["volume"]) as stream:
            np.testing.assert_allclose(stream.data, flat.maps[members].mean(0, dtype=float), rtol=1e-6, atol=1e-6)


def soft_mask(job, folder) -> Path:
    values = small_job.density(np.array([[10.0, 0.0, -5.0]]), job.box, job.voxel_size) ** 0.1
    return small_job.write_map(folder / "mask.mrc", values.astype(np.float32), job.voxel_size)


def test_mask_lies_in_the_frame_of_the_largest_class_and_moves_with_the_others(tmp_path):
    """Two structures that differ by the place of one ball are one structure where a mask cuts both places away."""
    job = small_job.make_job(structures=2, members=2, seed=12, n_balls=16)
    places = np.array([[28.0, 0, 8], [-20, 20, -12]])
    job.structures[1][:] = job.structures[0]
    job.structures[0][-1], job.structures[1][-1] = places
    maps = np.stack([small_job.density(job.balls(k), job.box, job.voxel_size) for k in range(4)])
    job = job._replace(maps=(maps + 0.01 * np.random.default_rng(1).normal(size=maps.shape)).astype(np.float32))
    sizes = [10, 30, 20, 10]
    whole = rd.compare(job.maps, align=True, n_particles=sizes, voxel_size_angstrom=job.voxel_size)
    cut = places @ job.rotation[1].T + job.shift[1]
    mask = np.clip(1.2 - 3 * small_job.density(cut, job.box, job.voxel_size) ** 0.25, 0, 1)
    path = small_job.write_map(tmp_path / "mask.mrc", mask.astype(np.float32), job.voxel_size)
    masked = rd.compare(job.maps, align=True, n_particles=sizes, voxel_size_angstrom=job.voxel_size, mask=path)
    other = (0, 1), (0, 3), (2, 1), (2, 3)
    assert max(float(whole["correlation"][pair]) for pair in other) < 0.99
    assert min(float(masked["correlation"][pair]) for pair in other) > 0.99


def test_excluded_and_too_small_classes_take_no_part_and_their_particles_remain(flat, particles, tmp_path):
    sizes = np.bincount(flat.posteriors.argmax(1), minlength=6)
    limit = int(np.sort(np.delete(sizes, 1))[0]) + 1
    small = [k for k in range(6) if k != 1 and sizes[k] < limit]
    result = regroup(flat, tmp_path, particles, exclude_classes=[1], minimum_class_size=limit)
    rows = result.classes.to_pylist()
    expected = ["excluded" if k == 1 else "too_small" if k in small else "grouped" for k in range(6)]
    assert [row["status"] for row in rows] == expected
    assert [row["superclass"] for row in rows if row["status"] != "grouped"] == [-1] * (1 + len(small))
    assert [row["n_particles"] for row in rows] == sizes.tolist()
    assert_true_groups(flat, result)
    regrouped, remaining = particles_of(result.output)
    assert set(remaining["assigned_class_id"].to_pylist()) == {1, *small}
    assert result.n_remaining == remaining.num_rows == sizes[[1, *small]].sum()
    everyone = sorted(regrouped["input_row"].to_pylist() + remaining["input_row"].to_pylist())
    assert everyone == list(range(len(flat.posteriors)))
    members = labels_of(result) == 0
    with mrcfile.open(result.output / "volumes" / "superclass_000.mrc") as stream:
        np.testing.assert_allclose(stream.data, flat.maps[members].mean(0, dtype=float), rtol=1e-6, atol=1e-6)
    assert result.pairs.sizes["class_i"] == 5 - len(small)


def test_a_class_at_the_minimum_size_takes_part(flat, particles, tmp_path):
    sizes = np.bincount(flat.posteriors.argmax(1), minlength=6)
    result = regroup(flat, tmp_path, particles, minimum_class_size=int(sizes.min()))
    assert {row["status"] for row in result.classes.to_pylist()} == {"grouped"}


@pytest.mark.parametrize("posteriors", [True, False])
def test_a_map_that_no_particle_chose_takes_part_with_size_0(tmp_path, posteriors):
    job = small_job.make_job(structures=2, members=2, box=16, moved=False, seed=8, empty=(2,))
    file = small_job.write_parquet(job, tmp_path / "p.parquet", posteriors=posteriors)
    result = regroup(job, tmp_path, file)
    assert_true_groups(job, result)
    assert result.classes.to_pylist()[2]["n_particles"] == 0
    assert result.classes.to_pylist()[2]["status"] == "grouped"
    again = regroup(job, tmp_path / "again", file, minimum_class_size=1)
    assert again.classes.to_pylist()[2]["status"] == "too_small"


def test_sum_of_posteriors_and_how_many_it_would_treat_differently(flat, particles, tmp_path):
    result = regroup(flat, tmp_path, particles, posteriors="sum")
    summed = np.stack([flat.posteriors[:, labels_of(result) == k].sum(1) for k in range(2)], axis=1)
    regrouped, _ = particles_of(result.output)
    np.testing.assert_array_equal(regrouped["superclass"].to_numpy(), summed.argmax(1))
    np.testing.assert_allclose(np.array(regrouped["superclass_posterior"].to_pylist()), summed, atol=1e-6)
    differ = (summed.argmax(1) != labels_of(result)[flat.posteriors.argmax(1)]).sum()
    assert differ > 0
    assert json.loads((result.output / "run.json").read_text())["n_particles_rules_differ"] == differ
    counts = [row["n_particles"] for row in result.superclasses.to_pylist()]
    assert counts == sorted(counts, reverse=True)
    assert counts == np.bincount(summed.argmax(1), minlength=2).tolist()


def test_keep_poses_leaves_every_bit(moved, tmp_path):
    source = small_job.write_cryosparc(moved, tmp_path / "J1")
    file = source / "cryosparc_P1_J10_00042_particles.cs"
    result = regroup(moved, tmp_path, file, volumes=str(source / "*volume.mrc"), align=True, update_poses=False)
    given, written = Dataset.load(file), Dataset.load(result.output / "cryosparc" / "regrouped_particles.cs")
    row_of = {int(uid): row for row, uid in enumerate(given["uid"])}
    rows = np.array([row_of[int(uid)] for uid in written["uid"]])
    best = moved.posteriors.argmax(1)[rows]
    for name in ("pose", "shift"):
        expected = given[f"alignments3D_multi/{name}"][rows, best]
        np.testing.assert_array_equal(written[f"alignments3D/{name}"], expected)


def test_common_frame_is_that_of_the_largest_class_of_all(moved, tmp_path):
    file = small_job.write_parquet(moved, tmp_path / "p.parquet")
    result = regroup(moved, tmp_path, file, align=True, frame="common")
    sizes = np.bincount(moved.posteriors.argmax(1), minlength=4)
    row = result.classes.to_pylist()[int(np.argmax(sizes))]
    assert row["rotation_quaternion"] == [0, 0, 0, 1]
    own = [r["reference_class"] for r in result.superclasses.to_pylist() if r["reference_class"] != row["class_id"]]
    assert result.classes.to_pylist()[own[0]]["rotation_quaternion"] != [0, 0, 0, 1]


def test_hand_off_never_mirrors(moved, tmp_path):
    pairs = rd.compare(moved.maps, align=True, hand="off", voxel_size_angstrom=moved.voxel_size)
    assert not pairs["mirrored"].values.any()
    detected = rd.compare(moved.maps, align=True, voxel_size_angstrom=moved.voxel_size)
    assert bool(detected["mirrored"][0, 2])
    assert float(detected["correlation"][0, 2]) > float(pairs["correlation"][0, 2]) + 0.02


@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_number_of_superclasses(flat, tmp_path, k):
    groups = rd.group(rd.compare(flat.maps, voxel_size_angstrom=flat.voxel_size), k)
    assert sorted(set(groups["superclass"].values.tolist())) == list(range(k))


def test_number_of_superclasses_chosen(flat):
    groups = rd.group(rd.compare(flat.maps, voxel_size_angstrom=flat.voxel_size), "auto")
    assert groups.sizes["superclass_id"] == 2


def test_same_bytes_twice(flat, particles, tmp_path):
    first = regroup(flat, tmp_path / "a", particles, align=True)
    second = regroup(flat, tmp_path / "b", particles, align=True)
    for path in sorted(first.output.rglob("*")):
        if path.is_file() and path.name not in ("run.json", "report.html", "classes.csv", "classes.parquet"):
            assert path.read_bytes() == (second.output / path.relative_to(first.output)).read_bytes(), path


def test_group_takes_the_pairs_as_they_are(flat):
    pairs = rd.compare(flat.maps, align=True, voxel_size_angstrom=flat.voxel_size, n_particles=[1, 2, 3, 4, 5, 60])
    groups = rd.group(pairs, 2)
    assert groups["n_particles"].values.tolist() == [1, 2, 3, 4, 5, 60]
    assert groups["superclass"].values.tolist() == [1, 0, 1, 0, 1, 0]
    assert groups["reference_class"].values.tolist() == [5, 4]
    turned = rd.group(pairs, 2, n_particles=[60, 2, 3, 4, 5, 1])
    assert turned["superclass"].values.tolist() == [0, 1, 0, 1, 0, 1]


def test_align_one_pair_of_other_box_and_voxel_size(tmp_path):
    job = small_job.make_job(structures=1, members=2, box=32, voxel_size=4.0, seed=2, noise=0.01)
    reference = job.balls(0)
    coarse = small_job.density(job.balls(1), 24, 5.5).astype(np.float32)
    path = small_job.write_map(tmp_path / "coarse.mrc", coarse, 5.5)
    fine = small_job.write_map(tmp_path / "fine.mrc", job.maps[0], 4.0)
    found = rd.align(path, fine)
    moved = job.balls(1) @ found.rotation.T + found.shift_angstrom
    assert np.abs(moved - reference).max() < NEAR_ANGSTROM
    assert not found.mirrored
    assert found.correlation > 0.98


@pytest.mark.parametrize("keep", [[0, 2, 1], [0, 2, 4, 5], [5, 0, 2, 4], [1, 3, 2]])
def test_a_structure_of_one_class_is_a_superclass_of_its_own(flat, keep):
    pairs = rd.compare(flat.maps, voxel_size_angstrom=flat.voxel_size).isel(class_i=keep, class_j=keep)
    labels = rd.group(pairs, 2)["superclass"].values
    truth = flat.structure_of_class[keep]
    np.testing.assert_array_equal(labels[:, None] == labels, truth[:, None] == truth)
