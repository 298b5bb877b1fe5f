"""The demo's job as RELION and cryoDRGN would have left it says the same of classes, poses and particles."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.demo import JOB_NAME, simulate_job, write_cryodrgn_analysis, write_relion_job
from regroup_dask.errors import InputError
from regroup_dask.formats.volumes import find_volumes, read_map


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return simulate_job(tmp_path_factory.mktemp("demo"), n_particles=900, box=32)


@pytest.fixture(scope="module")
def source(truth):
    job = rd.open_job(f"{truth.folder}/{JOB_NAME}")
    return rd.open_particles(job.particle_files, passthrough=job.passthrough_files)


def test_relion_has_the_same_classes_and_poses(truth, source):
    job = rd.open_job(write_relion_job(truth))
    assert job.kind == "relion"
    assert job.iteration == 25
    assert len(job.volume_files) == len(truth.classes)
    relion = rd.open_particles(job.particle_files)
    table, given = relion.to_table(), source.to_table()
    best = source.class_posteriors(given).argmax(axis=1)
    np.testing.assert_array_equal(relion.class_posteriors(table).argmax(axis=1), best)
    rotation, shift = relion.particle_poses(table, best)
    expected_rotation, expected_shift = source.particle_poses(given, best)
    angles = Rotation.from_matrix(rotation @ np.swapaxes(expected_rotation, 1, 2)).magnitude()
    assert np.degrees(angles).max() < 1e-3
    np.testing.assert_allclose(shift, expected_shift, atol=1e-4)


def test_cryodrgn_has_its_maps_in_one_frame(truth, source, tmp_path, monkeypatch):
    job = rd.open_job(write_cryodrgn_analysis(truth))
    assert job.kind == "cryodrgn"
    assert len(job.volume_files) == len(truth.classes)
    labels = rd.open_particles(job.particle_files)
    best = source.class_posteriors(source.to_table()).argmax(axis=1)
    np.testing.assert_array_equal(labels.class_posteriors(labels.to_table()).argmax(axis=1), best)
    maps = np.stack([read_map(one) for one in find_volumes(list(job.volume_files.values())).references])
    states = np.array([one.state for one in truth.classes])
    alike = np.corrcoef(maps.reshape(len(maps), -1))
    for number in np.flatnonzero(states >= 0):
        order = np.argsort(-alike[number])
        assert states[order[1]] == states[number]


def test_a_job_is_regrouped_as_it_is(truth, tmp_path, monkeypatch):
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
    job = rd.open_job(f"{truth.folder}/{JOB_NAME}")
    result = rd.regroup(job, n_superclasses=2, output=tmp_path / "OUT")
    assert sum(result.superclasses["n_particles"].to_pylist()) + result.n_remaining == 900
    assert (result.output / "cryosparc" / "regrouped_particles.cs").is_file()
    with pytest.raises(InputError, match="brings its own particles"):
        rd.regroup(job, "particles.cs", n_superclasses=2, output=tmp_path / "none")
