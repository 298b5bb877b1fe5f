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

import regroup_dask as rd
from regroup_dask.cli import main
from regroup_dask.formats import storage
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
        if name in ("run.json", "report.html"):
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


@pytest.mark.parametrize("kind", ["cryosparc", "relion"])
def test_a_run_in_a_store_is_the_run_on_disk(object_store: ObjectStore, tmp_path: Path, kind: str) -> None:
    job = make_job(n_particles=90)
    folder = MAKERS[kind](job, tmp_path / "J10")
    url = object_store.put(folder, "J10")
    options = ["-k", 2, "--align-pairs", "--mask-inner-radius", 0.8, "--quiet", "--workers", 1]
    run("run", folder, "-o", tmp_path / "OUT", *options)
    run("run", url, "-o", f"{object_store.url}/OUT", *options)
    assert_same(
        tmp_path / "OUT",
        object_store.contents("OUT"),
        prefix=f"{object_store.url}/OUT",
        input_near=str(folder),
        input_far=url,
    )
    record = json.loads(object_store.contents("OUT")["run.json"])
    assert record["status"] == "complete"
    pairs = xr.open_zarr(f"{object_store.url}/OUT/pairs.zarr", chunks=None)
    assert pairs.identical(xr.open_zarr(tmp_path / "OUT" / "pairs.zarr", chunks=None))
    with zipfile.ZipFile(io.BytesIO(object_store.contents("OUT")["series.zip"])) as packed:
        assert packed.testzip() is None
    groups = rd.group(pairs, 2)
    assert len(np.unique(groups["superclass"].values)) == 2
    # What comes after a run works there too.
    assert "regroup-dask" in run("info", f"{object_store.url}/OUT")
    run("group", f"{object_store.url}/OUT", "-k", 3)
    run("report", f"{object_store.url}/OUT")
    run("group", f"{object_store.url}/OUT", "-k", 3, "-o", f"{object_store.url}/OUT3", "--quiet", "--workers", 1)
    assert json.loads(object_store.contents("OUT3")["run.json"])["n_superclasses"] == 3
    run("group", f"{object_store.url}/OUT", "-k", 3, "-o", tmp_path / "OUT3", "--quiet", "--workers", 1)
    assert (tmp_path / "OUT3" / "volumes" / "superclass_000.mrc").read_bytes() == object_store.contents("OUT3")[
        "volumes/superclass_000.mrc"
    ]


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
    run("run", url, "-o", output, *options)
    assert "exists" in run("run", url, "-o", output, *options, code=2)
    assert "nothing to resume" in run("run", url, "-o", output, *options, "--resume", code=2)
    run("run", url, "-o", output, *options, "--overwrite")
    assert "no name" in run("run", url, "-o", object_store.url, *options, code=2)
    # An input that is wrong leaves nothing behind.
    assert "does not exist" in run("run", url, "-o", f"{output}2", *options, "--exclude-classes", "9", code=2)
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
