"""``regroup-dask export`` with wrong input: one sentence, exit code 2, and nothing is left behind."""

import os
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from regroup_dask.cli import main
from regroup_dask.formats.particles import open_particles
from tests.steps.rich_particles import cryosparc_records, from_cryosparc, regrouped


def run(*words):
    return CliRunner().invoke(main, ["export", *map(str, words)])


def refused(done, *parts, code=2):
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    for part in parts:
        assert part in done.output
    return done.output


@pytest.fixture
def output(tmp_path):
    return from_cryosparc(tmp_path / "cs", cryosparc_records(), fragment_rows=10**6)[1]


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_single_fragment_needs_no_cluster(tmp_path, output):
    done = run(output, "--to", "relion")
    assert done.exit_code == 0, done.output
    assert (output / "export_relion" / "regrouped_particles.star").is_file()
    assert "4 files in" in done.output
    assert not (output / "export_relion.partial").exists()
    assert not (output / "export_relion" / ".export").exists()


def test_a_dry_run_counts_and_writes_nothing(tmp_path, output):
    before = left(output)
    done = run(output, "--to", "relion", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "for RELION" in done.output
    assert "superclass 0:" in done.output
    assert left(output) == before
    refused(run(output, "--to", "relion", "-o", tmp_path / "cs", "--dry-run"), "exists")


def test_fragments_are_written_by_the_workers_asked_for(tmp_path):
    output = from_cryosparc(tmp_path / "cs", cryosparc_records())[1]
    done = run(output, "--to", "cryodrgn", "-o", tmp_path / "drgn", "--workers", "1")
    assert done.exit_code == 0, done.output
    assert "Writing particles: done" in done.output


def test_wrong_usage(tmp_path, output):
    before = left(tmp_path)
    refused(run(output, "--to", "eman"), "eman", "cryosparc")
    refused(run(output), "--to")
    refused(run(output, "--to", "relion", "-o", tmp_path / "cs"), "exists", "-o")
    refused(run(tmp_path / "no", "--to", "relion"), "no")
    refused(run(output / "particles", "--to", "relion"), "give the output folder of a run with particles")
    refused(run(tmp_path / "cs" / "p.cs", "--to", "relion"), "p.cs")
    refused(run(output, "--to", "cryosparc", "--micrograph-size", "wide"), "'wide'", "5760x4092")
    refused(run(output, "--to", "relion", "--workers", "0"), "--workers is 0")
    refused(run(output, "--to", "relion", "--scheduler", "tcp://a:1", "--slurm"), "only one of")
    assert left(tmp_path) == before
    assert left(output) == ["particles", "remaining", "volumes"]


def test_missing_columns(tmp_path):
    for column, sentence in (("blob/path", "name no images"), ("blob/psize_A", "pixel size")):
        records = cryosparc_records(40)
        fields = [name for name in records.dtype.names if name != column]
        shorn = np.zeros(len(records), np.dtype([(name, records.dtype[name]) for name in fields]))
        for name in fields:
            shorn[name] = records[name]
        _, output = from_cryosparc(tmp_path / column.replace("/", "_"), shorn)
        refused(run(output, "--to", "relion", "-o", tmp_path / "new"), sentence)
        assert not (tmp_path / "new").exists()
        assert not (tmp_path / "new.partial").exists()
    # Without a CTF the rest is written.
    records = cryosparc_records(40)
    fields = [name for name in records.dtype.names if not name.startswith(("ctf/", "location/"))]
    shorn = np.zeros(len(records), np.dtype([(name, records.dtype[name]) for name in fields]))
    for name in fields:
        shorn[name] = records[name]
    _, output = from_cryosparc(tmp_path / "no_ctf", shorn)
    assert run(output, "--to", "relion", "-o", tmp_path / "new").exit_code == 0
    labels = open_particles(tmp_path / "new" / "regrouped_particles.star").schema.names
    assert "rlnDefocusU" not in labels
    assert "rlnMicrographName" not in labels


def test_subtomograms_do_not_fit_into_cryosparc(tmp_path):
    columns = {
        "uid": np.arange(40),
        "class_id": np.arange(40) % 4,
        "rotation_quaternion": pa.array([[0.0, 0, 0, 1]] * 40, pa.list_(pa.float64(), 4)),
        "shift_angstrom": pa.array([[1.0, 2, 3]] * 40, pa.list_(pa.float64(), 3)),
        "rlnImageName": [f"sub_{row}.mrc" for row in range(40)],
        "rlnImagePixelSize": np.full(40, 5.0),
        "rlnImageSize": np.full(40, 32),
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    output = regrouped(tmp_path, open_particles(tmp_path / "p.parquet"))
    refused(run(output, "--to", "cryosparc", "-o", tmp_path / "new"), "subtomograms")
    assert run(output, "--to", "relion", "-o", tmp_path / "star").exit_code == 0
    assert "_rlnOriginZAngst" in (tmp_path / "star" / "regrouped_particles.star").read_text()


def test_damaged_parquet(tmp_path, output):
    path = next((output / "particles").rglob("*.parquet"))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + bytes(300) + whole[500:]):
        path.write_bytes(damaged)
        refused(run(output, "--to", "relion", "-o", tmp_path / "new"))
        assert not (tmp_path / "new").exists()
    path.write_bytes(whole)
    shutil.copy(path, path.with_name("mine.parquet"))
    refused(run(output, "--to", "relion", "-o", tmp_path / "new"), "mine.parquet")


def test_what_a_killed_export_left_is_taken_over(tmp_path, output):
    partial = tmp_path / "new.partial"
    (partial / ".parts").mkdir(parents=True)
    (partial / ".parts" / "000000.rows").write_text("half")
    (partial / ".export").touch()
    assert run(output, "--to", "relion", "-o", tmp_path / "new").exit_code == 0
    assert not partial.exists()
    # Something else of that name is left alone.
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "mine").touch()
    refused(run(output, "--to", "relion", "-o", tmp_path / "other"), "was not made by an export")
    assert (tmp_path / "other.partial" / "mine").exists()


@pytest.mark.parametrize("side", ["relion", "cryodrgn"])
def test_a_full_disk(tmp_path, side):
    output = from_cryosparc(tmp_path / "cs", cryosparc_records(4000), fragment_rows=10**6)[1]
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True
    ).returncode
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        refused(run(output, "--to", side, "-o", disk / "deep" / "new"), "disk", "full", "make room", code=1)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True)
