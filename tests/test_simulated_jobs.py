"""The ribosome jobs of the shared simulation, from the command line: the true superclasses and poses."""

import subprocess
import sys

import pytest

from tests.truth_of_simulation import against_truth

VOXEL_ANGSTROM = 3.6


@pytest.fixture(scope="module")
def simulation(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation")
    program = [sys.executable, str(shared_data / "simulate_ribosome.py"), "--out", str(folder), "--seed", "11"]
    subprocess.run(program, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("job", ["cryosparc/J10", "relion/Class3D/job016"])
def test_true_superclasses_and_poses(simulation, tmp_path, job):
    command = [sys.executable, "-m", "regroup_dask", "run", str(simulation / job), "-k", "4", "--align-pairs"]
    done = subprocess.run(
        [*command, "--maximum-shift", "25", "-o", str(tmp_path / "out")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = against_truth(tmp_path / "out", simulation)
    assert found.adjusted_rand_index == 1.0
    assert found.worst_rotation_degrees < 1.0
    assert found.worst_shift_angstrom < VOXEL_ANGSTROM / 2
