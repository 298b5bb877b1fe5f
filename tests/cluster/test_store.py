"""A whole run on a real object store (Ceph): ``pytest -m s3``; ``tests/cluster/ceph.sh install`` first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import ObjectStore, clean_environment, environment
from tests.store_runs import RunOnDisk, assert_same, regroup_job

pytestmark = pytest.mark.s3
SCRIPT = Path(__file__).with_name("ceph.sh")


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a gateway started here."""
    if not all(shutil.which(name) for name in ("ceph-mon", "ceph-osd", "radosgw")):
        pytest.skip("Ceph is not installed: tests/cluster/ceph.sh install")
    folder = tmp_path_factory.mktemp("ceph")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, timeout=300, check=False)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        said = dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines())
        yield said["AWS_ENDPOINT_URL"]
    finally:
        subprocess.run([SCRIPT, "stop", folder], timeout=120, check=False)


def test_a_run_in_ceph_is_the_run_on_disk(ceph: str, on_disk: RunOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(ceph, f"test-{on_disk.kind}")
    with clean_environment(monkeypatch):
        for name, value in environment(store).items():
            monkeypatch.setenv(name, value)
        store.client().create_bucket(Bucket=store.bucket)
        url, output = store.put(on_disk.job, "J10"), f"{store.url}/OUT"
        regroup_job(url, output)
        assert_same(on_disk, store.contents("OUT"), prefix=output, job=url)
