"""A disk that is full again and again: each time a clear error and a run to resume, in the end the same bytes."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from regroup_dask.errors import InputError
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
        except InputError as error:
            assert "No space left" in str(error)  # noqa: PT017
        refusals += 1
        assert not output.exists()
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(small_disk)], check=True)
    assert refusals >= 2
    assert content(output) == content(tmp_path / "undisturbed")
