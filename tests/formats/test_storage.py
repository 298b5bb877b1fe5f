"""Files by path or URL: what comes out of a store is what lies on disk, and only what is asked for is fetched."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import regroup_dask as rd
from regroup_dask.errors import InputError, StoreAccessError
from regroup_dask.formats import mrc, storage, storing
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.remote_array import RangeArray, load_mapped
from tests.object_store import FaultyStore, ObjectStore
from tests.small_job import make_job, write_cryosparc, write_map, write_parquet, write_relion

EXAMPLE = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()


@pytest.fixture(params=["s3", "memory"])
def remote(request: pytest.FixtureRequest, object_store: ObjectStore) -> str:
    """An empty folder in a store."""
    return f"{object_store.url}/folder" if request.param == "s3" else f"memory://{object_store.bucket}/folder"


def test_paths_on_disk_are_left_alone(tmp_path: Path) -> None:
    assert not storage.is_remote("J42/map.mrc")
    assert not storage.is_remote(f"file://{tmp_path}")
    assert storage.absolute(f"file://{tmp_path}/map.mrc") == str(tmp_path / "map.mrc")
    assert isinstance(storage.location(tmp_path), Path)
    assert storage.location("a/b") == Path("a/b")


def test_what_is_written_is_there(remote: str) -> None:
    assert not storage.exists(remote)
    storing.write_bytes(f"{remote}/a.bin", EXAMPLE)
    with storing.opened_writing(f"{remote}/deeper/b.bin") as stream:
        for start in range(0, len(EXAMPLE), 999):
            stream.write(EXAMPLE[start : start + 999])
    with storing.whole_file(f"{remote}/c.bin") as local:
        local.write_bytes(EXAMPLE[::-1])
    assert storage.file_names(remote) == ["a.bin", "c.bin"]
    assert storage.files_below(remote) == [f"{remote}/{name}" for name in ("a.bin", "c.bin", "deeper/b.bin")]
    assert storage.matching_files(f"{remote}/*.bin") == [f"{remote}/a.bin", f"{remote}/c.bin"]
    assert storage.is_folder(remote)
    assert storage.is_folder(f"{remote}/deeper")
    assert storage.is_file(f"{remote}/a.bin")
    assert not storage.is_folder(f"{remote}/a.bin")
    assert storage.size_bytes(f"{remote}/deeper/b.bin") == len(EXAMPLE)
    assert storage.read_bytes(f"{remote}/deeper/b.bin") == EXAMPLE
    assert storage.read_bytes(f"{remote}/c.bin") == EXAMPLE[::-1]
    storing.copy_file(f"{remote}/a.bin", f"{remote}/d.bin")
    assert storage.read_bytes(f"{remote}/d.bin") == EXAMPLE
    storing.remove_file(f"{remote}/a.bin")
    storing.remove_file(f"{remote}/a.bin")
    assert not storage.exists(f"{remote}/a.bin")
    storing.remove_folder(remote)
    storing.remove_folder(remote)
    assert not storage.exists(remote)


def test_a_file_that_failed_is_not_there(remote: str) -> None:
    # The file system in memory knows no unfinished streams.
    streams = [] if remote.startswith("memory") else [storing.opened_writing]
    for write in (storing.whole_file, *streams):
        with pytest.raises(RuntimeError, match="half way"):
            _write_half(write, f"{remote}/a.bin")
        assert not storage.exists(f"{remote}/a.bin")


def _write_half(write: Any, path: str) -> None:
    with write(path) as target:
        (target.write_bytes if isinstance(target, Path) else target.write)(EXAMPLE)
        raise RuntimeError("half way")


def test_folders_are_copied_both_ways(remote: str, tmp_path: Path) -> None:
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "a").write_bytes(b"1")
    (tmp_path / "from" / "deep" / "b").write_bytes(b"2")
    storing.copy_folder(tmp_path / "from", f"{remote}/x")
    storing.copy_folder(f"{remote}/x", f"{remote}/y")
    storing.copy_folder(f"{remote}/y", tmp_path / "to")
    assert {path.relative_to(tmp_path / "to"): path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file()} == {
        Path("a"): b"1",
        Path("deep/b"): b"2",
    }


def test_folders_above_end_at_the_bucket() -> None:
    assert storage.folders_above("s3://bucket/a/b") == ["s3://bucket/a", "s3://bucket"]
    assert storage.folders_above("/a/b") == ["/a", "/"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-60_000, 60_000), st.integers(-1, 9_000)), max_size=6))
def test_streams_read_what_a_file_on_disk_reads(
    object_store: ObjectStore, tmp_path: Path, moves: list[tuple[int, int, int]]
) -> None:
    local = tmp_path / "a.bin"
    if not local.exists():
        local.write_bytes(EXAMPLE)
        object_store.put(local, "a.bin")
    for buffering in (0, 777, storage.STREAM_BYTES):
        with storage.open_reading(f"{object_store.url}/a.bin", buffering=buffering) as far, local.open("rb") as near:
            for whence, offset, count in moves:
                begin = {0: 0, 1: near.tell(), 2: len(EXAMPLE)}[whence]
                if begin + offset >= 0:
                    near.seek(offset, whence)
                    far.seek(offset, whence)
                assert far.read(count) == near.read(count)
                assert far.tell() == near.tell()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([(0, 1, 2), (0, 2, 1)]),
    st.one_of(st.integers(-7, 6), st.slices(7)),
    st.one_of(st.just(()), st.tuples(st.slices(5)), st.tuples(st.slices(5), st.integers(0, 3)), st.just((Ellipsis, 1))),
)
def test_arrays_by_ranges_are_indexed_as_numpy_does(
    object_store: ObjectStore, axes: tuple[int, ...], first: int | slice, rest: tuple
) -> None:
    values = np.arange(7 * 5 * 4, dtype="<i2").reshape(7, 5, 4)
    path = f"{object_store.url}/values.bin"
    if not storage.exists(path):
        storing.write_bytes(path, b"0123" + values.tobytes())
    far = RangeArray(path, values.dtype, 4, values.shape).transpose(axes)
    near = values.transpose(axes)
    assert far.shape == near.shape
    np.testing.assert_array_equal(far[(first, *rest)], near[(first, *rest)])


def test_a_slab_of_a_map_is_one_small_request(object_store: ObjectStore, tmp_path: Path) -> None:
    volume = np.random.default_rng(1).normal(size=(64, 64, 64)).astype("f4")
    url = object_store.put(write_map(tmp_path / "map.mrc", volume, 2.0), "map.mrc")
    with FaultyStore(object_store.endpoint, lambda _: None) as between:
        storage.use_storage_options(object_store.through(between.endpoint).options)
        header = mrc.read_header(url)
        values = mrc.open_data(header)
        before = len(between.requests)
        np.testing.assert_array_equal(values[10:12], volume[10:12])
        assert len(between.requests) == before + 1
    fetched: list[int] = []
    whole, storage_read = storage.size_bytes(url), storage.read_range
    with pytest.MonkeyPatch.context() as patch:
        storage.use_storage_options(object_store.options)
        patch.setattr(storage, "read_range", lambda path, a, b: fetched.append(b - a) or storage_read(path, a, b))
        np.testing.assert_array_equal(mrc.open_data(mrc.read_header(url))[10:12], volume[10:12])
    assert sum(fetched) < whole / 16


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 1, 3), (3, 2, 1)])
@pytest.mark.parametrize("packed", [False, True])
def test_maps_are_those_on_disk(object_store: ObjectStore, tmp_path: Path, order: tuple[int, ...], packed: bool) -> None:
    volume = np.random.default_rng(1).normal(size=(12, 12, 12)).astype("f4")
    path = write_map(tmp_path / "map.mrc", volume, 2.0)
    with mrcfile.open(path, "r+") as stream:
        stream.header.mapc, stream.header.mapr, stream.header.maps = order
    if packed:
        packed_path = tmp_path / "map.mrc.gz"
        packed_path.write_bytes(gzip.compress(path.read_bytes()))
        path = packed_path
    url = object_store.put(path, path.name)
    near, far = (rd.open_volumes(str(one)) for one in (path, url))
    np.testing.assert_array_equal(far.values, near.values)
    assert far.attrs == near.attrs
    assert list(far["volume"].values) == [url]
    assert rd.formats.volumes.series_of(far) is not None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(far)).values, near.values)


def test_patterns_find_the_same_maps(object_store: ObjectStore, tmp_path: Path) -> None:
    job = make_job(n_particles=20)
    folder = write_cryosparc(job, tmp_path / "J10")
    url = object_store.put(folder, "J10")
    near, far = rd.open_volumes(f"{folder}/*_volume.mrc"), rd.open_volumes(f"{url}/*_volume.mrc")
    assert list(far["name"].values) == list(near["name"].values)
    assert list(far["class_id"].values) == list(near["class_id"].values)
    np.testing.assert_array_equal(far.values, near.values)


def test_zarr_stores_of_maps(object_store: ObjectStore, tmp_path: Path) -> None:
    job = make_job(n_particles=20)
    near = rd.open_volumes(job.maps, voxel_size_angstrom=job.voxel_size)
    near.drop_vars(["volume", "volume_index"]).to_dataset(name="density").to_zarr(tmp_path / "maps.zarr", consolidated=False)
    far = rd.open_volumes(object_store.put(tmp_path / "maps.zarr", "maps.zarr"))
    np.testing.assert_array_equal(far.values, job.maps)
    with pytest.raises(InputError, match=r"cannot be opened as a zarr|does not exist"):
        rd.open_volumes(f"{object_store.url}/nothing.zarr")


@pytest.mark.parametrize("kind", ["multi", "class3D", "class", "relion", "relion 3.0", "parquet", "folder"])
def test_particles_are_those_on_disk(object_store: ObjectStore, tmp_path: Path, kind: str) -> None:
    job = make_job(n_particles=90)
    if kind.startswith("relion"):
        folder = write_relion(job, tmp_path / "job", style="3.0" if "3.0" in kind else "3.1")
    elif kind in ("parquet", "folder"):
        folder = write_parquet(job, tmp_path / "job" / "class_id=1" / "p.parquet").parent.parent
    else:
        folder = write_cryosparc(job, tmp_path / "job", generation=kind)
    url = object_store.put(folder, "job")
    if kind in ("parquet", "folder"):
        name = "" if kind == "folder" else "/class_id=1/p.parquet"
        near, far = open_particles(f"{folder}{name}", fragment_rows=30), open_particles(f"{url}{name}", fragment_rows=30)
    else:
        found = [recognise_job(one) for one in (folder, url)]
        near, far = (
            open_particles(one.particle_files, passthrough=one.passthrough_files, fragment_rows=40) for one in found
        )
        assert [Path(path).name for path in found[1].volume_files.values()] == [
            Path(path).name for path in found[0].volume_files.values()
        ]
        assert all(path.startswith(url) for path in found[1].volume_files.values())
    assert len(far.fragments) == len(near.fragments) > 1
    assert far.to_table().equals(near.to_table())
    again = pickle.loads(pickle.dumps(far.fragments[1]))
    assert again.read().equals(near.fragments[1].read())


def test_columnar_and_grouped_cryosparc_files(object_store: ObjectStore, tmp_path: Path) -> None:
    from cryosparc.dataset import CSDAT_FORMAT, Dataset

    job = make_job(n_particles=50)
    folder = write_cryosparc(job, tmp_path / "J10")
    plain = folder / "cryosparc_P1_J10_00042_particles.cs"
    Dataset.load(plain).save(folder / "columns.cs", format=CSDAT_FORMAT)
    (folder / "particles.csg").write_text(
        "group: {name: particles, type: particle, title: '', description: ''}\n"
        "results:\n  alignments3D_multi: {metafile: '>columns.cs', num_items: 50, type: particle.alignments3D_multi}\n"
        "version: v4.5.3\n"
    )
    url = object_store.put(folder, "J10")
    for name in ("columns.cs", "particles.csg"):
        assert open_particles(f"{url}/{name}").to_table().equals(open_particles(folder / name).to_table())
    object_store.client().put_object(
        Bucket=object_store.bucket,
        Key="J10/outside.csg",
        Body=b"group: {type: particle}\nresults: {a: {metafile: '>../secret.cs', num_items: 1, type: b}}\n",
    )
    with pytest.raises(InputError, match="outside its own folder"):
        open_particles(f"{url}/outside.csg")


def test_numpy_files_are_copied_once(object_store: ObjectStore, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    url = object_store.put(tmp_path / "a.npy", "a.npy")
    first = load_mapped(url)
    assert load_mapped(url) is first
    np.save(tmp_path / "a.npy", np.arange(6))
    object_store.put(tmp_path / "a.npy", "a.npy")
    np.testing.assert_array_equal(load_mapped(url), np.arange(6))


def test_options_travel_and_are_not_shown(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    storage.use_storage_options(object_store.options)
    storing.write_bytes(f"{object_store.url}/a", b"1")
    carried = pickle.dumps(storage.carried_options())
    assert "testsecret" not in repr(storage.carried_options())
    assert "testsecret" not in repr(storage.location(object_store.url))
    assert b"testsecret" not in pickle.dumps(storage.location(object_store.url))
    from tests.object_store import forget

    forget()
    with pytest.raises(StoreAccessError, match="needs credentials"):
        storage.read_bytes(f"{object_store.url}/a")
    forget()
    pickle.loads(carried).adopt()
    assert storage.read_bytes(f"{object_store.url}/a") == b"1"


def test_options_from_the_configuration(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with dask.config.set({"regroup.storage-options": object_store.options}):
        storing.write_bytes(f"{object_store.url}/a", b"1")
        assert storage.read_bytes(f"{object_store.url}/a") == b"1"


def test_wrong_names_get_sentences(object_store: ObjectStore) -> None:
    with pytest.raises(InputError, match=r"s3://no-such-bucket-here/J10: there is no such bucket"):
        recognise_job("s3://no-such-bucket-here/J10")
    with pytest.raises(InputError, match="does not exist"):
        recognise_job(f"{object_store.url}/J10")
    with pytest.raises(InputError, match=r"nothing\.mrc does not exist"):
        mrc.read_header(f"{object_store.url}/nothing.mrc")
    with pytest.raises(InputError, match="cannot be opened"):
        storage.exists("nosuchprotocol://a/b")
