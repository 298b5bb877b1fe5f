import shutil

import numpy as np
import pytest

from regroup_dask.errors import InputError
from regroup_dask.formats.job_folder import read_model_ssnr, recognise_job
from regroup_dask.formats.model_star import read_model_classes

MODEL = """
# version 30001

data_model_general

_rlnReferenceDimensionality                        3
_rlnOriginalImageSize                             64
_rlnPixelSize                               3.540000
_rlnNrClasses                       {count}
_rlnTau2FudgeFactor                 2.000000


# version 30001

data_model_classes

loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnEstimatedResolution #3
_rlnOverallFourierCompleteness #4
{rows}


data_model_class_1

loop_
_rlnSpectralIndex #1
_rlnSsnrMap #2
0 999.0
1 12.5
2 inf
3 -nan

"""


def make_relion_job(folder, count=4, iteration="it025", project="Class3D/job016"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(
        f"{project}/run_{iteration}_class{k:03d}.mrc {0 if k == count else 0.2} "
        f"{'inf' if k == count else 12.5} "
        f"{'-nan' if k == count else 1.0}"
        for k in range(1, count + 1)
    )
    (folder / f"run_{iteration}_model.star").write_text(MODEL.format(count=count, rows=rows))
    (folder / f"run_{iteration}_data.star").write_text("data_particles\n")
    for k in range(1, count + 1):
        (folder / f"run_{iteration}_class{k:03d}.mrc").touch()
    return folder


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names(paths):
    return [path.rsplit("/", 1)[-1] for path in paths]


# ---- RELION


def test_relion_takes_the_newest_iteration(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    make_relion_job(folder, iteration="it010")
    make_relion_job(folder, iteration="it002")
    (folder / "job.star").write_text("data_job\n\n_rlnJobTypeLabel             relion.class3d\n")
    job = recognise_job(folder)
    assert (job.kind, job.iteration, job.job_type) == ("relion", 25, "relion.class3d")
    assert names(job.particle_files) == ["run_it025_data.star"]
    assert names(job.volume_files.values()) == [f"run_it025_class{k:03d}.mrc" for k in range(1, 5)]
    assert list(job.volume_files) == [0, 1, 2, 3]
    assert job.class_names[2] == "run_it025_class003"
    assert job.voxel_size_angstrom == 3.54
    assert any("no particles, kept: class ids 3" in line for line in job.lines)


def test_relion_continued_run_is_newer(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    make_relion_job(folder, iteration="ct25_it050")
    assert recognise_job(folder).iteration == 50
    assert names(recognise_job(folder).particle_files) == ["run_ct25_it050_data.star"]


def test_relion_maps_are_found_in_the_project_and_after_a_move(tmp_path):
    folder = make_relion_job(tmp_path / "project" / "Class3D" / "job016")
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert set(names(recognise_job(moved).volume_files.values())) == set(
        names(recognise_job(folder).volume_files.values())
    )
    # the maps stay in the project's folder, the tables are in a folder below it
    below = tmp_path / "project" / "copy"
    below.mkdir()
    for name in ("run_it025_model.star", "run_it025_data.star"):
        shutil.copy(folder / name, below)
    assert recognise_job(below).volume_files[1] == str(folder / "run_it025_class002.mrc")


def test_relion_missing_map_names_the_class(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    (folder / "run_it025_class003.mrc").unlink()
    with pytest.raises(InputError, match=r"class 3 \(class id 2\).*run_it025_class003\.mrc"):
        recognise_job(folder)


def test_relion_without_model_star_takes_the_maps_there_are(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    (folder / "run_it025_model.star").unlink()
    job = recognise_job(folder)
    assert job.model_star is None
    assert list(job.volume_files) == [0, 1, 2, 3]


def test_relion_of_one_class_or_without_maps_is_refused(tmp_path, shared_data):
    with pytest.raises(InputError, match="one class"):
        recognise_job(make_relion_job(tmp_path / "job", count=1))
    with pytest.raises(InputError, match="no class maps"):
        recognise_job(shared_data / "meta" / "cyl")


def test_ssnr_is_0_where_it_is_not_a_number(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    ssnr = read_model_ssnr(folder / "run_it025_model.star")
    assert list(ssnr) == [0]
    np.testing.assert_array_equal(ssnr[0], [499.5, 6.25, 0.0, 0.0])


@pytest.mark.shared_data
def test_real_model_stars(shared_data):
    excerpt = read_model_classes(shared_data / "meta" / "relion_class3d_excerpt" / "run_it025_model.star")
    assert len(excerpt.reference_images) == 4
    assert excerpt.distribution[3] == 0
    assert np.isinf(excerpt.resolution_angstrom[3])
    assert (excerpt.voxel_size_angstrom, excerpt.box) == (3.54, 64)
    ssnr = read_model_ssnr(shared_data / "meta" / "aspire_class3d_model.star")
    assert list(ssnr) == [0]
    assert ssnr[0].shape == (76,)
    assert ssnr[0][3] == 96060.615102 / 4  # rlnTau2FudgeFactor is 4


def test_star_of_something_else_is_refused(shared_data):
    with pytest.raises(InputError, match="model_classes"):
        read_model_classes(shared_data / "meta" / "run_it025_sampling_3D.star")


# ---- CryoSPARC


def cryosparc_files(prefix="cryosparc_P1_J10", classes=3, iteration="00042"):
    return [f"{prefix}_class_{k:02d}_{iteration}_volume.mrc" for k in range(classes)]


@pytest.mark.parametrize("prefix", ["cryosparc_P1_J10", "J10", "P1_J10", "cryosparc_gP25W6J10", "gP25W6J10"])
def test_cryosparc_with_any_prefix(tmp_path, prefix):
    folder = touch(
        tmp_path,
        *cryosparc_files(prefix),
        *cryosparc_files(prefix, iteration="00007"),
        f"{prefix}_00042_particles.cs",
        f"{prefix}_00007_particles.cs",
        f"{prefix}_passthrough_particles_all_classes.cs",
    )
    job = recognise_job(folder)
    assert (job.kind, job.iteration) == ("cryosparc", 42)
    assert names(job.particle_files) == [f"{prefix}_00042_particles.cs"]
    assert names(job.passthrough_files) == [f"{prefix}_passthrough_particles_all_classes.cs"]
    assert names(job.volume_files.values()) == cryosparc_files(prefix)


def test_cryosparc_copies_halves_sharpened_maps_and_per_class_files_are_not_taken_twice(tmp_path):
    maps = cryosparc_files()
    folder = touch(
        tmp_path,
        *maps,
        *[name.replace("_volume", "_volume_sharp") for name in maps],
        *[name.replace("_volume", "_volume_half_A") for name in maps],
        *[name.replace("_volume", "_volume_half_B") for name in maps[:2]],
        "cryosparc_P1_J10_00042_particles.cs",
        "cryosparc_P1_J10_00042_particles.csdat.cs",
        *[f"cryosparc_P1_J10_class_{k:02d}_00042_particles.cs" for k in range(3)],
        "P1_J10_passthrough_particles_all_classes.cs",
        *[f"P1_J10_passthrough_particles_class_{k}.cs" for k in range(3)],
        "J10_mask_solvent.mrc",
    )
    job = recognise_job(folder)
    assert names(job.particle_files) == ["cryosparc_P1_J10_00042_particles.cs"]
    assert names(job.passthrough_files) == ["P1_J10_passthrough_particles_all_classes.cs"]
    assert names(job.volume_files.values()) == maps
    assert list(job.half_map_files) == [0, 1]
    assert names([job.mask]) == ["J10_mask_solvent.mrc"]


def test_cryosparc_per_class_files_where_there_is_nothing_else(tmp_path):
    folder = touch(
        tmp_path,
        *cryosparc_files(),
        *[f"cryosparc_P1_J10_class_{k:02d}_00042_particles.cs" for k in range(3)],
        *[f"P1_J10_passthrough_particles_class_{k}.cs" for k in range(3)],
    )
    job = recognise_job(folder)
    assert len(job.particle_files) == len(job.passthrough_files) == 3


def test_cryosparc_ab_initio_final(tmp_path):
    folder = touch(
        tmp_path,
        *cryosparc_files("cryosparc_P1_J5", iteration="00900"),
        *cryosparc_files("cryosparc_P1_J5", iteration="final"),
        "cryosparc_P1_J5_final_particles.cs",
        "P1_J5_passthrough_particles_all_classes.cs",
    )
    job = recognise_job(folder)
    assert names(job.volume_files.values()) == cryosparc_files("cryosparc_P1_J5", iteration="final")
    assert job.iteration is None


def test_cryosparc_ab_initio_without_final_maps(tmp_path):
    folder = touch(
        tmp_path, *cryosparc_files("cryosparc_P1_J5", iteration="00900"), "cryosparc_P1_J5_final_particles.cs"
    )
    job = recognise_job(folder)
    assert job.iteration == 900
    assert any(
        "the particles are of final iteration, the maps of iteration 900" in line for line in job.lines
    )


def test_cryosparc_job_type_is_said(tmp_path):
    folder = touch(tmp_path, *cryosparc_files(), "cryosparc_P1_J10_00042_particles.cs")
    (folder / "job.json").write_text('{"type": "hetero_refine"}')
    assert recognise_job(folder).lines[0].startswith("CryoSPARC job hetero_refine")


def test_cryosparc_missing_map_names_the_class(tmp_path):
    folder = touch(tmp_path, *cryosparc_files(), "cryosparc_P1_J10_00042_particles.cs")
    (folder / "cryosparc_P1_J10_class_01_00042_volume.mrc").unlink()
    with pytest.raises(InputError, match=r"class 1 of .* has no map"):
        recognise_job(folder)


# ---- neither


def test_what_is_no_job_is_refused(tmp_path):
    with pytest.raises(InputError, match="not recognised as a job"):
        recognise_job(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        recognise_job(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        recognise_job(tmp_path / "file")


def test_cryosparc_iteration_that_lacks_the_last_class_is_refused(tmp_path):
    folder = touch(
        tmp_path,
        *cryosparc_files(iteration="00041"),
        *cryosparc_files(iteration="00042")[:2],
        "cryosparc_P1_J10_00042_particles.cs",
    )
    with pytest.raises(InputError, match="class 2 of 3"):
        recognise_job(folder)


def test_relion_without_model_star_and_a_map_is_refused(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    (folder / "run_it025_model.star").unlink()
    (folder / "run_it025_class002.mrc").unlink()
    with pytest.raises(InputError, match=r"class 2 \(class id 1\)"):
        recognise_job(folder)
