from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.demo import compare_with_truth, simulate_job


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return simulate_job(tmp_path_factory.mktemp("demo"), n_particles=2000, box=32)


def write_output(folder, truth, *, state_of_class=None, turn_degrees=0.0, move_angstrom=0.0, mirrored=()):
    """The tables of a run that found these states, its poses all wrong by so much."""
    folder.mkdir()
    states = state_of_class or [one.state for one in truth.classes]
    names = sorted(set(states) - {-1})
    reference = {
        state: max((one for one in truth.classes if states[one.class_id] == state), key=lambda one: one.share)
        for state in names
    }
    rows = []
    for one in truth.classes:
        state = states[one.class_id]
        grouped = state >= 0
        rotation, shift = np.eye(3), np.zeros(3)
        if grouped and one is not reference[state]:
            other = reference[state]
            rotation = np.array(other.rotation) @ np.array(one.rotation).T
            shift = np.array(other.shift_angstrom) - rotation @ np.array(one.shift_angstrom)
            wrong = Rotation.from_rotvec([0, 0, np.deg2rad(turn_degrees)]).as_matrix()
            middle = np.array(one.shift_angstrom)
            # turned about the middle of the complex, so that the shift stays right
            shift = shift + rotation @ middle - wrong @ rotation @ middle + np.array([move_angstrom, 0, 0])
            rotation = wrong @ rotation
        rows.append(
            {
                "class_id": one.class_id,
                "status": "grouped" if grouped else "too_small",
                "superclass": names.index(state) if grouped else -1,
                "mirrored": one.class_id in mirrored,
                "rotation_quaternion": Rotation.from_matrix(rotation).as_quat().tolist(),
                "shift_angstrom": shift.tolist(),
            }
        )
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "classes.parquet")
    superclasses = [
        {"superclass": names.index(state), "reference_class": reference[state].class_id} for state in names
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(superclasses), folder / "superclasses.parquet")
    from cryosparc.dataset import Dataset

    particles = Dataset.load(next((folder.parent / "J42").glob("*_particles.cs")))
    best = np.asarray(particles["alignments3D_multi/class_posterior"]).argmax(axis=1)
    given = np.array([row["superclass"] for row in rows])[best]
    kept = given >= 0
    pyarrow.dataset.write_dataset(
        pa.table({"uid": np.asarray(particles["uid"])[kept], "superclass": given[kept].astype(np.int32)}),
        folder / "particles",
        format="parquet",
        partitioning=pyarrow.dataset.partitioning(pa.schema([("superclass", pa.int32())]), flavor="hive"),
    )
    return folder


@pytest.fixture
def output(truth, tmp_path, request):
    return Path(truth.folder) / request.node.name.replace("[", "_").replace("]", "")


def test_the_truth_itself(truth, output):
    found = compare_with_truth(write_output(output, truth), truth)
    assert found.adjusted_rand_index == 1.0
    assert found.worst_rotation_degrees == pytest.approx(0.0, abs=1e-5)
    assert found.worst_shift_angstrom == pytest.approx(0.0, abs=1e-9)
    assert 0.95 < found.particles_right < 0.99
    assert any("left out (too small): junk" in line for line in found.lines)
    assert "superclass 0: complete, 4 of 4 classes" in found.lines


def test_poses_that_are_wrong_are_measured(truth, output):
    found = compare_with_truth(write_output(output, truth, turn_degrees=3.0, move_angstrom=2.5), truth)
    assert found.worst_rotation_degrees == pytest.approx(3.0)
    assert found.worst_shift_angstrom == pytest.approx(2.5)
    assert found.adjusted_rand_index == 1.0


def test_a_class_taken_for_the_other_hand_is_wrong(truth, output):
    member = next(one.class_id for one in truth.classes if one.state == 1)
    found = compare_with_truth(write_output(output, truth, mirrored=(member,)), truth)
    assert found.worst_rotation_degrees == 180.0


def test_states_that_are_wrong_are_measured(truth, output):
    states = [one.state for one in truth.classes]
    wrong = states.index(2)
    states[wrong] = 0
    found = compare_with_truth(write_output(output, truth, state_of_class=states), truth)
    assert found.adjusted_rand_index < 0.95
    assert found.particles_right < 0.95


def test_one_superclass(truth, output):
    states = [min(one.state, 0) for one in truth.classes]
    found = compare_with_truth(write_output(output, truth, state_of_class=states), truth)
    assert found.adjusted_rand_index == 0.0
