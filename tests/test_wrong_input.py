"""Wrong input: exit code 2, one sentence that names what is wrong and what to do, nothing written."""

import gzip
import logging
import os
import shutil
from pathlib import Path

import dask
import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from distributed import LocalCluster

from regroup_dask.cli import main
from tests import small_job
from tests.formats.cryosparc.making import save

VOLUME = "cryosparc_P1_J10_class_{:02d}_00042_volume.mrc"
PARTICLES = "cryosparc_P1_J10_00042_particles.cs"


@pytest.fixture(scope="module")
def job():
    """Four classes of two structures, in one frame."""
    return small_job.make_job(structures=2, members=2, box=16, moved=False, seed=1)


@pytest.fixture(scope="module")
def pristine(job, tmp_path_factory):
    """The job as a CryoSPARC and as a RELION folder; read only."""
    folder = tmp_path_factory.mktemp("pristine")
    small_job.write_cryosparc(job, folder / "J10")
    small_job.write_relion(job, folder / "job016")
    small_job.write_parquet(job, folder / "particles.parquet")
    return folder


@pytest.fixture
def folder(pristine, tmp_path, monkeypatch):
    """A copy of the jobs to spoil; the working directory."""
    shutil.copytree(pristine, tmp_path / "jobs")
    monkeypatch.chdir(tmp_path / "jobs")
    return tmp_path / "jobs"


@pytest.fixture(scope="module")
def scheduler():
    """A cluster in this process, so that no test waits for one."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


@pytest.fixture
def refused(folder, scheduler):
    """Run a command that must be refused; returns its sentence."""

    def run(*arguments, code=2):
        before = everything(folder)
        result = CliRunner().invoke(main, ["run", *map(str, arguments), "--scheduler", scheduler])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        sentence = result.output[result.output.index("Error: ") :] if "Error: " in result.output else result.output
        assert "Traceback" not in result.output
        assert "This was not foreseen" not in result.output
        assert everything(folder) == before, "something was written"
        return " ".join(sentence.split())

    return run


def everything(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): -1 for path in folder.rglob("*") if path.is_dir()
    }


def rewrite(path: Path, volume: np.ndarray, voxel_size: float = 5.0) -> None:
    small_job.write_map(path, volume, voxel_size)


RUN = ("J10", "-k", "2", "-o", "OUT")


def test_the_job_itself_runs(folder, scheduler):
    result = CliRunner().invoke(main, ["run", *RUN, "--scheduler", scheduler, "--quiet"])
    assert result.exit_code == 0, result.output
    assert (folder / "OUT" / "report.html").is_file()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda v: np.where(np.arange(v.size).reshape(v.shape) == 7, np.nan, v), ("NaN",)),
        (lambda v: np.where(np.arange(v.size).reshape(v.shape) == 7, np.inf, v), ("infinite",)),
        (lambda v: np.full_like(v, 0.5), ("constant",)),
        (lambda v: v[:, :, :-1], ("16", "15")),
        (lambda v: np.pad(v, 2), ("20", "16")),
    ],
    ids=["NaN", "infinite", "constant", "no cube", "another box"],
)
def test_maps_that_cannot_be_compared(folder, refused, job, spoil, words):
    rewrite(folder / "J10" / VOLUME.format(1), spoil(job.maps[1]).astype(np.float32))
    sentence = refused(*RUN)
    assert VOLUME.format(1) in sentence
    for word in words:
        assert word.lower() in sentence.lower(), sentence


@pytest.mark.parametrize("keep", [0, 100, 1024, 5000])
def test_truncated_map(folder, refused, keep):
    path = folder / "J10" / VOLUME.format(1)
    path.write_bytes(path.read_bytes()[:keep])
    assert path.name in refused(*RUN)


def test_map_that_is_no_mrc_file(folder, refused):
    (folder / "J10" / VOLUME.format(1)).write_text("hello\n" * 1000)
    assert VOLUME.format(1) in refused(*RUN)


def test_truncated_compressed_map(folder, refused, job):
    rewrite(folder / "full.mrc", job.maps[0])
    compressed = gzip.compress((folder / "full.mrc").read_bytes())
    for index in range(3):
        (folder / f"map_{index}.mrc.gz").write_bytes(compressed if index else compressed[: len(compressed) // 2])
    (folder / "full.mrc").unlink()
    assert "map_0.mrc.gz" in refused("--volumes", "map_*.mrc.gz", "-k", 2, "-o", "OUT")


def test_voxel_sizes_that_differ(folder, refused, job):
    rewrite(folder / "J10" / VOLUME.format(1), job.maps[1], 5.2)
    sentence = refused(*RUN)
    assert VOLUME.format(1) in sentence
    assert "5.2" in sentence


def test_maps_without_voxel_size_and_without_particles(folder, refused, job):
    for index in range(3):
        rewrite(folder / f"map_{index}.mrc", job.maps[index], 0.0)
    sentence = refused("--volumes", "map_*.mrc", "-k", 2, "-o", "OUT")
    assert "--voxel-size" in sentence


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_voxel_size_that_cannot_be(refused, value):
    assert value in refused(*RUN, f"--voxel-size={value}")


def test_missing_class_map(folder, refused):
    (folder / "J10" / VOLUME.format(3)).unlink()
    sentence = refused(*RUN)
    assert "class 3" in sentence
    assert "--exclude-classes 3" in sentence


def test_missing_class_map_is_no_matter_when_that_class_is_excluded(folder, scheduler):
    (folder / "J10" / VOLUME.format(3)).unlink()
    result = CliRunner().invoke(main, ["run", *RUN, "--exclude-classes", "3", "--scheduler", scheduler])
    assert result.exit_code == 0, result.output
    assert "Remaining particles: 0 " not in result.output


@pytest.mark.parametrize("value", ["0", "-1", "4", "99"])
def test_number_of_superclasses_out_of_range(refused, value):
    sentence = refused("J10", "-k", value, "-o", "OUT")
    assert value in sentence
    assert "1 to" in sentence


def test_number_of_superclasses_out_of_range_says_what_was_excluded(refused):
    sentence = refused("J10", "-k", 3, "--exclude-classes", "1", "-o", "OUT")
    assert "from 1 to 2" in sentence
    assert "class 1 excluded" in sentence


@pytest.mark.parametrize("value", ["two", "2.5", ""])
def test_number_of_superclasses_that_is_no_number(refused, value):
    assert repr(value) in refused("J10", "-k", value, "-o", "OUT")


@pytest.mark.parametrize("value", ["7", "0,9", "-1"])
def test_excluded_class_that_does_not_exist(refused, value):
    sentence = refused(*RUN, f"--exclude-classes={value}")
    assert value.split(",")[-1] in sentence


def test_all_classes_but_one_excluded(refused):
    sentence = refused("J10", "-k", 1, "--exclude-classes", "0,1,2", "-o", "OUT")
    assert "at least 2" in sentence


def test_minimum_class_size_that_leaves_too_few(refused):
    assert "under 1000 particles" in refused(*RUN, "--minimum-class-size", 1000)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--minimum-class-size", "-1"),
        ("--maximum-shift", "-5"),
        ("--maximum-shift", "nan"),
        ("--mask-inner-radius", "0"),
        ("--mask-inner-radius", "1.5"),
        ("--mask-inner-radius", "nan"),
        ("--minimum-posterior", "2"),
        ("--minimum-posterior", "nan"),
        ("--workers", "0"),
    ],
)
def test_values_out_of_range(folder, scheduler, option, value):
    result = CliRunner().invoke(main, ["run", *RUN, f"{option}={value}"])
    assert result.exit_code == 2, result.output
    assert option in result.output
    assert not (folder / "OUT").exists()


def test_mask_of_another_box(folder, refused):
    rewrite(folder / "mask.mrc", np.ones((20, 20, 20), np.float32))
    sentence = refused(*RUN, "--mask", "mask.mrc")
    assert "mask.mrc" in sentence
    assert "20" in sentence


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_mask_that_masks_nothing_in(folder, refused, value):
    mask = np.full((16, 16, 16), value, np.float32)
    rewrite(folder / "mask.mrc", mask)
    assert "mask.mrc" in refused(*RUN, "--mask", "mask.mrc")


def test_mask_that_does_not_exist(refused):
    assert "mask.mrc" in refused(*RUN, "--mask", "mask.mrc")


def test_particles_without_posteriors(folder, refused, job):
    records = small_job.records_of(job, "multi")
    kept = [name for name in records.dtype.names if not name.startswith("alignments3D")]
    save(folder / "J10" / PARTICLES, np.ascontiguousarray(records[kept]))
    sentence = refused(*RUN)
    assert PARTICLES in sentence
    assert "no class posteriors" in sentence


def test_class_prefix_that_matches_nothing(refused):
    sentence = refused(*RUN, "--class-prefix", "alignments_class_")
    assert "alignments_class_" in sentence
    assert "alignments3D_multi" in sentence


@pytest.mark.parametrize("keep", [0, 5, 64, 5000])
def test_truncated_particles(folder, refused, keep):
    path = folder / "J10" / PARTICLES
    path.write_bytes(path.read_bytes()[:keep])
    assert PARTICLES in refused(*RUN)


@pytest.mark.parametrize("keep", [0, 50, 700])
def test_truncated_star_file(folder, refused, keep):
    path = folder / "job016" / "run_it025_data.star"
    path.write_bytes(path.read_bytes()[:keep])
    assert "run_it025_data.star" in refused("job016", "-k", 2, "-o", "OUT")


def test_star_file_without_classes(folder, refused):
    path = folder / "job016" / "run_it025_data.star"
    blocks = starfile.read(path)
    blocks["particles"] = blocks["particles"].drop(columns="rlnClassNumber")
    starfile.write(blocks, path, overwrite=True)
    assert "rlnClassNumber" in refused("job016", "-k", 2, "-o", "OUT")


@pytest.mark.parametrize("value", [5, 99])
def test_star_file_that_names_a_class_without_map(folder, refused, value):
    path = folder / "job016" / "run_it025_data.star"
    blocks = starfile.read(path)
    blocks["particles"].loc[5, "rlnClassNumber"] = value
    starfile.write(blocks, path, overwrite=True)
    assert "run_it025_data.star" in refused("job016", "-k", 2, "-o", "OUT")


def test_truncated_parquet(folder, refused):
    path = folder / "particles.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    sentence = refused("--particles", path.name, "--volumes", f"J10/{VOLUME.format(0)[:24]}*.mrc", "-k", 2, "-o", "OUT")
    assert path.name in sentence


@pytest.mark.parametrize("what", ["--particles", "--volumes", "--passthrough"])
def test_files_that_do_not_exist(folder, refused, what):
    given = {"--particles": f"J10/{PARTICLES}", "--volumes": "J10/*volume.mrc", what: "nowhere/none.xyz"}
    arguments = [item for pair in given.items() for item in pair]
    assert "none.xyz" in refused(*arguments, "-k", 2, "-o", "OUT")


@pytest.mark.parametrize("make", [None, "file", "empty"])
def test_folder_that_is_no_job(folder, refused, make):
    target = folder / "job"
    if make == "file":
        target.write_text("no folder")
    elif make == "empty":
        target.mkdir()
    assert "job" in refused("job", "-k", 2, "-o", "OUT")


def test_neither_job_nor_files_and_both(refused):
    assert "neither" in refused("-k", 2, "-o", "OUT")
    assert "both" in refused("J10", "--volumes", "J10/*volume.mrc", "-k", 2, "-o", "OUT")
    assert "--particles" in refused("J10", "--particles", f"J10/{PARTICLES}", "-k", 2, "-o", "OUT")


@pytest.mark.parametrize("make", ["folder", "empty folder", "file", "partial"])
def test_output_that_exists(folder, refused, make):
    output = folder / ("OUT.partial" if make == "partial" else "OUT")
    if make == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        if make != "empty folder":
            (output / "notes.txt").write_text("mine")
    assert "OUT" in refused(*RUN)


@pytest.mark.parametrize("make", ["folder", "file"])
def test_what_is_not_ours_is_not_overwritten(folder, refused, make):
    if make == "file":
        (folder / "OUT").write_text("mine")
    else:
        (folder / "OUT").mkdir()
        (folder / "OUT" / "notes.txt").write_text("mine")
    assert "OUT" in refused(*RUN, "--overwrite")


def test_a_folder_that_is_not_ours_beside_the_output_is_not_deleted(folder, refused):
    (folder / "OUT.partial").mkdir()
    (folder / "OUT.partial" / "thesis.tex").write_text("mine")
    assert "OUT.partial" in refused(*RUN, "--overwrite")


@pytest.mark.parametrize("output", [".", "..", "/", ""])
def test_output_that_cannot_be_made(refused, output):
    refused("J10", "-k", 2, "-o", output)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_in_a_folder_that_cannot_be_written(folder, refused):
    (folder / "locked").mkdir(mode=0o500)
    assert "locked" in refused("J10", "-k", 2, "-o", "locked/OUT")


def test_output_below_a_file(refused):
    assert "J10" in refused("J10", "-k", 2, "-o", f"J10/{PARTICLES}/OUT")


def test_output_in_a_folder_that_does_not_exist_leaves_nothing_when_refused(folder, refused):
    refused("J10", "-k", 9, "-o", "deep/deeper/OUT")


def test_output_inside_the_job_folder_is_no_part_of_the_job(folder, scheduler):
    result = CliRunner().invoke(main, ["run", "J10", "-k", "2", "-o", "J10/OUT", "--scheduler", scheduler])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["run", "J10", "-k", "2", "-o", "J10/OUT2", "--scheduler", scheduler])
    assert result.exit_code == 0, result.output


def test_no_scheduler_answers(folder):
    with dask.config.set({"regroup.scheduler-timeout": "1s"}):
        result = CliRunner().invoke(main, ["run", *RUN, "--scheduler", "tcp://127.0.0.1:9"])
    assert result.exit_code == 2
    assert "127.0.0.1:9" in result.output
    assert not (folder / "OUT").exists()


@pytest.mark.shared_data
def test_real_map_that_is_not_a_cube(folder, refused, shared_data):
    for index in range(3):
        shutil.copy(shared_data / "maps" / "EMD-3001.map", folder / f"real_{index}.mrc")
    sentence = refused("--volumes", "real_*.mrc", "-k", 2, "-o", "OUT")
    assert "real_0.mrc" in sentence
