import numpy as np
import pyarrow.parquet
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from regroup_dask.demo import (
    JOB_NAME,
    MINIMUM_CLASS_SIZE,
    N_SUPERCLASSES,
    read_truth,
    simulate_job,
)
from regroup_dask.demo.structures import STATES, SUBUNITS, fold_subunits, state_residues
from regroup_dask.errors import InputError
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.volumes import find_volumes, read_map


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return simulate_job(tmp_path_factory.mktemp("demo"), n_particles=3000, box=40)


@pytest.fixture(scope="module")
def job(simulated):
    return recognise_job(f"{simulated.folder}/{JOB_NAME}")


@pytest.fixture(scope="module")
def table(job):
    from cryosparc.dataset import Dataset

    return Dataset.load(job.particle_files[0])


def test_same_seed_same_bytes(tmp_path):
    for name in ("one", "two"):
        simulate_job(tmp_path / name, n_particles=300, box=32, seed=3)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert len(files) == 17
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_job_is_recognised_as_what_it_plays(simulated, job):
    assert (job.kind, job.iteration, job.job_type) == ("cryosparc", 85, "hetero_refine")
    assert list(job.volume_files) == [one.class_id for one in simulated.classes] == list(range(12))
    assert len(job.particle_files) == len(job.passthrough_files) == 1


def test_maps_can_be_compared(simulated, job):
    series = find_volumes(list(job.volume_files.values()))
    assert series.voxel_size_angstrom == simulated.voxel_size_angstrom == 6.4
    assert all(np.isfinite(read_map(one)).all() for one in series.references)


def test_particles_are_understood(simulated, job):
    source = open_particles(job.particle_files, passthrough=job.passthrough_files)
    assert source.n_rows == simulated.n_particles
    assert source.class_ids == tuple(range(12))
    assert {"uid", "ctf/df1_A", "location/center_x_frac"} <= set(source.schema.names)


def test_posteriors_are_probabilities_of_the_shares_asked_for(simulated, table):
    posterior = np.asarray(table["alignments3D_multi/class_posterior"])
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, atol=1e-5)
    found = np.bincount(posterior.argmax(axis=1), minlength=12) / len(posterior)
    np.testing.assert_allclose(found, [one.share for one in simulated.classes], atol=0.03)
    known = pyarrow.parquet.read_table(f"{simulated.folder}/truth_particles.parquet")
    np.testing.assert_array_equal(known["uid"].to_numpy(), np.asarray(table["uid"]))
    states = np.array([one.state for one in simulated.classes])[posterior.argmax(axis=1)]
    assert 0.01 < (states != known["state"].to_numpy()).mean() < 0.05


def test_a_point_of_the_complex_is_seen_at_one_place_whatever_the_class(simulated, table):
    """The image of a fixed point must not depend on which class's pose and shift it is computed with."""
    point = np.array([30.0, -20.0, 45.0])
    poses = np.asarray(table["alignments3D_multi/pose"])
    shifts = np.asarray(table["alignments3D_multi/shift"]) * simulated.voxel_size_angstrom
    seen = []
    for one in simulated.classes:
        in_class = np.array(one.rotation) @ point + np.array(one.shift_angstrom)
        in_image = Rotation.from_rotvec(poses[:, one.class_id]).inv().apply(in_class)[:, :2]
        seen.append(in_image - shifts[:, one.class_id])
    spread = np.std(seen, axis=0)
    # 1.5 degrees at 58 A and 0.8 A of shift error; a wrong sign or frame spreads by tens of angstrom
    assert np.sqrt((spread**2).mean()) < 2.0


def test_true_poses_superpose_classes_of_one_state(simulated, job):
    maps, middle = [], simulated.box // 2
    for one in simulated.classes:
        volume = read_map(find_volumes([job.volume_files[one.class_id]]).references[0])
        # x = R^T (y - t), so the map in the common frame is V(R x + t); indices are z, y, x
        flip = np.eye(3)[::-1]
        matrix = flip @ np.array(one.rotation) @ flip
        shift = np.array(one.shift_angstrom)[::-1] / simulated.voxel_size_angstrom
        maps.append(
            affine_transform(volume, matrix, offset=middle + shift - matrix @ np.full(3, middle), order=3)
        )
    correlation = np.corrcoef(np.reshape(maps, (len(maps), -1)))
    states = np.array([one.state for one in simulated.classes])
    same = (states[:, None] == states) & ~np.eye(len(states), dtype=bool) & (states >= 0)
    other = (states[:, None] != states) & (states >= 0) & (states[:, None] >= 0)
    assert correlation[same].min() > correlation[other].max() + 0.03


def test_smallest_class_is_junk_and_below_the_minimum_class_size(simulated):
    shares = [one.share for one in simulated.classes]
    junk = simulated.classes[int(np.argmin(shares))]
    assert junk.state == -1
    assert junk.share * 20000 < MINIMUM_CLASS_SIZE / 2
    assert sorted(shares)[1] * 20000 > 1.5 * MINIMUM_CLASS_SIZE
    assert {one.state for one in simulated.classes} == {-1, *range(N_SUPERCLASSES)}


def test_complex_is_protein_like_and_fits_the_box():
    folded = fold_subunits(np.random.default_rng(0))
    for name, residues in folded.items():
        steps = np.linalg.norm(np.diff(residues, axis=0), axis=1)
        np.testing.assert_allclose(steps, 3.8, rtol=1e-6)
        assert len(residues) == SUBUNITS[name].residues
    np.testing.assert_allclose(state_residues(folded, STATES[0]).mean(axis=0), 0.0, atol=1e-9)
    for state in STATES:
        assert np.linalg.norm(state_residues(folded, state), axis=1).max() < 105


def test_truth_is_kept(simulated, tmp_path):
    assert read_truth(simulated.folder) == simulated
    with pytest.raises(InputError, match=r"truth\.json"):
        read_truth(tmp_path)
