import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.cryodrgn import read_labels, read_poses
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.pickled_arrays import create_array_file, read_array, read_arrays, write_array
from tests.formats.mrc_files import density, write_with_mrcfile


def dump(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(7),
        np.arange(12, dtype=">i4").reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0,), np.uint8),
        np.array([True, False]),
    ],
)
def test_arrays_of_every_protocol(tmp_path, values, protocol):
    found = read_array(dump(tmp_path / "a.pkl", values, protocol))
    np.testing.assert_array_equal(found, values)
    assert found.dtype.newbyteorder("=") == values.dtype.newbyteorder("=")


def test_what_is_written_is_read_by_pickle(tmp_path):
    write_array(tmp_path / "a.pkl", np.arange(5))
    assert pickle.loads((tmp_path / "a.pkl").read_bytes()).tolist() == [0, 1, 2, 3, 4]


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_not_run(tmp_path):
    for value in (Hostile(tmp_path / "made"), [1, Hostile(tmp_path / "made")]):
        with pytest.raises(InputError, match=r"holds posix\.mkdir: only one array of numbers"):
            read_array(dump(tmp_path / "a.pkl", value))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", [{"a": 1}, "text", np.array([object()]), np.array(["a"]), np.ones(2) + 1j, None])
def test_other_things_are_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"a\.pkl"):
        read_array(dump(tmp_path / "a.pkl", value))


def test_a_length_that_is_not_there_takes_no_memory(tmp_path):
    data = pickle.dumps(np.arange(3, dtype="i1"), protocol=5)
    place = data.index(b"\x96") + 1
    (tmp_path / "a.pkl").write_bytes(data[:place] + (2**43).to_bytes(8, "little") + data[place + 8 :])
    with pytest.raises(InputError, match=r"a\.pkl cannot be read"):
        read_array(tmp_path / "a.pkl")


def test_a_huge_shape_takes_no_memory(tmp_path):
    data = pickle.dumps(np.arange(4), protocol=2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match="size and bytes disagree"):
        read_array(tmp_path / "a.pkl")


@pytest.mark.parametrize("base", [0, 1])
def test_an_analysis_folder_is_a_job(tmp_path, base):
    labels = np.array([0, 2, 1, 1, 2, 0, 0])
    dump(tmp_path / "labels.pkl", labels)
    for number in range(3):
        write_with_mrcfile(tmp_path / f"vol_{number + base:03d}.mrc", density(8, number))
    job = recognise_job(tmp_path)
    assert job.kind == "cryodrgn"
    assert [os.path.basename(job.volume_files[k]) for k in range(3)] == [f"vol_{k + base:03d}.mrc" for k in range(3)]
    source = open_particles(job.particle_files)
    assert source.files == job.particle_files
    assert source.class_posteriors(source.to_table()).argmax(axis=1).tolist() == labels.tolist()


def test_labels_and_maps_that_do_not_fit(tmp_path):
    dump(tmp_path / "labels.pkl", np.array([0, 3]))
    for number in (0, 1, 2):
        (tmp_path / f"vol_{number:03d}.mrc").write_text("")
    with pytest.raises(InputError, match="names class 3, but there are 3 maps"):
        read_labels(tmp_path)
    (tmp_path / "vol_001.mrc").unlink()
    with pytest.raises(InputError, match="not numbered without gaps"):
        read_labels(tmp_path)


kinds = st.sampled_from(["<i8", "<f4", "<i4", "<f8", "|u1", "|b1"])
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(arrays=st.lists(st.tuples(kinds, shapes), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_arrays_written_in_pieces_are_those_that_pickle_reads(tmp_path_factory, arrays, seed):
    path = tmp_path_factory.mktemp("pickle") / "a.pkl"
    random = np.random.default_rng(seed)
    values = [(random.normal(0, 99, shape) > 0 if kind == "|b1" else random.integers(0, 99, shape)).astype(kind)
              for kind, shape in arrays]  # fmt: skip
    file = create_array_file(path, arrays)
    for number, whole in enumerate(values):
        rows = np.sort(random.integers(0, len(whole) + 1, 2))
        # In any order, and once more: the last piece first, and the whole of them again.
        for start, stop in ((rows[1], len(whole)), (0, rows[0]), (rows[0], rows[1]), (0, rows[1])):
            file.write(number, int(start), whole[start:stop])
    loaded = pickle.loads(path.read_bytes())
    loaded = loaded if len(arrays) > 1 else (loaded,)
    for found in (loaded, read_arrays(path)):
        assert len(found) == len(values)
        for array, whole in zip(found, values, strict=True):
            assert array.dtype == whole.dtype
            np.testing.assert_array_equal(array, whole)


def test_a_row_outside_its_array_is_refused(tmp_path):
    file = create_array_file(tmp_path / "a.pkl", [("<f4", (3, 2))])
    for first, rows in ((2, np.zeros((2, 2))), (-1, np.zeros((1, 2))), (0, np.zeros((1, 3)))):
        with pytest.raises(ValueError, match="no place for"):
            file.write(0, first, rows)


@pytest.mark.parametrize(
    ("base", "labels", "expected"),
    [
        (0, [0, 1, 2], [0, 1, 2]),
        (1, [0, 1, 2], [0, 1, 2]),  # analyze
        (1, [1, 2, 3], [0, 1, 2]),  # analyze_landscape
        (1, [3, 3], [2, 2]),
        (0, [1, 2], [1, 2]),
    ],
)
def test_labels_count_from_0_or_as_the_maps_do(tmp_path, base, labels, expected):
    for number in range(3):
        (tmp_path / f"vol_{number + base:03d}.mrc").write_text("")
    dump(tmp_path / "labels.pkl", np.array(labels))
    assert read_labels(tmp_path)[0].tolist() == expected


def test_labels_that_do_not_say_where_they_count_from(tmp_path):
    for number in range(3):
        (tmp_path / f"vol_{number + 1:03d}.mrc").write_text("")
    dump(tmp_path / "labels.pkl", np.array([1, 2, 2]))
    with pytest.warns(RegroupWarning, match="0 was assumed"):
        assert read_labels(tmp_path)[0].tolist() == [1, 2, 2]
    for wrong in ([0, 3], [-1, 1], [1, 4]):
        dump(tmp_path / "labels.pkl", np.array(wrong))
        with pytest.raises(InputError, match="names class"):
            read_labels(tmp_path)


def test_poses_that_are_none(tmp_path):
    rotation, translation = Rotation.random(4, rng=1).as_matrix(), np.full((4, 2), 0.1)
    for value, match in [
        ((rotation, translation[:3]), "are expected"),
        ((rotation[:, :2], translation), "are expected"),
        ((rotation, translation, translation), "are expected"),
        ((rotation, 20 * translation), "fractions of the box"),
        ((2 * rotation, translation), "no rotations"),
        ((-rotation, translation), "no rotations"),
        ((rotation * np.nan, translation), "some here are not"),
        ((rotation[:3], translation[:3]), "3 poses for 4 particles"),
    ]:
        with pytest.raises(InputError, match=match):
            read_poses(dump(tmp_path / "poses.pkl", value), 4)
    only = read_poses(dump(tmp_path / "poses.pkl", rotation), 4)
    np.testing.assert_allclose(only[0], rotation, atol=1e-6)
    assert not only[1].any()
    dump(tmp_path / "ind.pkl", np.array([2, 0]))
    few = read_poses(tmp_path / "poses.pkl", 2, indices=tmp_path / "ind.pkl")
    np.testing.assert_allclose(few[0], rotation[[2, 0]], atol=1e-6)
    dump(tmp_path / "ind.pkl", np.array([2, 9]))
    with pytest.raises(InputError, match="no indices of the 4 poses"):
        read_poses(tmp_path / "poses.pkl", 2, indices=tmp_path / "ind.pkl")


def test_several_analyses_in_a_folder_are_asked_for(tmp_path):
    for name in ("kmeans20", "kmeans50"):
        (tmp_path / name).mkdir()
        dump(tmp_path / name / "labels.pkl", np.array([0, 1]))
        for number in range(2):
            write_with_mrcfile(tmp_path / name / f"vol_{number:03d}.mrc", density(8, number))
    with pytest.raises(InputError, match="kmeans20, kmeans50: give one"):
        recognise_job(tmp_path)
    assert recognise_job(tmp_path / "kmeans50").kind == "cryodrgn"
