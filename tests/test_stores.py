"""A whole run from a store to a store gives what it gives on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster

import regroup_dask as rd
from regroup_dask.errors import InputError
from regroup_dask.formats import storage, storing
from tests.object_store import ObjectStore
from tests.small_job import make_job, write_parquet
from tests.store_runs import RunOnDisk, assert_same, contents, put, regroup_job, run

FEW = ("-k", 2, "--quiet", "--workers", 1)


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line works in this process."""
    monkeypatch.setattr("regroup_dask.tasks.connect.connected", lambda *_, **__: contextlib.nullcontext())


def test_four_workers_in_an_object_store_write_what_is_written_on_disk(
    object_store: ObjectStore, cryosparc_on_disk: RunOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole program with its options; and nowhere does it write what is secret."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    url, output = object_store.put(cryosparc_on_disk.job, "J10"), f"{object_store.url}/OUT"
    options = tmp_path / "store.json"
    options.write_text(json.dumps({name: value for name, value in object_store.options.items() if name != "secret"}))
    words = ["run", url, "-k", 2, "--align-pairs", "--mask-inner-radius", 0.8, "--quiet", "-o", output]
    words += ["--storage-options", options, "--storage-options", "secret=testsecret"]
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        monkeypatch.setattr("regroup_dask.tasks.connect.connected", lambda *_, **__: contextlib.nullcontext(client))
        monkeypatch.setattr("sys.argv", ["regroup-dask", *map(str, words)])
        run(*words)
    found = object_store.contents("OUT")
    assert_same(cryosparc_on_disk, found, prefix=output, job=url)
    record = json.loads(found["run.json"])
    assert record["status"] == "complete"
    assert "secret=..." in record["command"]
    assert not [name for name, data in found.items() if b"testsecret" in data]
    pairs = xr.open_zarr(f"{output}/pairs.zarr", chunks=None)
    assert pairs.identical(xr.open_zarr(cryosparc_on_disk.output / "pairs.zarr", chunks=None))
    with zipfile.ZipFile(io.BytesIO(found["series.zip"])) as packed:
        assert packed.testzip() is None
    # One object for each map of each superclass: a shard, written by one task.
    assert [name for name in found if name.startswith("volumes.zarr/volume/c/")] == [
        f"volumes.zarr/volume/c/{superclass}/0/0/0" for superclass in range(2)
    ]
    assert zarr.open_array(f"{output}/classes.zarr/density").shards is not None


def test_a_run_in_a_store_and_what_comes_after_it(
    on_disk: RunOnDisk, memory: str, without_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This store stamps content, as one that speaks S3 does.
    stamp = lambda url: (f'"{hashlib.md5(storage.read_bytes(url)).hexdigest()}"', storage.size_bytes(url))  # noqa: E731
    monkeypatch.setattr(storage, "change_stamp", stamp)
    url, output = put(on_disk, memory), f"{memory}/OUT"
    regroup_job(url, output)
    found = contents(output)
    assert_same(on_disk, found, prefix=output, job=url)
    assert "regroup-dask" in run("info", output)
    pairs = xr.open_zarr(f"{output}/pairs.zarr", chunks=None)
    assert len(np.unique(rd.group(pairs, 2)["superclass"].values)) == 2
    storing.remove_file(f"{output}/report.html")
    run("report", output)
    assert storage.read_bytes(f"{output}/report.html").startswith(b"<!doctype html>")
    # Grouped again, its inputs elsewhere, and compared with what it was.
    moved = f"{memory}/moved"
    storing.copy_folder(url, moved)
    storing.remove_folder(url)
    run("group", output, "-k", 3, "-o", f"{memory}/OUT3", "--job", moved, "--quiet")
    run("group", output, "-k", 3, "-o", f"{memory}/OUT3again", "--inputs", f"{url}={moved}", "--quiet")
    again = contents(f"{memory}/OUT3again")
    assert {name for name in again if name.startswith("particles/superclass=2/")}
    for name, data in contents(f"{memory}/OUT3").items():
        if name.startswith(("particles/", "volumes/", "volumes.zarr/", "classes.zarr/")):
            assert again[name] == data, name
    run("group", on_disk.output, "-k", 3, "-o", f"{memory}/OUT3disk", "--job", moved, "--quiet")
    assert '"same_grouping": true' in run("compare", f"{memory}/OUT3", f"{memory}/OUT3disk", "--json")
    assert "The grouping differs" in run("compare", output, f"{memory}/OUT3")
    assert '"same_grouping": true' in run("compare", f"{memory}/OUT3", f"{memory}/OUT3again", "--json")
    # Written for the other program beside it, and elsewhere.
    other = "relion" if on_disk.kind == "cryosparc" else "cryosparc"
    run("export", output, "--to", other, "--quiet")
    run("export", on_disk.output, "--to", other, "--quiet", "-o", f"{memory}/exported")
    assert contents(f"{output}/export_{other}").keys() == contents(f"{memory}/exported").keys()
    assert "exists" in run("export", output, "--to", other, "--quiet", code=2)


def test_a_dry_run_writes_nothing_to_a_store(on_disk: RunOnDisk, memory: str) -> None:
    url = put(on_disk, memory)
    before = contents(memory)
    said = run("run", url, "-k", 2, "-o", f"{memory}/OUT", "--dry-run", "--workers", 1)
    assert "4 maps of box 24" in said
    assert "Nothing was computed or written" in said
    assert contents(memory) == before


def test_from_python_in_this_process(object_store: ObjectStore, memory: str, tmp_path: Path) -> None:
    job = make_job(n_particles=60)
    particles = write_parquet(job, tmp_path / "in" / "p.parquet")
    url = object_store.put(particles, "in/p.parquet")
    for source, output in ((particles, tmp_path / "OUT"), (url, f"{memory}/OUT")):
        rd.regroup(job.maps, source, n_superclasses=2, output=output, voxel_size_angstrom=job.voxel_size)
    for path in sorted((tmp_path / "OUT" / "particles").rglob("*.parquet")):
        assert storage.read_bytes(f"{memory}/OUT/{path.relative_to(tmp_path / 'OUT')}") == path.read_bytes()


def test_an_output_that_exists_is_refused(cryosparc_on_disk: RunOnDisk, memory: str) -> None:
    url, output = put(cryosparc_on_disk, memory), f"{memory}/OUT"
    assert "was not made by regroup-dask" in run("run", url, "-o", url, *FEW, code=2)
    storing.copy_folder(cryosparc_on_disk.output, output)
    assert "exists" in run("run", url, "-o", output, *FEW, code=2)
    assert "nothing to resume" in run("run", url, "-o", output, *FEW, "--resume", code=2)
    storing.write_bytes(f"{output}/volumes/superclass_007.mrc", b"of an earlier run")
    regroup_job(url, output, overwrite=True)
    assert_same(cryosparc_on_disk, contents(output), prefix=output, job=url)
    # An input that is wrong leaves nothing behind.
    with pytest.raises(InputError, match="superclasses"):
        rd.regroup(f"{url}/*_volume.mrc", n_superclasses=9, output=f"{output}2")
    assert {name.split("/")[0] for name in contents(memory)} == {"J10", "OUT"}


def test_a_bucket_alone_is_no_output(object_store: ObjectStore) -> None:
    assert "no name" in run("run", f"{object_store.url}/J10", "-o", object_store.url, *FEW, code=2)
