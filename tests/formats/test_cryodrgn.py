import os
import pickle

import numpy as np
import pytest

from regroup_dask.errors import InputError
from regroup_dask.formats.cryodrgn import read_labels
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.pickled_arrays import read_array, write_array
from tests.formats.mrc_files import density, write_with_mrcfile


def dump(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
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
