"""The image of deploy/Dockerfile, built here and used: the demo in it, without root, and what charts start it with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.container, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "image.sh"
BUILD_SECONDS, DEMO_SECONDS = 480, 300


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """What does something with the image; it is built once, and removed after."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no image can be built here: {', '.join(missing) or 'root'} is missing (tests/cluster/image.sh install)")
    home = tmp_path_factory.mktemp("image")
    environment = {**os.environ, "IMAGE_HOME": str(home)}

    def do(*arguments: str, seconds: float = 60, good: bool = True) -> str:
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=seconds
        )
        assert not good or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    try:
        said = do("build", seconds=BUILD_SECONDS, good=False)
        for complaint in ("Operation not permitted", "Could not resolve", "Couldn't download", "Failed to establish"):
            if complaint in said and "Successfully tagged" not in said:
                pytest.skip(f"this machine cannot build the image: {said[-300:]}")
        assert "Successfully tagged" in said, said[-3000:]
        yield do
    finally:
        do("remove", good=False, seconds=120)


@pytest.fixture
def data(tmp_path):
    """A folder of somebody who is neither root nor the image's user, where everybody may write."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_the_demo_runs_in_the_image_without_root(image, data):
    assert image("id").split()[0] == "1000"
    said = image("run", str(data), "demo", "-o", "demo", "--workers", "2", seconds=DEMO_SECONDS)
    assert "adjusted Rand index 1.000" in said
    assert (data / "demo" / "regrouped" / "report.html").stat().st_uid == 1000


def test_the_image_is_small_and_starts_what_charts_ask_for(image, data):
    # of megabytes, above the base: llvmlite, pyarrow, scipy and the like are most of it
    assert int(image("size").split()[-1]) < 1000
    for program in (["dask-scheduler"], ["dask worker"], ["dask", "worker"]):
        assert "Usage: dask " in image("run", str(data), *program, "--help").replace("dask-", "dask ")
    assert "regroup-dask" in image("run", str(data), "--help")
    assert "gateway" in image("run", str(data), "python", "-c", "import dask_gateway; print(dask_gateway.__name__)")
