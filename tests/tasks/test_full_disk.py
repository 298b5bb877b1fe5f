"""A disk that is full again and again: each time a clear error and a run to resume, in the end the same bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess

import pytest
from click.testing import CliRunner

from regroup_dask.cli import main
from regroup_dask.errors import FullDiskError
from tests.tasks.lives import regroup
from tests.tasks.small_job import content, make_job


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that can be made larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    ).returncode
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_a_full_disk_leaves_a_run_that_goes_on(small_disk, tmp_path):
    job = make_job(tmp_path / "job", n_maps=3)
    regroup(job, tmp_path / "undisturbed")
    output = small_disk / "OUT"
    refusals = 0
    for megabytes in (1, 3, 6, 12, 24, 48, 96):
        try:
            regroup(job, output, resume=refusals > 0)
            break
        except OSError as error:  # how often it happens depends on the disk, so that `raises` does not fit
            assert error.errno == errno.ENOSPC, error  # noqa: PT017
        except FullDiskError as error:
            assert "make room" in str(error)  # noqa: PT017
        refusals += 1
        assert not output.exists()
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(small_disk)], check=True)
    assert refusals >= 2
    assert content(output) == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("full_from", ["beginning", "middle"])
def test_every_command_ends_a_full_disk_alike(small_disk, tmp_path, full_from):
    """Exit code 1, for nothing is wrong with what was asked, and a sentence that says what to do."""
    job = make_job(tmp_path / "job", n_maps=3)
    regroup(job, tmp_path / "OUT")
    if full_from == "beginning":
        fill(small_disk)
    run = ["run", "--particles", str(job.particles), "--volumes", *map(str, job.volumes), "-k", "2", "--quiet"]
    for words in (
        [*run, "--scheduler", "inproc://", "-o", str(small_disk / "RUN")],
        ["group", str(tmp_path / "OUT"), "-k", "2", "--quiet", "-o", str(small_disk / "GROUP")],
        ["export", str(tmp_path / "OUT"), "--to", "cryodrgn", "--quiet", "-o", str(small_disk / "EXPORT")],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("regroup_dask.tasks.connect.connected", lambda *_, **__: contextlib.nullcontext())
            if words[0] == "export" and full_from == "middle":
                fill(small_disk, left=4096)
            result = CliRunner().invoke(main, words)
        assert result.exit_code == 1, result.output
        assert "is full" in result.output
        assert "make room" in result.output
        assert "Traceback" not in result.output
    assert not (small_disk / "EXPORT.partial").exists()


def fill(disk, *, left=0):
    """Leave so many bytes free."""
    with contextlib.suppress(OSError), open(disk / "filling", "ab", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    os.truncate(disk / "filling", max(0, (disk / "filling").stat().st_size - left))
