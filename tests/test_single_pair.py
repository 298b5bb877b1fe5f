"""One map onto another, as a person asks for it: what is refused, what is kept, and what is said."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

import regroup_dask as rd
from regroup_dask.cli import main
from regroup_dask.errors import InputError
from tests import small_job

VOXEL = 5.0


@pytest.fixture(scope="module")
def job():
    return small_job.make_job(structures=1, members=2, noise=0.01, mirrored=(1,), seed=6)


def align(moving, reference, **options):
    return rd.align(moving, reference, voxel_size_angstrom=VOXEL, **options)


def test_maps_of_opposite_contrast_are_refused_with_the_remedy(job):
    with pytest.raises(InputError, match=r"with the sign of one changed\. Multiply one of them by -1"):
        align(-job.maps[1], job.maps[0])
    both = align(-job.maps[1], -job.maps[0])  # negative stain, say: of one contrast, whichever it is
    assert both.correlation > 0.95


def test_a_map_on_itself_stays_exactly_where_it_is(job):
    found = align(job.maps[0], job.maps[0])
    np.testing.assert_array_equal(found.rotation, np.eye(3))
    np.testing.assert_array_equal(found.shift_angstrom, 0)
    assert found.correlation == pytest.approx(1)
    assert found.hand_told
    assert found.notes == ()


def test_a_hand_that_is_told_is_taken_and_one_that_is_not_is_kept(job):
    sharp = align(job.maps[1], job.maps[0])
    assert sharp.mirrored
    assert sharp.hand_told
    rng = np.random.default_rng(0)
    blurred = [gaussian_filter(volume, 4.0) + 1e-3 * rng.normal(size=volume.shape) for volume in job.maps]
    found = align(blurred[1], blurred[0])
    assert not found.mirrored
    assert found.hand_told is False
    assert "The hand cannot be told from these maps: the moving map keeps the hand it has." in found.notes
    assert align(job.maps[0], job.maps[0], hand="off").hand_told is None


def test_a_pose_that_is_one_of_many_is_called_so():
    grid = np.indices((24,) * 3) - 12
    ball = np.exp(-(grid**2).sum(axis=0) / 40.0)
    rod = np.exp(-(grid[0] ** 2 / 60.0 + (grid[1] ** 2 + grid[2] ** 2) / 12.0))
    for volume in (ball, rod):
        assert any(note.startswith("Another pose, at least 10 degrees away") for note in align(volume, ball + rod).notes)


def test_the_command_says_what_the_confidence_is_and_passes_notes_on(job, tmp_path):
    paths = [small_job.write_map(tmp_path / f"{number}.mrc", volume, VOXEL) for number, volume in enumerate(job.maps)]
    told = CliRunner().invoke(main, ["align", str(paths[1]), str(paths[0]), "--json"])
    assert told.exit_code == 0, told.output
    values = json.loads(told.output)
    assert (values["mirrored"], values["hand_told"], values["notes"]) == (True, True, [])
    shown = CliRunner().invoke(main, ["align", str(paths[1]), str(paths[0])])
    assert f"{values['confidence']:.2f} standard deviations above the next pose" in shown.output
    text = " ".join(CliRunner().invoke(main, ["align", "--help"]).output.replace("│", " ").split())
    assert "in standard deviations of what unrelated maps score by chance" in text
    negative = small_job.write_map(tmp_path / "negative.mrc", -job.maps[1], VOXEL)
    refused = CliRunner().invoke(main, ["align", str(negative), str(paths[0])])
    assert refused.exit_code == 2
    assert "Multiply one of them by -1." in " ".join(refused.output.split())
