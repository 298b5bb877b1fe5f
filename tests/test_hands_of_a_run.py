"""Classes of the opposite hand, through a whole run: which are inverted, what is said of it, where particles then project."""

import numpy as np
import pytest
import xarray as xr
from cryosparc.dataset import Dataset
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.settings import Settings
from regroup_dask.steps.hand_sentences import hand_sentences
from tests import small_job
from tests.science.particles import blobs, random_rotation, render

NEAR_ANGSTROM = 0.6
# Particles of the classes of this seed: 16 15 18 19 9 13. Classes 0, 2, 4 are of one structure, 1, 3, 5 of the other.
LARGEST_OF_EACH = (2, 3)


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")


def job_with(mirrored):
    job = small_job.make_job(structures=2, members=3, n_particles=90, mirrored=mirrored, seed=3)
    assert np.bincount(job.class_of_particle).tolist() == [16, 15, 18, 19, 9, 13]
    return job


def regroup(job, folder, **options):
    source = small_job.write_cryosparc(job, folder / "J10")
    return rd.regroup(
        str(source / "*_volume.mrc"),
        source / "cryosparc_P1_J10_00042_particles.cs",
        n_superclasses=2,
        align=True,
        output=folder / "out",
        **options,
    )


def in_frame(job, row):
    """Balls of a class where its pose puts them."""
    sign = -1 if row["mirrored"] else 1
    rotation = Rotation.from_quat(row["rotation_quaternion"])
    return rotation.apply(sign * job.balls(row["class_id"])) + np.array(row["shift_angstrom"])


def assert_particles_project_right(job, result):
    rows = {row["class_id"]: row for row in result.classes.to_pylist()}
    frames = {
        row["superclass"]: in_frame(job, rows[row["reference_class"]]) for row in result.superclasses.to_pylist()
    }
    for row in rows.values():
        assert np.abs(in_frame(job, row) - frames[row["superclass"]]).max() < NEAR_ANGSTROM
    written = Dataset.load(result.output / "cryosparc" / "regrouped_particles.cs")
    given = Dataset.load(result.output.parent / "J10" / "cryosparc_P1_J10_00042_particles.cs")
    number = {int(uid): row for row, uid in enumerate(given["uid"])}
    view = np.swapaxes(Rotation.from_rotvec(written["alignments3D/pose"].astype(float)).as_matrix(), 1, 2)
    assert len(written) == len(given)
    for uid, label, turn, shift in zip(
        written["uid"], written["alignments3D/class"], view, written["alignments3D/shift"] * job.voxel_size, strict=True
    ):
        there = small_job.image_coordinates(frames[int(label)], turn, shift)
        assert np.abs(there - job.seen(number[int(uid)])).max() < NEAR_ANGSTROM


@pytest.mark.parametrize("frame", ["superclass", "common"])
def test_the_largest_class_is_inverted_when_most_particles_are_of_the_other_hand(tmp_path, frame):
    job = job_with(LARGEST_OF_EACH)
    result = regroup(job, tmp_path, frame=frame)
    rows = result.classes.to_pylist()
    assert [row["class_id"] for row in rows if row["mirrored"]] == list(LARGEST_OF_EACH)
    still = LARGEST_OF_EACH if frame == "superclass" else LARGEST_OF_EACH[1:]
    for class_id in still:  # a frame is still that of the largest class: inverted, neither turned nor moved
        assert rows[class_id]["rotation_quaternion"] == [0, 0, 0, 1]
        assert rows[class_id]["shift_angstrom"] == [0, 0, 0]
    (note,) = result.warnings
    assert note.startswith("Of the opposite hand to most of the particles: class 2, 3;")
    assert_particles_project_right(job, result)


def test_in_a_common_frame_hands_agree_where_no_pair_tells_that_of_the_largest_class(tmp_path):
    """Class 3 is the largest, and nothing tells its hand against classes 0, 2 and 4; those tell each other's."""
    job = job_with((4,))
    result = regroup(job, tmp_path, frame="common")
    trust = result.pairs["hand_trust"].values
    assert not trust[np.ix_([0, 2, 4], [1, 3, 5])].any()
    assert [row["mirrored"] for row in result.classes.to_pylist()] == job.mirrored.tolist()
    assert result.warnings[0].startswith("Of the opposite hand to most of the particles: class 4;")
    assert_particles_project_right(job, result)


def test_when_every_class_is_inverted_none_is_of_the_opposite_hand(tmp_path):
    job = job_with(tuple(range(6)))
    result = regroup(job, tmp_path)
    assert not any(row["mirrored"] for row in result.classes.to_pylist())
    assert result.warnings == ()
    assert_particles_project_right(job, result)


def test_at_low_resolution_the_hand_stays_and_the_run_says_so(tmp_path):
    job = job_with((4,))
    blurred = np.stack([gaussian_filter(volume.astype(float), 4.0) for volume in job.maps])
    rng = np.random.default_rng(0)
    blurred += 0.02 * blurred.std() * rng.normal(size=blurred.shape)
    result = regroup(job._replace(maps=blurred.astype(np.float32)), tmp_path)
    assert not result.pairs["hand_trust"].values.any()
    assert not any(row["mirrored"] for row in result.classes.to_pylist())
    assert "At the resolution of these maps their hand cannot be told: every class keeps the hand it has." in result.warnings


def test_a_class_of_whose_hand_nothing_is_known_is_named():
    trust = np.zeros((4, 4))
    trust[0, 1] = trust[1, 0] = 9.0
    pairs = xr.Dataset(
        {
            "hand_trust": (("class_i", "class_j"), trust),
            "mirrored": (("class_i", "class_j"), np.zeros((4, 4), bool)),
            "correlation": (("class_i", "class_j"), np.full((4, 4), 0.8)),
        }
    )
    groups = xr.Dataset(
        {"superclass": ("class_id", [0, 0, 0, 1]), "opposite_hand": ("class_id", np.zeros(4, bool))},
        coords={"class_id": [3, 5, 6, 8], "n_particles": ("class_id", [10, 10, 10, 10])},
    )
    (sentence,) = hand_sentences(pairs, groups, Settings(n_superclasses=2))
    assert sentence.startswith("Whether class 6 is of the hand of the rest of its superclass cannot be told")


def test_noise_that_fills_the_box_does_not_hide_which_map_is_of_the_other_hand():
    """The plain correlations of both hands differ by less than real maps may; the search sees only what is signal."""
    rng = np.random.default_rng(5)
    centres, masses = blobs(rng, radius=10.0)
    poses = [{"rotation": random_rotation(rng), "mirrored": number == 1} for number in range(3)]
    volumes = np.array([render(centres, masses, box=40, **pose) for pose in poses])
    strength = 1.4 * volumes[0].std() / np.sqrt((volumes[0] > 0.05 * volumes[0].max()).mean())
    pairs = rd.compare(volumes + strength * rng.normal(size=volumes.shape), align=True, voxel_size_angstrom=4.0)
    assert (pairs["correlation"] - pairs["correlation_other_hand"]).values[0, 1] < 0.02
    np.testing.assert_array_equal(pairs["mirrored"].values, [[False, True, False], [True, False, True], [False, True, False]])
    assert rd.group(pairs, 1)["opposite_hand"].values.tolist() == [False, True, False]
