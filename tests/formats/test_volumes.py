import pickle
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.volume_names import class_ids_in_names, natural_key, stem_of
from regroup_dask.formats.volumes import find_mask, find_volumes, open_map, open_volumes, read_map, series_of
from tests.formats.mrc_files import density, write_with_mrcfile


@pytest.fixture
def folder(tmp_path):
    """Class maps as CryoSPARC names them, 11 of them, with what else lies beside."""
    for class_id in range(11):
        stem = f"cryosparc_P1_J10_class_{class_id:02d}_00042_volume"
        write_with_mrcfile(tmp_path / f"{stem}.mrc", density(seed=class_id))
        write_with_mrcfile(tmp_path / f"{stem}_sharp.mrc", density(seed=50))
    for half in "AB":
        write_with_mrcfile(
            tmp_path / f"cryosparc_P1_J10_class_03_00042_volume_half_{half}.mrc", density(seed=60)
        )
    write_with_mrcfile(tmp_path / "cryosparc_P1_J10_mask_refine.mrc", density(seed=70))
    return tmp_path


def test_glob_takes_class_maps_only_and_their_ids(folder):
    series = find_volumes(str(folder / "*.mrc"))
    assert [one.class_id for one in series.references] == list(range(11))
    assert series.box == 12
    assert series.voxel_size_angstrom == 2.5
    assert series.references[10].name == "cryosparc_P1_J10_class_10_00042_volume"
    assert [one.class_id for one in series.references if one.half_map_paths] == [3]


def test_glob_of_sharpened_maps_takes_them(folder):
    assert len(find_volumes(str(folder / "*_sharp.mrc")).references) == 11


def test_relative_and_home_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert len(find_volumes(f"{folder.name}/*volume.mrc").references) == 11
    monkeypatch.setenv("HOME", str(folder))
    assert len(find_volumes("~/*volume.mrc").references) == 11


def test_list_of_files_in_any_order_keeps_each_id_with_its_map(folder):
    paths = sorted(folder.glob("*_volume.mrc"), reverse=True)
    series = find_volumes(paths)
    for reference in series.references:
        np.testing.assert_array_equal(read_map(reference), density(seed=reference.class_id))


def test_relion_names_count_from_one(tmp_path):
    for number in (1, 2, 3):
        write_with_mrcfile(tmp_path / f"run_it025_class{number:03d}.mrc", density(seed=number))
    references = find_volumes(str(tmp_path / "run*.mrc")).references
    assert [(one.class_id, one.name) for one in references] == [
        (0, "run_it025_class001"),
        (1, "run_it025_class002"),
        (2, "run_it025_class003"),
    ]


@pytest.mark.parametrize(
    ("names", "class_ids"),
    [
        (["J1_class_00_x.mrc", "J1_class_12_x.mrc"], (0, 12)),
        (["a_class_6.mrc", "a_class_7.mrc"], (6, 7)),
        (["class001.mrc", "class010.mrc"], (0, 9)),
        (["run_it025_class003.mrc.gz", "run_it025_class001.mrc.gz"], (2, 0)),
        (["superclass_000.mrc", "superclass_001.mrc"], (0, 1)),
        (["class000.mrc", "class001.mrc"], None),
        (["class_1_class_2.mrc", "class_3_class_4.mrc"], None),
        (["a/class_1.mrc", "b/class_1.mrc"], None),
        (["class_1.mrc", "other.mrc"], None),
        (["class_1.mrc", "class002.mrc"], None),
        (["map_class3D.mrc", "map2_class3D.mrc"], None),
    ],
)
def test_class_ids_only_where_every_name_says_one(names, class_ids):
    assert class_ids_in_names(names) == class_ids


def test_without_ids_in_names_the_order_is_as_people_count(tmp_path):
    for number in (1, 2, 10):
        write_with_mrcfile(tmp_path / f"map_{number}.mrc", density(seed=number))
    assert [one.name for one in find_volumes(str(tmp_path / "*.mrc")).references] == [
        "map_1",
        "map_2",
        "map_10",
    ]


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers):
    names = [f"map_{number}.mrc" for number in numbers]
    assert sorted(names, key=natural_key) == [f"map_{number}.mrc" for number in sorted(numbers)]


def test_stems():
    assert stem_of("a/b.c/emd_1.map.gz") == "emd_1"
    assert stem_of("x_volume.mrc") == "x_volume"


def test_given_ids_and_names(tmp_path):
    paths = [write_with_mrcfile(tmp_path / f"{name}.mrc", density()) for name in "ab"]
    series = find_volumes(paths, class_ids=[5, 2], names=["five", "two"])
    assert [(one.class_id, one.name) for one in series.references] == [(2, "two"), (5, "five")]
    with pytest.raises(InputError, match="3 class ids were given for 2 maps"):
        find_volumes(paths, class_ids=[1, 2, 3])
    with pytest.raises(InputError, match="twice"):
        find_volumes(paths, class_ids=[1, 1])


def test_same_stems_get_their_folders_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_with_mrcfile(tmp_path / name / "vol.mrc", density())
    assert [one.name for one in find_volumes(str(tmp_path / "*" / "vol.mrc")).references] == [
        "one/vol",
        "two/vol",
    ]


def test_boxes_that_differ_are_refused_naming_both(tmp_path):
    write_with_mrcfile(tmp_path / "a.mrc", density(12))
    write_with_mrcfile(tmp_path / "b.mrc", density(14))
    with pytest.raises(InputError, match=r"b\.mrc has a box of 14 .*a\.mrc one of 12"):
        find_volumes(str(tmp_path / "*.mrc"))


def test_voxel_sizes_that_differ(tmp_path):
    write_with_mrcfile(tmp_path / "a.mrc", density(), voxel_size=2.5)
    write_with_mrcfile(tmp_path / "b.mrc", density(), voxel_size=2.51)
    with pytest.warns(RegroupWarning, match=r"2\.51 A .* 2\.5 A is taken"):
        assert find_volumes(str(tmp_path / "*.mrc")).voxel_size_angstrom == 2.5
    write_with_mrcfile(tmp_path / "b.mrc", density(), voxel_size=2.6)
    with pytest.raises(InputError, match="more than 1% apart"):
        find_volumes(str(tmp_path / "*.mrc"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_volumes(str(tmp_path / "*.mrc"), voxel_size_angstrom=2.55).voxel_size_angstrom == 2.55


def test_unknown_voxel_size_is_asked_for(tmp_path):
    path = write_with_mrcfile(tmp_path / "a.mrc", density(), voxel_size=0)
    with pytest.raises(InputError, match=r"a\.mrc does not say its voxel size.*--voxel-size"):
        find_volumes(path)
    assert find_volumes(path, voxel_size_angstrom=1.5).voxel_size_angstrom == 1.5
    with pytest.warns(RegroupWarning, match="taken from the particles"):
        assert find_volumes(path, fallback_voxel_size_angstrom=3.5).voxel_size_angstrom == 3.5
    write_with_mrcfile(tmp_path / "b.mrc", density(), voxel_size=2.0)
    with pytest.warns(RegroupWarning), pytest.raises(InputError, match="apart"):
        find_volumes(str(tmp_path / "*.mrc"), fallback_voxel_size_angstrom=3.5)
    with pytest.raises(InputError, match="between"):
        find_volumes(path, voxel_size_angstrom=-1.0)


def test_nothing_found_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no file matches .*\*\.mrc"):
        find_volumes(str(tmp_path / "*.mrc"))
    with pytest.raises(InputError, match="does not exist"):
        find_volumes(tmp_path / "a.mrc")
    with pytest.raises(InputError, match="no maps were given"):
        find_volumes([])
    path = write_with_mrcfile(tmp_path / "a.mrc", density())
    with pytest.raises(InputError, match="given twice"):
        find_volumes([path, path])


def test_slab_reads_do_not_need_the_rest(tmp_path):
    values = density()
    path = write_with_mrcfile(tmp_path / "a.mrc", values)
    reference = find_volumes(path).references[0]
    lazy = open_map(reference)
    assert lazy.shape == (12, 12, 12)
    np.testing.assert_array_equal(lazy[3:5], values[3:5])
    np.testing.assert_array_equal(lazy[3:5, :, 2], values[3:5, :, 2])
    np.testing.assert_array_equal(np.asarray(lazy), values)
    assert pickle.loads(pickle.dumps(reference)) == reference


def test_file_changed_since_it_was_found_is_said(tmp_path):
    path = write_with_mrcfile(tmp_path / "a.mrc", density(12))
    reference = find_volumes(path).references[0]
    write_with_mrcfile(path, density(10))
    with pytest.raises(InputError, match="has changed"):
        read_map(reference)


def test_mask_must_fit(tmp_path):
    series = find_volumes(write_with_mrcfile(tmp_path / "a.mrc", density()))
    mask = write_with_mrcfile(tmp_path / "mask.mrc", np.clip(density(), 0, 1))
    assert read_map(find_mask(mask, series=series)).shape == (12, 12, 12)
    with pytest.raises(InputError, match="box of 10"):
        find_mask(write_with_mrcfile(tmp_path / "m10.mrc", density(10)), series=series)
    with pytest.raises(InputError, match=r"voxel size of 3\.1 A"):
        find_mask(write_with_mrcfile(tmp_path / "m3.mrc", density(), voxel_size=3.1), series=series)


# ---- lazy labelled arrays


def test_opened_volumes_are_lazy_one_map_a_chunk(folder):
    volumes = open_volumes(str(folder / "*volume.mrc"))
    assert volumes.dims == ("class_id", "z", "y", "x")
    assert volumes.chunks[0] == (1,) * 11
    assert isinstance(volumes.data, da.Array)
    assert volumes.attrs["voxel_size_angstrom"] == 2.5
    assert volumes["z"].attrs["units"] == "angstrom"
    assert float(volumes["x"][6]) == 0.0
    np.testing.assert_array_equal(volumes.sel(class_id=4).values, density(seed=4))
    np.testing.assert_array_equal(volumes.sel(class_id=4)[5].values, density(seed=4)[5])
    np.testing.assert_array_equal(volumes.mean("class_id").values.shape, (12, 12, 12))


def test_a_bad_map_is_found_when_it_is_read(tmp_path):
    write_with_mrcfile(tmp_path / "a.mrc", np.ones((9, 9, 9), np.float32))
    volumes = open_volumes(str(tmp_path / "a.mrc"))
    with pytest.raises(InputError, match="constant"):
        volumes.compute()


def test_series_of_what_is_still_the_files(folder):
    volumes = open_volumes(str(folder / "*volume.mrc"))
    assert series_of(volumes) == find_volumes(str(folder / "*volume.mrc"))
    chosen = series_of(volumes.sel(class_id=[7, 3]))
    assert [one.class_id for one in chosen.references] == [7, 3]
    assert chosen.references[1].half_map_paths is not None
    renamed = series_of(volumes.assign_coords(class_id=np.arange(11) + 100))
    assert renamed.references[0].class_id == 100
    assert series_of(open_volumes(volumes)) == find_volumes(str(folder / "*volume.mrc"))


def test_no_series_of_what_was_computed_from_them(folder):
    volumes = open_volumes(str(folder / "*volume.mrc"))
    assert series_of(volumes * 2) is None
    # changed in one voxel of one map far from the middle plane
    values = volumes.values.copy()
    values[8, 1, 1, 1] += 1
    assert series_of(volumes.copy(data=values)) is None
    assert series_of(volumes.isel(z=slice(0, 8), y=slice(0, 8), x=slice(0, 8))) is None
    assert series_of(open_volumes(volumes.values, voxel_size_angstrom=2.5)) is None


def test_arrays_in_memory():
    maps = [density(seed=seed).astype(np.float64) for seed in range(3)]
    for source in (
        maps,
        np.stack(maps),
        da.from_array(np.stack(maps)),
        xr.DataArray(np.stack(maps), dims=list("azyx")),
    ):
        volumes = open_volumes(source, voxel_size_angstrom=2.0, names=["a", "b", "c"])
        assert volumes.dtype == np.float32
        assert volumes["name"].values.tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(volumes.values[1], maps[1].astype(np.float32))


def test_labelled_array_keeps_its_labels():
    source = xr.DataArray(
        np.stack([density(), density(seed=1)]),
        dims=("class_id", "z", "y", "x"),
        coords={"class_id": [4, 9], "name": ("class_id", ["four", "nine"])},
        attrs={"voxel_size_angstrom": 3.0},
    )
    volumes = open_volumes(source.transpose("x", "y", "z", "class_id"))
    assert volumes["class_id"].values.tolist() == [4, 9]
    assert volumes["name"].values.tolist() == ["four", "nine"]
    np.testing.assert_array_equal(volumes.values, source.values)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        (np.zeros((2, 8, 8, 8), np.float32), {}, "voxel_size_angstrom="),
        (np.zeros((2, 8, 8, 9), np.float32), {"voxel_size_angstrom": 1.5}, r"shape \(2, 8, 8, 9\)"),
        (np.zeros((8, 8, 8), np.float32), {"voxel_size_angstrom": 1.5}, "shape"),
        (np.zeros((2, 8, 8, 8), complex), {"voxel_size_angstrom": 1.5}, "real numbers"),
        ([density(8), density(9)], {"voxel_size_angstrom": 1.5}, "one box"),
        (np.zeros((2, 8, 8, 8)), {"voxel_size_angstrom": 1.5, "class_ids": [1, 1]}, "class ids"),
        (xr.DataArray(np.zeros((2, 8, 8, 8)), dims=list("abcd")), {"voxel_size_angstrom": 1.5}, "dimensions"),
    ],
)
def test_arrays_that_are_no_maps_are_refused(source, options, said):
    with pytest.raises(InputError, match=said):
        open_volumes(source, **options)


# ---- zarr stores


def test_xarray_dataset_in_zarr(tmp_path):
    values = np.stack([density(), density(seed=1)])
    xr.Dataset(
        {"density": (("class_id", "z", "y", "x"), values), "size": ("class_id", [1, 2])},
        coords={"class_id": [3, 8], "name": ("class_id", ["three", "eight"])},
        attrs={"voxel_size_angstrom": 4.0},
    ).to_zarr(tmp_path / "maps.zarr")
    series = find_volumes(tmp_path / "maps.zarr")
    assert [(one.class_id, one.name, one.kind) for one in series.references] == [
        (3, "three", "zarr"),
        (8, "eight", "zarr"),
    ]
    assert series.voxel_size_angstrom == 4.0
    np.testing.assert_array_equal(read_map(series.references[1]), values[1])
    np.testing.assert_array_equal(open_map(series.references[1])[2:4], values[1, 2:4])
    assert series_of(open_volumes(tmp_path / "maps.zarr")) == series


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_array(tmp_path, zarr_format):
    values = np.stack([density(), density(seed=1)])
    zarr.create_array(
        str(tmp_path / "plain.zarr"), data=values, zarr_format=zarr_format, chunks=(1, 12, 12, 12)
    )
    with pytest.raises(InputError, match="--voxel-size"):
        find_volumes(tmp_path / "plain.zarr")
    series = find_volumes(tmp_path / "plain.zarr", voxel_size_angstrom=1.5)
    np.testing.assert_array_equal(read_map(series.references[1]), values[1])


def test_zarr_without_maps_is_refused_saying_what_it_holds(tmp_path):
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(tmp_path / "none.zarr")
    with pytest.raises(InputError, match=r"0 arrays of four dimensions.*a \(2,\)"):
        find_volumes(tmp_path / "none.zarr")
    with pytest.raises(InputError, match="one store alone"):
        find_volumes([tmp_path / "none.zarr", "x.mrc"])


def test_voxel_size_of_coordinates_is_taken(tmp_path):
    axis = (np.arange(12) - 6) * 2.2
    xr.Dataset(
        {"density": (("map", "z", "y", "x"), density()[None])},
        coords={"z": ("z", axis, {"units": "angstrom"})},
    ).to_zarr(tmp_path / "axis.zarr")
    assert find_volumes(tmp_path / "axis.zarr").voxel_size_angstrom == 2.2


def test_opened_volumes_travel_to_other_processes_as_paths(folder):
    import cloudpickle

    volumes = open_volumes(str(folder / "*volume.mrc"))
    packed = cloudpickle.dumps(volumes)
    assert len(packed) < 11 * 12**3 * 4
    np.testing.assert_array_equal(cloudpickle.loads(packed).sel(class_id=4).values, density(seed=4))


def test_inputs_are_left_as_they_are(folder):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    open_volumes(str(folder / "*volume.mrc")).values.sum()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
