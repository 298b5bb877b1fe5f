"""One map onto another, as a person asks for it: what is refused, what is kept, and what is said."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.cli import main
from regroup_dask.errors import InputError
from tests import small_job
from tests.science.particles import blobs, render

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


def turned_pair(box, *, radius, width=1.8, shift=(2.0, -1.0, 3.0), at=(0.0, 0.0, 0.0)):
    """A map, the same turned and shifted, the rotation and the shift in voxels; exact sums of Gaussians."""
    centres, masses = blobs(np.random.default_rng(3), radius=radius)
    centres = centres + np.asarray(at)
    rotation, shift = Rotation.from_euler("zyz", (40, 70, -25), degrees=True).as_matrix(), np.asarray(shift)
    moving = render(centres, masses, box=box, width=width)
    return moving, render(centres, masses, box=box, width=width, rotation=rotation, shift=shift), rotation, shift


def test_background_and_gain_change_nothing_even_where_boxes_differ():
    moving, reference, rotation, shift = turned_pair(40, radius=11.0)
    larger = np.pad(reference, 6)
    found = align(1e3 * moving - 5e5, 1e-4 * larger + 0.3)
    np.testing.assert_allclose(found.rotation, rotation, atol=0.004)
    np.testing.assert_allclose(found.shift_angstrom, shift * VOXEL, atol=0.3)
    assert 0.99 < found.correlation <= 1
    assert found.correlation_other_hand < 0.95


def test_a_small_particle_in_a_large_box_is_compared_at_its_own_size():
    moving, reference, rotation, _ = turned_pair(128, radius=8.0, width=1.1)
    found = align(moving, reference)
    np.testing.assert_allclose(found.rotation, rotation, atol=0.02)
    assert found.working_voxel_size_angstrom == VOXEL  # the box in 64 voxels would have twice that
    assert found.hand_told
    assert found.confidence > 6
    # Something faint far out takes part, bright as the rest may be.
    for volume, place in ((moving, 110), (reference, 20)):
        volume[place : place + 3, 60:68, 60:68] += 0.1 * volume.max()
    assert align(moving, reference).working_voxel_size_angstrom > 1.5 * VOXEL


def test_noise_that_fills_the_box_does_not_hide_the_hand_and_another_structure_has_none():
    rng = np.random.default_rng(5)
    centres, masses = blobs(rng, radius=11.0)
    rotation = Rotation.from_euler("zyz", (40, 70, -25), degrees=True).as_matrix()
    mirrored = render(centres, masses, box=48, rotation=rotation, mirrored=True)
    other = render(*blobs(np.random.default_rng(77), radius=11.0), box=48)
    noise = 1.2 * mirrored.std() * rng.normal(size=(2, 48, 48, 48)) / np.sqrt((mirrored > 0.05 * mirrored.max()).mean())
    found = align(render(centres, masses, box=48) + noise[0], mirrored + noise[1])
    assert found.correlation - found.correlation_other_hand < 0.02
    assert found.hand_told
    assert found.mirrored
    assert align(other + noise[0], mirrored + noise[1]).hand_told is False
    flat = centres * [1, 1, 0]  # its own mirror image
    turned = render(flat, masses, box=48, rotation=rotation)
    assert align(render(flat, masses, box=48) + noise[0], turned + noise[1]).hand_told is False


def test_a_shift_that_the_limit_cuts_short_is_called_so():
    moving, reference, _, _ = turned_pair(40, radius=6.0, at=(9.0, 0.0, 0.0), shift=(0.0, 0.0, -9.0))
    notes = align(moving, reference, maximum_shift_angstrom=10.0).notes
    assert any(note.startswith("The shift is as long as the maximum shift of 10 A allows") for note in notes)
    assert not any("maximum shift" in note for note in align(moving, reference, maximum_shift_angstrom=70.0).notes)


def test_the_moved_map_has_the_background_of_the_map_everywhere(tmp_path):
    moving, reference, _, _ = turned_pair(32, radius=8.0)
    paths = [
        small_job.write_map(tmp_path / f"{name}.mrc", volume.astype(np.float32), VOXEL)
        for name, volume in (("moving", moving + 70.0), ("reference", reference))
    ]
    done = CliRunner().invoke(main, ["align", *map(str, paths), "-o", str(tmp_path / "moved.mrc")])
    assert done.exit_code == 0, done.output
    moved = rd.open_volumes(tmp_path / "moved.mrc").values[0]
    np.testing.assert_allclose(moved - 70.0, reference, atol=0.03 * reference.max())
