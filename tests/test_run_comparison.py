"""Two runs side by side: the same grouping under other numbers, other groupings, other jobs, nothing in common."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.cli import main
from regroup_dask.matched_maps import compare_superclass_maps
from regroup_dask.run_comparison import adjusted_rand_index, compare_runs, match_superclasses
from regroup_dask.science.rotations import Pose
from tests import small_job


@settings(deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 6)))
def test_the_index_is_that_of_scikit_learn(counts):
    from sklearn.metrics import adjusted_rand_score

    if not counts.any():
        return
    rows, columns = np.nonzero(counts)
    repeats = counts[rows, columns]
    expected = adjusted_rand_score(np.repeat(rows, repeats), np.repeat(columns, repeats))
    assert adjusted_rand_index(counts) == pytest.approx(expected, abs=1e-12)


def test_superclasses_are_matched_by_what_they_share():
    assert match_superclasses(np.array([[0, 9], [8, 0], [7, 8]])) == [(0, 1), (1, 0)]
    assert match_superclasses(np.array([[0, 0], [0, 3]])) == [(1, 1)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A job grouped as the truth has it, once more with one superclass more, and in one frame for all."""
    job = small_job.make_job(structures=2, members=3, n_particles=90, mirrored=(4,), seed=3)
    folder = tmp_path_factory.mktemp("runs")
    source = small_job.write_cryosparc(job, folder / "J10")
    particles = source / "cryosparc_P1_J10_00042_particles.cs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
        for name, options in {
            "two": {"n_superclasses": 2},
            "three": {"n_superclasses": 3},
            # Without its largest class a superclass takes the frame of another.
            "turned": {"n_superclasses": 2, "exclude_classes": (2,)},
        }.items():
            rd.regroup(str(source / "*_volume.mrc"), particles, align=True, output=folder / name, **options)
        other = small_job.write_cryosparc(job._replace(maps=job.maps + np.float32(0.01)), folder / "J11")
        rd.regroup(
            str(other / "*_volume.mrc"),
            other / "cryosparc_P1_J10_00042_particles.cs",
            n_superclasses=2,
            align=True,
            output=folder / "other job",
        )
        rd.regroup(str(source / "*_volume.mrc"), n_superclasses=2, align=True, output=folder / "maps only")
        alien = small_job.make_job(structures=2, members=2, box=16, moved=False, seed=9)
        rd.regroup(alien.maps, n_superclasses=2, output=folder / "alien", voxel_size_angstrom=5.0)
    return job, folder


def test_a_run_is_the_same_as_itself(runs):
    _, folder = runs
    found = compare_runs(folder / "two", folder / "two")
    assert found.same_grouping
    assert (found.class_agreement, found.particle_agreement) == (1.0, 1.0)
    assert found.settings == ()
    assert found.moved_classes == ()
    assert found.similarity_change == ()
    for match in found.matches:
        assert match.first == match.second
        assert match.overlap == 1.0
        assert match.maps.correlation == pytest.approx(1, abs=1e-6)
        assert match.maps.rotation_degrees == 0


def test_another_number_of_superclasses_is_told_class_by_class_and_particle_by_particle(runs):
    job, folder = runs
    found = compare_runs(folder / "two", folder / "three")
    assert not found.same_grouping
    assert found.settings == (("n_superclasses", 2, 3),)
    assert found.inputs == {"volumes": True, "particles": True}
    assert 0 < found.class_agreement < 1
    alone = [match.second for match in found.matches if match.first is None]
    assert len(alone) == 1
    gone = [class_id for class_id, _, second in found.moved_classes]
    assert {second for _, _, second in found.moved_classes} == set(alone)
    assert found.particles.key == "uid"
    assert found.particles.counts.sum() == 90
    assert found.particles.counts[:, alone[0]].sum() == np.isin(job.class_of_particle, gone).sum()


def test_maps_in_other_frames_are_brought_into_one_first(runs):
    job, folder = runs
    found = compare_runs(folder / "two", folder / "turned")
    assert found.class_agreement == 1.0
    assert found.particle_agreement == 1.0
    assert [entry[:1] + entry[2:] for entry in found.moved_classes] == [(2, -1)]
    still, turned = sorted((match.maps for match in found.matches), key=lambda maps: maps.rotation_degrees)
    assert still.rotation_degrees == 0
    assert still.correlation == pytest.approx(1, abs=1e-4)
    # The truth says by how much the frame of class 0 is turned against that of class 2.
    truth = Rotation.from_matrix(job.rotation[2] @ job.rotation[0].T).magnitude()
    assert turned.rotation_degrees == pytest.approx(np.degrees(truth), abs=2)
    assert turned.correlation > 0.97


def test_runs_over_other_maps_are_compared_by_their_particles(runs):
    _, folder = runs
    found = compare_runs(folder / "two", folder / "other job")
    assert found.class_ids == ()
    assert found.class_agreement is None
    assert found.particle_agreement == 1.0
    assert found.inputs["volumes"] is False
    assert all(match.overlap == 1.0 for match in found.matches)
    assert min(match.maps.correlation for match in found.matches) > 0.97


def test_runs_without_particles_are_compared_by_their_classes(runs):
    _, folder = runs
    found = compare_runs(folder / "maps only", folder / "two", maps=False)
    assert found.particles is None
    assert found.class_agreement == 1.0
    assert found.inputs["particles"] is None
    assert {match.shared for match in found.matches} == {3}
    assert all(match.maps is None for match in found.matches)


def test_the_command_says_what_changed(runs):
    _, folder = runs
    result = CliRunner().invoke(main, ["compare", str(folder / "two"), str(folder / "three")])
    assert result.exit_code == 0, result.output
    assert "The grouping differs: 6 classes in both" in result.output
    assert "by uid" in result.output
    assert "n_superclasses" in result.output
    assert "of 1 → superclass" in result.output
    same = CliRunner().invoke(main, ["compare", str(folder / "two"), str(folder / "two"), "--no-maps"])
    assert same.output.startswith("The grouping is the same")


def test_json_says_the_same(runs):
    _, folder = runs
    result = CliRunner().invoke(main, ["compare", str(folder / "two"), str(folder / "three"), "--json"])
    assert result.exit_code == 0, result.output
    plain = json.loads(result.output)
    found = compare_runs(folder / "two", folder / "three")
    assert plain["same_grouping"] is False
    assert plain["class_agreement"] == found.class_agreement
    assert plain["particles"]["counts"] == found.particles.counts.tolist()
    assert [(entry["first"], entry["second"]) for entry in plain["superclasses"]] == [match[:2] for match in found.matches]
    assert plain["superclasses"][0]["map_correlation"] == found.matches[0].maps.correlation


def test_nothing_in_common_is_an_error_that_says_so(runs, tmp_path):
    _, folder = runs
    result = CliRunner().invoke(main, ["compare", str(folder / "two"), str(folder / "alien")])
    assert result.exit_code == 2
    assert "cannot be compared" in result.output
    assert CliRunner().invoke(main, ["compare", str(folder / "two"), str(tmp_path)]).exit_code == 2


def test_agreement_of_maps_is_found_at_the_resolution_where_they_part(tmp_path):
    job = small_job.make_job(structures=1, members=2, box=32, noise=0.0, moved=False, seed=2)
    rough = np.random.default_rng(0).normal(size=job.maps[0].shape)
    spectrum = np.fft.fftn(rough)
    radius = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(32, 1 / 32) ** 2] * 3, indexing="ij")))
    noise = np.fft.ifftn(np.where(radius >= 6, spectrum, 0)).real
    paths = [tmp_path / name for name in ("clean.mrc", "noisy.mrc")]
    small_job.write_map(paths[0], job.maps[0], job.voxel_size)
    small_job.write_map(paths[1], (job.maps[0] + 20 * noise * job.maps[0].std()).astype(np.float32), job.voxel_size)
    found = compare_superclass_maps(*paths, Pose(np.eye(3), np.zeros(3)))
    # Shell 6 of a box of 160 angstrom; the edge of the mask mixes neighbouring shells.
    assert 160 / 7 < found.resolution_angstrom < 160 / 4.5
    turn = Rotation.from_rotvec([0.3, 0, 0]).as_matrix()
    assert compare_superclass_maps(*paths, Pose(turn, np.zeros(3))).rotation_degrees == pytest.approx(np.degrees(0.3))
