"""A second look at a finished run: several numbers of superclasses, changes by hand, inputs that moved."""

import contextlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from click.testing import CliRunner
from cryosparc.dataset import Dataset
from scipy.spatial.transform import Rotation

import regroup_dask as rd
from regroup_dask.cli import main
from regroup_dask.formats.pairs_store import read_pairs, write_pairs
from regroup_dask.formats.result_tables import read_table, write_table
from tests import small_job
from tests.test_main_job import NEAR_ANGSTROM, cryosparc_views, particles_of, worst_projection


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """No cluster, and pages only where they are looked at: each takes seconds."""
    monkeypatch.setattr("regroup_dask.tasks.connect.connected", lambda where: contextlib.nullcontext(None))
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Six classes of two structures, one of the other hand, grouped into four where two would be right."""
    job = small_job.make_job(structures=2, members=3, mirrored=(4,), seed=3)
    folder = tmp_path_factory.mktemp("second look")
    source = small_job.write_cryosparc(job, folder / "P1" / "J10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
        rd.regroup(
            str(source / "*_volume.mrc"),
            source / "cryosparc_P1_J10_00042_particles.cs",
            passthrough=[source / "P1_J10_passthrough_particles.cs"],
            n_superclasses=4,
            align=True,
            output=folder / "OUT",
        )
    return job, source, folder / "OUT"


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def labels_of(output) -> dict[int, int]:
    table = pq.read_table(output / "classes.parquet").to_pylist()
    return {row["class_id"]: row["superclass"] for row in table}


def merges_to_truth(job, output) -> list[str]:
    """The options that make the true superclasses of those of a run."""
    labels, options = labels_of(output), []
    for structure in range(len(job.structures)):
        numbers = sorted({labels[class_id] for class_id in np.flatnonzero(job.structure_of_class == structure)})
        if len(numbers) > 1:
            options += ["--merge", ",".join(map(str, numbers))]
    assert options
    return options


def assert_true_poses(job, output):
    """Classes and particles lie in the frame of their superclass as the truth says."""
    rows = pq.read_table(output / "classes.parquet").to_pylist()
    references = [row["reference_class"] for row in pq.read_table(output / "superclasses.parquet").to_pylist()]
    for row in rows:
        sign = -1 if row["mirrored"] else 1
        balls = Rotation.from_quat(row["rotation_quaternion"]).apply(sign * job.balls(row["class_id"]))
        frame = job.balls(references[row["superclass"]])
        assert np.abs(balls + row["shift_angstrom"] - frame).max() < NEAR_ANGSTROM
    written = Dataset.load(output / "cryosparc" / "regrouped_particles.cs")
    regrouped, _ = particles_of(output)
    row_of = {uid: row for uid, row in zip(regrouped["uid"].to_pylist(), regrouped["input_row"].to_pylist(), strict=True)}
    label_of = dict(zip(regrouped["uid"].to_pylist(), regrouped["superclass"].to_pylist(), strict=True))
    uids = [int(uid) for uid in written["uid"]]
    rows_of, labels = [row_of[uid] for uid in uids], np.array([label_of[uid] for uid in uids])
    poses = written["alignments3D/pose"], written["alignments3D/shift"]
    view, shift = cryosparc_views(*poses, job.voxel_size)
    frames = [job.balls(references[label]) for label in labels]
    assert worst_projection(job, rows_of, view, shift, frames) < NEAR_ANGSTROM


def test_superclasses_merged_by_hand_share_a_frame_and_poses_are_true(finished, tmp_path):
    job, _, output = finished
    options = merges_to_truth(job, output)
    result = invoke("group", output, *options, "-o", tmp_path / "by hand")
    assert result.exit_code == 0, result.output
    labels = labels_of(tmp_path / "by hand")
    assert all(
        (labels[one] == labels[two]) == (job.structure_of_class[one] == job.structure_of_class[two])
        for one in labels
        for two in labels
    )
    assert_true_poses(job, tmp_path / "by hand")
    record = json.loads((tmp_path / "by hand" / "run.json").read_text())
    assert record["settings"]["n_superclasses"] == 2
    (step,) = record["by_hand"]
    assert step["of"] == str(output)
    assert step["edits"] == [f"--merge {numbers}" for numbers in options[1::2]]
    assert any("Grouped by hand: --merge" in sentence for sentence in record["warnings"])
    notes = pq.read_table(tmp_path / "by hand" / "classes.parquet")["note"].to_pylist()
    assert any("merged by hand" in note for note in notes)
    counts = pq.read_table(tmp_path / "by hand" / "superclasses.parquet")["n_particles"].to_pylist()
    assert counts == sorted(counts, reverse=True)
    assert "superclass 3 →" in result.output


def test_superclasses_that_no_pair_joins_are_aligned_when_they_are_merged(finished, tmp_path):
    job, _, output = finished
    sparse = tmp_path / "sparse"
    shutil.copytree(output, sparse)
    pairs = read_pairs(output / "pairs.zarr")
    labels = labels_of(output)
    apart = np.array([[labels[i] != labels[j] for j in pairs["class_j"].values] for i in pairs["class_i"].values])
    for name in ("correlation", "similarity", "distance", "confidence"):
        pairs[name] = pairs[name].where(~apart)
    pairs["rotation_quaternion"].values[apart] = [0.0, 0.0, 0.0, 1.0]
    pairs["shift_angstrom"].values[apart] = 0.0
    pairs["mirrored"] = pairs["mirrored"] & ~apart
    pairs["hand_trust"] = pairs["hand_trust"].where(~apart, 0.0)
    pairs["fsc"] = pairs["fsc"].where(~apart[..., None])
    write_pairs(pairs.drop_encoding(), sparse / "pairs.zarr")
    result = invoke("group", sparse, *merges_to_truth(job, output), "-o", tmp_path / "joined")
    assert result.exit_code == 0, result.output
    assert_true_poses(job, tmp_path / "joined")


def test_edits_are_shown_without_writing_anything(finished, tmp_path, monkeypatch):
    job, _, output = finished
    monkeypatch.chdir(tmp_path)
    result = invoke("group", output, *merges_to_truth(job, output))
    assert result.exit_code == 0, result.output
    assert "2 superclasses" in result.output
    assert "Nothing was written" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_class_sent_to_remaining_takes_its_particles_there(finished, tmp_path):
    job, _, output = finished
    target = tmp_path / "without"
    labels = labels_of(output)
    shared = next(class_id for class_id in labels if list(labels.values()).count(labels[class_id]) > 1)
    result = invoke("group", output, "--move", f"class={shared}:superclass=remaining", "-o", target)
    assert result.exit_code == 0, result.output
    row = pq.read_table(target / "classes.parquet").to_pylist()[shared]
    assert (row["superclass"], row["status"]) == (-1, "excluded")
    regrouped, remaining = particles_of(target)
    assert remaining.num_rows == (job.class_of_particle == shared).sum()
    assert regrouped.num_rows + remaining.num_rows == len(job.class_of_particle)
    for name in ("pairs.zarr", "classes.zarr"):
        store = xr.open_zarr(target / name)
        assert shared not in store["class_i" if name == "pairs.zarr" else "class_id"].values
    again = invoke("group", target, "-k", "2", "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output


def test_several_numbers_are_compared_in_one_table(finished, tmp_path, monkeypatch):
    _, _, output = finished
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    result = invoke("group", output, "-k", "2-4")
    assert result.exit_code == 0, result.output
    assert "4*" in result.output
    assert "is split: classes" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_groups_and_refuses_what_the_run_would(finished, tmp_path):
    _, source, output = finished
    result = invoke("group", output, "-k", "2", "-o", tmp_path / "OUT2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "without --dry-run makes" in result.output
    assert list(tmp_path.iterdir()) == []
    assert invoke("group", output, "-k", "2", "-o", output, "--dry-run").exit_code == 2
    hidden = source.rename(source.with_name("hidden"))
    try:
        refused = invoke("group", output, "-k", "2", "-o", tmp_path / "OUT2", "--dry-run")
    finally:
        hidden.rename(source)
    assert refused.exit_code == 2
    assert str(source) in refused.output


def test_several_numbers_get_a_folder_each(finished, tmp_path):
    _, _, output = finished
    result = invoke("group", output, "-k", "2,3", "-o", tmp_path / "all")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["k2", "k3"]
    for count in (2, 3):
        assert len(set(labels_of(tmp_path / "all" / f"k{count}").values())) == count
        alone = invoke("group", output, "-k", count, "-o", tmp_path / f"alone{count}")
        assert alone.exit_code == 0, alone.output
        for name in ("classes.parquet", "series.zip", "cryosparc/regrouped_particles.cs"):
            assert (tmp_path / "all" / f"k{count}" / name).read_bytes() == (tmp_path / f"alone{count}" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Give a number of superclasses"),
        (["-k", "3", "--merge", "0,1"], "give one or the other"),
        (["-k", "2-9"], "must be from 1 to 5"),
        (["-k", "5-2"], "write 2-5"),
        (["-k", "two"], "neither a number"),
        (["--merge", "0;1"], "no list of superclasses"),
        (["--split", "a"], "no superclass such as 2"),
        (["--move", "5:1"], "class=5:superclass=1"),
        (["--merge", "0,9"], "there is no superclass 9"),
        (["-k", "2", "--job", "nowhere"], "nowhere is no folder"),
        (["-k", "2", "--inputs", "here"], "give the old and the new place"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_written(finished, tmp_path, options, sentence):
    _, _, output = finished
    result = invoke("group", output, *options, "-o", tmp_path / "none")
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def moved(finished, tmp_path):
    """The run and its job, both in new places."""
    _, source, output = finished
    here = shutil.copytree(source, tmp_path / "archive" / "J10")
    there = shutil.copytree(output, tmp_path / "elsewhere")
    old = str(tmp_path / "gone" / "J10")
    text = (there / "run.json").read_text()
    assert str(source) in text
    (there / "run.json").write_text(text.replace(str(source), old))
    table = read_table(there, "classes")
    volumes = [path.replace(str(source), old) for path in table["volume"].to_pylist()]
    place = table.schema.get_field_index("volume")
    write_table(table.set_column(place, "volume", pa.array(volumes)), there, "classes")
    return there, here, old


def test_inputs_that_moved_are_refused_with_the_remedy(moved, tmp_path):
    output, _, old = moved
    result = invoke("group", output, "-k", "2", "-o", tmp_path / "none")
    assert result.exit_code == 2
    assert old in result.output
    assert "--job" in result.output
    assert "--inputs" in result.output


@pytest.mark.parametrize("way", ["job", "inputs"])
def test_inputs_that_moved_are_found_where_they_are_said_to_be(moved, finished, tmp_path, way):
    output, here, old = moved
    option = ["--job", here] if way == "job" else ["--inputs", f"{old}={here}"]
    result = invoke("group", output, "-k", "2", *option, "-o", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert_true_poses(finished[0], tmp_path / "two")
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert all(entry["path"].startswith(str(here)) for entry in record["fingerprints"])
    again = invoke("group", tmp_path / "two", "-k", "3", "-o", tmp_path / "three")
    assert again.exit_code == 0, again.output


def test_other_content_in_the_new_place_is_refused(moved, tmp_path):
    output, here, _ = moved
    changed = sorted(here.glob("*_volume.mrc"))[2]
    content = bytearray(changed.read_bytes())
    content[-2] ^= 1
    changed.write_bytes(bytes(content))
    result = invoke("group", output, "-k", "2", "--job", here, "-o", tmp_path / "none")
    assert result.exit_code == 2
    assert f"{changed} is not the file that run read" in result.output
    assert not (tmp_path / "none").exists()


def test_a_place_of_no_input_is_refused(moved, tmp_path):
    output, here, _ = moved
    result = invoke("group", output, "-k", "2", "--inputs", f"/never={here}", "-o", tmp_path / "none")
    assert result.exit_code == 2
    assert "read nothing from /never" in result.output


def test_a_report_remembers_where_the_inputs_are_now(moved, monkeypatch):
    output, here, old = moved
    made = []
    monkeypatch.setattr("regroup_dask.report.page.write_page", lambda folder: made.append(folder) or folder / "report.html")
    result = invoke("report", output, "--job", here)
    assert result.exit_code == 0, result.output
    assert made == [output]
    record = json.loads((output / "run.json").read_text())
    assert old not in json.dumps([record["inputs"], record["fingerprints"]])
    volumes = pq.read_table(output / "classes.parquet")["volume"].to_pylist()
    assert volumes == [str(path) for path in sorted(here.glob("*_volume.mrc"))]
    assert str(here) in (output / "classes.csv").read_text()
    assert invoke("group", output, "-k", "2").exit_code == 0


def test_a_report_that_is_told_a_wrong_place_changes_nothing(moved, tmp_path):
    output, _, _ = moved
    before = (output / "run.json").read_text()
    (tmp_path / "empty").mkdir()
    result = invoke("report", output, "--job", tmp_path / "empty")
    assert result.exit_code == 2
    assert "does not exist" in result.output
    assert (output / "run.json").read_text() == before


def test_an_export_needs_no_inputs(moved, tmp_path):
    output, here, _ = moved
    shutil.rmtree(here)
    result = invoke("export", output, "--to", "cryodrgn", "-o", tmp_path / "labels")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "labels" / "labels.pkl").is_file()
