import zipfile

import mrcfile
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from regroup_dask.formats import volume_store
from regroup_dask.formats.mrc import write_mrc
from regroup_dask.formats.volume_store import (
    create_volume_store,
    open_superclass,
    read_slabs,
    volume_store_voxel_size,
    write_series_zip,
    write_slab,
)
from regroup_dask.formats.volumes import find_volumes, read_map
from tests.formats.mrc_files import density

LAYOUT_OF_BOX = volume_store.layout_of_box


@pytest.fixture(autouse=True)
def _slabs_of_four_planes(monkeypatch):
    """Small boxes in several slabs, as large ones are."""
    monkeypatch.setattr(volume_store, "layout_of_box", lambda box: volume_store.Layout((2, 8, 8), (4, 16, 16)))


def fill(path, maps):
    box = maps[0].shape[0]
    create_volume_store(path, n_superclasses=len(maps), box=box, voxel_size_angstrom=3.1)
    for superclass, values in enumerate(maps):
        for begin, end in volume_store.slabs_of_box(box):
            write_slab(path, superclass, begin, values[begin:end])


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_store_opens_in_xarray_with_dimensions_coordinates_and_units(tmp_path):
    maps = [density(15, seed) for seed in range(3)]
    fill(tmp_path / "volumes.zarr", maps)
    opened = xr.open_zarr(tmp_path / "volumes.zarr", consolidated=False)
    volume = opened["volume"]
    assert volume.dims == ("superclass", "z", "y", "x")
    np.testing.assert_array_equal(volume.values, np.stack(maps))
    assert opened["superclass"].values.tolist() == [0, 1, 2]
    assert float(opened["z"][7]) == 0.0
    assert float(opened["x"][8]) == pytest.approx(3.1)
    assert {opened[name].attrs["units"] for name in "zyx"} == {"angstrom"}
    assert volume.attrs["voxel_size_angstrom"] == 3.1
    assert volume_store_voxel_size(tmp_path / "volumes.zarr") == 3.1


def test_store_is_found_like_any_other_maps(tmp_path):
    maps = [density(15, seed) for seed in range(2)]
    fill(tmp_path / "volumes.zarr", maps)
    series = find_volumes(tmp_path / "volumes.zarr")
    assert [one.name for one in series.references] == ["superclass_000", "superclass_001"]
    np.testing.assert_array_equal(read_map(series.references[1]), maps[1])


def test_store_is_the_same_bytes_whoever_writes_in_whatever_order(tmp_path):
    maps = [density(16, seed) for seed in range(2)]
    fill(tmp_path / "a.zarr", maps)
    create_volume_store(tmp_path / "b.zarr", n_superclasses=2, box=16, voxel_size_angstrom=3.1)
    for first in (12, 0, 8, 4):
        for superclass in (1, 0):
            write_slab(tmp_path / "b.zarr", superclass, first, maps[superclass][first : first + 4])
            write_slab(tmp_path / "b.zarr", superclass, first, maps[superclass][first : first + 4])
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


def test_a_slab_is_one_file_of_many_chunks(tmp_path):
    fill(tmp_path / "v.zarr", [density(15, seed) for seed in range(2)])
    files = [name for name in contents(tmp_path / "v.zarr" / "volume") if name.startswith("c/")]
    assert files == sorted(f"c/{superclass}/{slab}/0/0" for superclass in range(2) for slab in range(4))
    array = zarr.open_array(tmp_path / "v.zarr" / "volume")
    assert (array.chunks, array.shards) == ((1, 2, 8, 8), (1, 4, 16, 16))


@given(st.integers(2, 700))
def test_shards_are_whole_chunks_and_cover_the_box(box):
    chunk, shard = LAYOUT_OF_BOX(box)
    assert all(a % b == 0 for a, b in zip(shard, chunk, strict=True))
    assert max(chunk) <= 64
    assert shard[1] == shard[2] < box + box / chunk[1]
    assert box <= shard[1]
    assert 4 * shard[0] * box * box <= 16 * 2**20 + 4 * box * box * shard[0] / chunk[0] or shard[0] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume_store, "layout_of_box", LAYOUT_OF_BOX)
        slabs = volume_store.slabs_of_box(box)
    assert [plane for begin, end in slabs for plane in range(begin, end)] == list(range(box))
    assert all(begin % shard[0] == 0 for begin, _ in slabs)


@pytest.mark.parametrize(("first", "planes", "superclass"), [(1, 4, 0), (0, 3, 0), (12, 8, 0), (0, 4, 5)])
def test_slab_that_is_not_whole_shards_is_refused(tmp_path, first, planes, superclass):
    create_volume_store(tmp_path / "v.zarr", n_superclasses=2, box=16, voxel_size_angstrom=3.1)
    with pytest.raises(ValueError, match="overwrite each other"):
        write_slab(tmp_path / "v.zarr", superclass, first, np.ones((planes, 16, 16), np.float32))


def test_store_to_mrc_in_slabs(tmp_path):
    maps = [density(16)]
    fill(tmp_path / "v.zarr", maps)
    slabs = read_slabs(open_superclass(tmp_path / "v.zarr", 0))
    write_mrc(tmp_path / "map.mrc", slabs, box=16, voxel_size_angstrom=3.1)
    np.testing.assert_array_equal(mrcfile.read(tmp_path / "map.mrc"), maps[0])
    assert mrcfile.validate(tmp_path / "map.mrc")


def test_series_zip_is_whole_and_always_the_same(tmp_path):
    files = [tmp_path / f"superclass_{k:03d}.mrc" for k in range(3)]
    for k, file in enumerate(files):
        write_mrc(file, density(seed=k), voxel_size_angstrom=2.0)
    write_series_zip(tmp_path / "one.zip", files)
    for file in files:
        file.touch()
    write_series_zip(tmp_path / "two.zip", files)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == [file.name for file in files]
        assert archive.testzip() is None
        assert [archive.read(file.name) == file.read_bytes() for file in files] == [True] * 3
