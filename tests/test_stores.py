"""A whole run from a store to a store gives what it gives on disk."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import Client, LocalCluster

import regroup_dask as rd
from regroup_dask import pipeline
from regroup_dask.cli import main
from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.scratch_folder import scratch_folder
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import inputs_of_job
from tests.object_store import ObjectStore
from tests.small_job import make_job, write_cryosparc, write_parquet, write_relion

MAKERS = {"cryosparc": write_cryosparc, "relion": write_relion}


def run(*words: Any, code: int = 0) -> str:
    """Run the program in this process; returns what it says."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def assert_same(near: Path, contents: dict[str, bytes], *, prefix: str, input_near: str, input_far: str) -> None:
    """Compare an output on disk with one in a store, file by file."""
    on_disk = {str(path.relative_to(near)): path.read_bytes() for path in near.rglob("*") if path.is_file()}
    assert set(contents) == set(on_disk)
    for name, data in on_disk.items():
        if name in ("run.json", "report.html", "view.cxc"):
            continue
        far = contents[name]
        if name.startswith("classes."):
            if name.endswith(".csv"):
                far = far.replace(input_far.encode(), input_near.encode())
            elif name.endswith(".parquet"):
                rows = [pq.read_table(io.BytesIO(one)).to_pylist() for one in (data, far)]
                for row in rows[1]:
                    row["volume"] = row["volume"].replace(input_far, input_near)
                assert rows[0] == rows[1]
                continue
        if name == "relion/model.star":
            far = far.replace(prefix.encode(), str(near).encode())
        assert far == data, name


def regroup_job(
    source: str, output: str | Path, *, client: Client | None = None, settings: Settings | None = None, **more: Any
) -> None:
    """Do what the command line does with a job folder, without starting a cluster."""
    target = storage.location(output)
    with scratch_folder(target) as scratch:
        inputs = inputs_of_job(source, scratch=scratch)
        settings = settings or Settings(2, align=True, mask_inner_radius=0.8)
        pipeline.regroup_inputs(inputs, settings, target, client=client, **more)


@pytest.mark.parametrize("kind", ["cryosparc", "relion"])
def test_a_run_in_a_store_is_the_run_on_disk(object_store: ObjectStore, tmp_path: Path, kind: str) -> None:
    job = make_job(n_particles=90)
    folder = MAKERS[kind](job, tmp_path / "J10")
    url = object_store.put(folder, "J10")
    output = f"{object_store.url}/OUT"
    regroup_job(str(folder), tmp_path / "OUT")
    regroup_job(url, output)
    assert_same(tmp_path / "OUT", object_store.contents("OUT"), prefix=output, input_near=str(folder), input_far=url)
    record = json.loads(object_store.contents("OUT")["run.json"])
    assert record["status"] == "complete"
    pairs = xr.open_zarr(f"{output}/pairs.zarr", chunks=None)
    assert pairs.identical(xr.open_zarr(tmp_path / "OUT" / "pairs.zarr", chunks=None))
    with zipfile.ZipFile(io.BytesIO(object_store.contents("OUT")["series.zip"])) as packed:
        assert packed.testzip() is None
    assert len(np.unique(rd.group(pairs, 2)["superclass"].values)) == 2
    # What comes after a run works there too.
    assert "regroup-dask" in run("info", output)
    assert "3 superclasses" in run("group", output, "-k", 3)
    object_store.client().delete_object(Bucket=object_store.bucket, Key="OUT/report.html")
    run("report", output)
    assert object_store.contents("OUT")["report.html"].startswith(b"<!doctype html>")
    other = "relion" if kind == "cryosparc" else "cryosparc"
    run("export", output, "--to", other, "-o", tmp_path / "far", "--quiet")
    run("export", tmp_path / "OUT", "--to", other, "-o", tmp_path / "near", "--quiet")
    for path in sorted((tmp_path / "near").rglob("*.star" if other == "relion" else "*.cs")):
        far = (tmp_path / "far" / path.relative_to(tmp_path / "near")).read_bytes()
        assert far.replace(b"/far/", b"/near/") == path.read_bytes()
    assert "is a URL" in run("export", output, "--to", other, "--quiet", code=2)


def test_four_workers_write_what_one_writes(object_store: ObjectStore, tmp_path: Path) -> None:
    url = object_store.put(write_cryosparc(make_job(n_particles=90), tmp_path / "J10"), "J10")
    contents = []
    for n_workers in (1, 4):
        output = f"OUT{n_workers}"
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            regroup_job(url, f"{object_store.url}/{output}", client=client)
        contents.append(object_store.contents(output))
    assert set(contents[0]) == set(contents[1])
    for name, data in contents[0].items():
        if name.startswith(("particles/", "remaining/", "cryosparc/", "volumes/")):
            assert contents[1][name] == data, name


def test_from_python_in_this_process(object_store: ObjectStore, tmp_path: Path) -> None:
    job = make_job(n_particles=60)
    particles = write_parquet(job, tmp_path / "in" / "p.parquet")
    url = object_store.put(particles, "in/p.parquet")
    for name, output in (("near", tmp_path / "OUT"), ("far", "memory://OUT")):
        source = particles if name == "near" else url
        rd.regroup(job.maps, source, n_superclasses=2, output=output, voxel_size_angstrom=job.voxel_size)
    for path in sorted((tmp_path / "OUT" / "particles").rglob("*.parquet")):
        assert storage.read_bytes(f"memory://OUT/{path.relative_to(tmp_path / 'OUT')}") == path.read_bytes()


def test_an_output_that_exists_is_refused(object_store: ObjectStore, tmp_path: Path) -> None:
    url = object_store.put(write_cryosparc(make_job(n_particles=30), tmp_path / "J10"), "J10")
    output = f"{object_store.url}/OUT"
    options = ("-k", 2, "--quiet", "--workers", 1)
    assert "was not made by regroup-dask" in run("run", url, "-o", url, *options, code=2)
    regroup_job(url, output)
    assert "exists" in run("run", url, "-o", output, *options, code=2)
    assert "nothing to resume" in run("run", url, "-o", output, *options, "--resume", code=2)
    first = object_store.contents("OUT")
    regroup_job(url, output, overwrite=True)
    second = object_store.contents("OUT")
    assert {name: data for name, data in second.items() if name != "run.json" and "report" not in name} == {
        name: data for name, data in first.items() if name != "run.json" and "report" not in name
    }
    assert "no name" in run("run", url, "-o", object_store.url, *options, code=2)
    # An input that is wrong leaves nothing behind.
    with pytest.raises(InputError, match="superclasses"):
        rd.regroup(f"{url}/*_volume.mrc", n_superclasses=9, output=f"{output}2")
    assert object_store.contents("OUT2") == {}
    listed = object_store.client().list_objects_v2(Bucket=object_store.bucket)["Contents"]
    assert {entry["Key"].split("/")[0] for entry in listed} == {"J10", "OUT"}


def test_secrets_are_written_nowhere(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    url = object_store.put(write_cryosparc(make_job(n_particles=30), tmp_path / "J10"), "J10")
    options = tmp_path / "store.json"
    options.write_text(json.dumps({name: value for name, value in object_store.options.items() if name != "secret"}))
    output = f"{object_store.url}/OUT"
    given = ("--storage-options", options, "--storage-options", "secret=testsecret")
    words = ["run", url, "-k", "2", "--quiet", "--workers", "1", "-o", output, *map(str, given)]
    monkeypatch.setattr("sys.argv", ["regroup-dask", *words])
    run(*words)
    contents = object_store.contents("OUT")
    assert not [name for name, data in contents.items() if b"testsecret" in data]
    assert "secret=..." in json.loads(contents["run.json"])["command"]
