"""What a run wrote and what an export makes of it show the same images: CryoSPARC, RELION and cryoDRGN."""

import pickle

import numpy as np
import pytest
import starfile
from click.testing import CliRunner

import regroup_dask as rd
from regroup_dask import pipeline
from regroup_dask.cli import main
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import inputs_of_job
from tests import small_job
from tests.cryodrgn_folder import write_training
from tests.test_main_job import NEAR_ANGSTROM, cryosparc_views, frame_of, relion_views, worst_projection


def make_job(**more):
    return small_job.make_job(structures=2, members=3, mirrored=(4,), seed=3, **more)


def exported(output, side, target):
    done = CliRunner().invoke(main, ["export", str(output), "--to", side, "-o", str(target), "--quiet"])
    assert done.exit_code == 0, done.output
    return target


def superclasses(job, result):
    return np.array([row["superclass"] for row in result.classes.to_pylist()])[job.class_of_particle]


def assert_projects_right(job, result, rows, view, shift, label):
    frames = frame_of(job, result)
    assert worst_projection(job, rows, view, shift, [frames[k] for k in label]) < NEAR_ANGSTROM


@pytest.fixture(scope="module")
def cryosparc_run(tmp_path_factory):
    job, folder = make_job(), tmp_path_factory.mktemp("cryosparc")
    source = small_job.write_cryosparc(job, folder / "J10")
    result = rd.regroup(
        str(source / "*_volume.mrc"),
        source / "cryosparc_P1_J10_00042_particles.cs",
        passthrough=[source / "P1_J10_passthrough_particles.cs"],
        n_superclasses=2,
        align=True,
        output=folder / "out",
    )
    return job, result


@pytest.fixture(scope="module")
def relion_run(tmp_path_factory):
    job, folder = make_job(), tmp_path_factory.mktemp("relion")
    source = small_job.write_relion(job, folder / "Class3D" / "job016")
    result = rd.regroup(
        str(source / "*class*.mrc"), source / "run_it025_data.star", n_superclasses=2, align=True, output=folder / "star"
    )
    return job, result


def test_a_cryosparc_run_exported_to_relion(tmp_path, cryosparc_run):
    job, result = cryosparc_run
    folder = exported(result.output, "relion", tmp_path / "relion")
    table = starfile.read(folder / "regrouped_particles.star", always_dict=True)["particles"]
    rows, label = np.arange(len(table)), table["rlnClassNumber"].to_numpy() - 1
    assert label.tolist() == superclasses(job, result).tolist()
    assert_projects_right(job, result, rows, *relion_views(table), label)
    names = starfile.read(folder / "model.star", always_dict=True)["model_classes"]["rlnReferenceImage"]
    assert [name == str(folder / f"run_it000_class00{k}.mrc") for k, name in enumerate(names, 1)] == [True, True]


def test_a_relion_run_exported_to_cryosparc(tmp_path, relion_run):
    job, result = relion_run
    folder = exported(result.output, "cryosparc", tmp_path / "cryosparc")
    records = np.load(folder / "regrouped_particles.cs")
    label = records["alignments3D/class"]
    assert label.tolist() == superclasses(job, result).tolist()
    view, shift = cryosparc_views(records["alignments3D/pose"], records["alignments3D/shift"], job.voxel_size)
    assert_projects_right(job, result, range(len(records)), view, shift, label)
    assert {path.name for path in folder.glob("*.csg")} == {
        "mask.csg", "regrouped_particles.csg", "remaining_particles.csg", "volumes_all_superclasses.csg",
        *(f"particles_superclass_{k}.csg" for k in (0, 1)), *(f"volume_superclass_{k}.csg" for k in (0, 1)),
    } - ({"mask.csg"} if not (result.output / "mask.mrc").exists() else set())  # fmt: skip


@pytest.mark.parametrize("run", ["cryosparc_run", "relion_run"])
def test_a_run_exported_to_cryodrgn(tmp_path, run, request):
    job, result = request.getfixturevalue(run)
    folder = exported(result.output, "cryodrgn", tmp_path / "drgn")
    labels, (view, translation) = (pickle.loads((folder / f"{name}.pkl").read_bytes()) for name in ("labels", "poses"))
    extent = np.full(len(labels), job.box * job.voxel_size)
    if run == "cryosparc_run":  # whose images have boxes of their own
        extent = np.prod(pickle.loads((folder / "ctf.pkl").read_bytes())[:, :2].astype(float), axis=1)
    assert_projects_right(job, result, range(len(labels)), view, translation * extent[:, None], labels)


@pytest.mark.parametrize(
    ("base", "program", "more"),
    [
        (1, "analyze", {}),
        (0, "analyze", {"refined": True}),
        (1, "landscape", {"indices": np.arange(60) * 2 + 3}),
    ],
)
def test_a_cryodrgn_analysis_runs_from_end_to_end(tmp_path, base, program, more):
    job = make_job()
    kmeans = write_training(job, tmp_path / "training", base=base, program=program, **more)
    # The folder of the analysis serves as well as the one with the maps.
    inputs = inputs_of_job(kmeans.parent, scratch=tmp_path / "scratch")
    assert [reference.name for reference in inputs.series.references] == [f"vol_{k + base:03d}" for k in range(6)]
    settings = Settings(n_superclasses=2, align=True)
    result = pipeline.regroup_inputs(inputs, settings, tmp_path / "OUT", client=None)
    folder = exported(result.output, "cryodrgn", tmp_path / "drgn")
    assert {path.name for path in folder.iterdir()} == {
        "labels.pkl", "poses.pkl", "ind_superclass_0.pkl", "ind_superclass_1.pkl",
    }  # fmt: skip
    labels, (view, translation) = (pickle.loads((folder / f"{name}.pkl").read_bytes()) for name in ("labels", "poses"))
    assert labels.tolist() == superclasses(job, result).tolist()
    shift = translation * (job.box * job.voxel_size)
    assert_projects_right(job, result, range(len(labels)), view, shift, labels)
    for k in range(2):
        rows = pickle.loads((folder / f"ind_superclass_{k}.pkl").read_bytes())
        assert rows.tolist() == np.flatnonzero(labels == k).tolist()


def test_the_width_of_cryodrgns_maps_follows_the_voxel_size_given(tmp_path):
    kmeans = write_training(make_job(), tmp_path / "training")
    given = inputs_of_job(kmeans, voxel_size_angstrom=10.0, scratch=tmp_path / "scratch").source
    plain = inputs_of_job(kmeans, scratch=tmp_path / "scratch").source
    shift = [source.particle_poses(source.to_table(), None)[1] for source in (given, plain)]
    np.testing.assert_allclose(shift[0], 2 * shift[1])


def test_without_poses_a_cryodrgn_analysis_gives_labels_only(tmp_path):
    kmeans = write_training(make_job(), tmp_path / "training", with_poses=False)
    inputs = inputs_of_job(kmeans, scratch=tmp_path / "scratch")
    assert any("poses: none" in line for line in inputs.lines)
    result = pipeline.regroup_inputs(inputs, Settings(n_superclasses=2, align=True), tmp_path / "OUT", client=None)
    folder = exported(result.output, "cryodrgn", tmp_path / "drgn")
    assert not (folder / "poses.pkl").exists()
    done = CliRunner().invoke(main, ["export", str(result.output), "--to", "relion", "-o", str(tmp_path / "no")])
    assert done.exit_code == 2
    assert "name no images" in done.output
    assert not (tmp_path / "no").exists()
