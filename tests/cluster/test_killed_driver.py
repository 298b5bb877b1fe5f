"""The command itself, killed by SIGKILL in one stage after another, or refused by the disk: it goes on with --resume."""

from __future__ import annotations

import os
import re
import subprocess

import numpy as np
import pytest

from tests.cluster.real_runs import RealRun, command, units
from tests.tasks.small_job import content, make_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("job"), n_maps=6, box=48, n_particles=4000)


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with RealRun(command(job, folder / "OUT", "--workers", "1"), folder) as run:
        run.finish()
    return content(folder / "OUT")


def test_killed_in_tiles_averages_and_particles(job, undisturbed, tmp_path):
    output = tmp_path / "OUT"
    kept: dict[str, int] = {}
    # once with its workers, once without: those that are left alone end by themselves
    for number, (stage, everyone) in enumerate((("pairs", True), ("averages", False), ("particles", True))):
        resume = ("--resume",) if number else ()
        with RealRun(command(job, output, "--workers", "2", *resume), tmp_path) as run:
            run.wait_for(lambda stage=stage: units(output, stage), f"the first of {stage}")
            run.kill(everyone=everyone)
        assert not output.exists()
        kept = {name: len(units(output, name)) for name in ("reduce", "prepare", "pairs", "averages", "particles")}
    assert all(kept.values())
    with RealRun(command(job, output, "--workers", "2", "--resume"), tmp_path) as run:
        said = run.finish()
    labels = {"reduce": "Reading maps", "pairs": "Aligning pairs", "particles": "Writing particles"}
    for name, label in labels.items():
        counted = re.search(rf"{label}: (\d+) of \d+ were finished before; not run again", said)
        assert counted, said
        assert int(counted[1]) == kept[name]
    assert content(output) == undisturbed


def test_changed_settings_and_changed_inputs_are_refused(tmp_path):
    job, output = make_job(tmp_path / "job", n_maps=3), tmp_path / "OUT"
    with RealRun(command(job, output, "--workers", "1"), tmp_path) as run:
        run.wait_for(lambda: units(output, "reduce"), "the first map is read")
        run.kill()
    again = command(job, output, "--workers", "1", "--resume")
    changed = [word if word != "8" else "9" for word in again]
    with RealRun(changed, tmp_path) as run:
        assert run.process.wait(60) == 2
        assert "maximum_shift_angstrom (was 8.0, is 9.0)" in run.said()
    volume = np.fromfile(job.volumes[1], np.float32)
    before = os.stat(job.volumes[1])
    volume[-5] += 1
    volume.tofile(job.volumes[1])
    os.utime(job.volumes[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    with RealRun(again, tmp_path) as run:
        assert run.process.wait(60) == 2
        assert "class_01.mrc" in run.said()
        assert "Traceback" not in run.said()


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own: `disk("ro")`, `disk("size=4m")`."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        remount = "remount," if os.path.ismount(folder) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{remount}{options}", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")

    try:
        yield folder, mount
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_a_read_only_place_and_a_full_disk_are_said_and_gone_on_from(job, undisturbed, disk, tmp_path):
    folder, mount = disk
    output = folder / "OUT"
    mount("ro")
    with RealRun(command(job, output, "--workers", "1"), tmp_path) as run:
        assert run.process.wait(60) == 2
        assert "cannot be made (Read-only file system)" in run.said()
    mount("rw,size=3m")
    with RealRun(command(job, output, "--workers", "1"), tmp_path) as run:
        assert run.process.wait(90) == 1
        assert "The disk is full" in run.said()
        assert "--resume" in run.said()
        assert "Traceback" not in run.said()
    assert not output.exists()
    mount("rw,size=300m")
    with RealRun(command(job, output, "--workers", "1", "--resume"), tmp_path) as run:
        run.finish()
    assert content(output) == undisturbed
