"""A driver that is killed at any moment: the run goes on with --resume and ends with the same bytes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import regroup_dask as rd
from regroup_dask.errors import InputError, OutputExistsError, RegroupError
from regroup_dask.formats.mrc import write_mrc
from regroup_dask.formats.run_folder import check_output, partial_folder, run_folder
from tests.tasks.lives import KILLED, live, make_output, regroup
from tests.tasks.small_job import VOXEL_SIZE_ANGSTROM, SmallJob, content, make_job


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> SmallJob:
    return make_job(tmp_path_factory.mktemp("job"), n_maps=4)


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed") / "OUT"
    regroup(job, output)
    return content(output)


def test_killed_again_and_again_a_run_ends_with_the_same_bytes(job, undisturbed, tmp_path):
    output, computed = tmp_path / "OUT", tmp_path / "computed"
    for lives in range(1, 40):
        ended = live(regroup, job, output, resume=lives > 1, die_at=27 * lives, computed=computed)
        assert ended in (0, KILLED)
        if output.exists():  # killed after the last rename: nothing is left to do but to clean up
            check_output_is_complete(output)
            break
    assert lives > 2
    assert content(output) == undisturbed
    names = computed.read_text().split()
    assert len(names) == len(set(names)), "a finished unit was computed again"


@pytest.mark.parametrize("last", range(1, 6))
def test_killed_while_the_folder_gets_its_name(last, tmp_path):
    """Whatever of the last steps is the last to happen, the old output or the new one is there, or a run to resume."""
    output = tmp_path / "OUT"
    make_output(output, "old")
    assert live(make_output, output, "new", die_at=1 + last) in (0, KILLED)  # the first rename writes run.json
    if partial_folder(output).exists():
        with run_folder(output, resume=True, overwrite=False, identity={"settings": {}}) as folder:
            assert (folder / "work").exists(), "what was finished is gone"
    assert (output / "data").read_text() == "new"
    check_output_is_complete(output)


def check_output_is_complete(output: Path) -> None:
    with pytest.raises(OutputExistsError, match="complete"):
        check_output(output, resume=True, overwrite=False)
    assert not (output / "work").exists()


def interrupted(job: SmallJob, output: Path) -> None:
    assert live(regroup, job, output, die_at=30) == KILLED


def test_changed_settings_are_refused_by_name_and_value(job, tmp_path):
    interrupted(job, tmp_path / "OUT")
    with pytest.raises(InputError, match=r"maximum_shift_angstrom \(was 8.0, is 9.0\)"):
        regroup(job, tmp_path / "OUT", resume=True, maximum_shift_angstrom=9.0)


def test_changed_inputs_are_refused_by_content(tmp_path):
    job = make_job(tmp_path / "job", n_maps=3)
    interrupted(job, tmp_path / "OUT")
    before = job.volumes[1].stat()
    volume = np.fromfile(job.volumes[1], np.float32)
    volume[-5] += 1
    volume.tofile(job.volumes[1])
    os.utime(job.volumes[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=r"class_01\.mrc"):
        regroup(job, tmp_path / "OUT", resume=True)


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    output = tmp_path / "OUT"
    with run_folder(output, resume=False, overwrite=False, identity={}):
        for resume in (True, False):
            with (
                pytest.raises(OutputExistsError, match="Another run"),
                run_folder(output, resume=resume, overwrite=not resume, identity={}),
            ):
                pass


def test_damaged_checkpoints_are_computed_again(job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    interrupted(job, output)
    kept = sorted((partial_folder(output) / "work" / "units").rglob("*.npz"))
    assert len(kept) > 6
    for number, path in enumerate(kept):
        whole = bytearray(path.read_bytes())
        if number % 3 == 0:
            path.write_bytes(whole[: len(whole) // 2])
        elif number % 3 == 1:
            path.write_bytes(b"")
        else:
            whole[len(whole) // 2] ^= 0x40
            path.write_bytes(whole)
    regroup(job, output, resume=True)
    assert content(output) == undisturbed


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("field", ["working", "prepared"])
def test_a_damaged_map_in_the_store_is_named_and_made_again(field, damage, job, undisturbed, tmp_path, monkeypatch):
    output = tmp_path / "OUT"
    stages = {"working": "prepare_map", "prepared": "compare_tile"}
    from regroup_dask.tasks import pairs, prepare

    module = prepare if field == "working" else pairs
    name = stages[field]
    original = getattr(module, name)

    damaged = []

    def damaging(unit):
        if damaged:
            return original(unit)
        damaged.append(unit)
        chunk = unit.store / field / {"working": "c/1/0/0/0", "prepared": "map_000001.bin"}[field]
        content = bytearray(chunk.read_bytes())
        if damage == "remove":
            chunk.unlink()
        elif damage == "cut":
            chunk.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 3] ^= 1
            chunk.write_bytes(content)
        return original(unit)

    monkeypatch.setattr(module, name, damaging)
    with pytest.raises(RegroupError, match=f"{field} of map 1 .*(damaged|missing).*--resume"):
        regroup(job, output)
    regroup(job, output, resume=True)
    assert content(output) == undisturbed


def test_a_damaged_slab_is_found_before_it_becomes_a_map(job, undisturbed, tmp_path, monkeypatch):
    from regroup_dask.tasks import averages

    original = averages.write_map_file

    def damaging(unit):
        for chunk in (unit.store / "volume" / "c" / "1").rglob("*"):
            if chunk.is_file():
                chunk.unlink()
        return original(unit)

    monkeypatch.setattr(averages, "write_map_file", damaging)
    with pytest.raises(RegroupError, match=r"superclass 1 .* damaged or missing"):
        regroup(job, tmp_path / "OUT")
    monkeypatch.setattr(averages, "write_map_file", original)
    regroup(job, tmp_path / "OUT", resume=True)
    assert content(tmp_path / "OUT") == undisturbed


def test_a_read_only_place_is_refused(job, tmp_path, monkeypatch):
    def refused(*_args, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match=r"cannot be made \(Read-only file system\)"):
        regroup(job, tmp_path / "OUT")
    assert not (tmp_path / "OUT.partial").exists()


def test_a_wrong_map_leaves_nothing_behind(job, tmp_path):
    constant = tmp_path / "constant.mrc"
    write_mrc(constant, np.ones((24,) * 3, np.float32), voxel_size_angstrom=VOXEL_SIZE_ANGSTROM)
    with pytest.raises(InputError, match="constant"):
        rd.regroup([*job.volumes, constant], n_superclasses=2, output=tmp_path / "OUT")
    assert not (tmp_path / "OUT").exists()
    assert not (tmp_path / "OUT.partial").exists()


def test_the_log_counts_what_was_not_run_again(job, tmp_path, caplog):
    output = tmp_path / "OUT"
    interrupted(job, output)
    assert json.loads((partial_folder(output) / "run.json").read_text())["status"] == "incomplete"
    with caplog.at_level("INFO", logger="regroup_dask"):
        regroup(job, output, resume=True)
    assert "reduce: 4 of 4 units restored" in caplog.text
    assert "reduce: 0 of 4 units computed" in caplog.text
