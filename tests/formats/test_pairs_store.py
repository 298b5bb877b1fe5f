import numpy as np
import pytest
import xarray as xr

from regroup_dask.errors import InputError
from regroup_dask.formats.pairs_store import pairs_dataset, read_pairs, write_pairs


def make(n=3):
    random = np.random.default_rng(0)
    variables = {
        "correlation": random.random((n, n)),
        "rotation_quaternion": random.random((n, n, 4)),
        "shift_angstrom": random.random((n, n, 3)),
        "mirrored": np.eye(n) > 0,
    }
    return pairs_dataset(
        np.array([0, 4, 7]), names=["a", "é", "c"], n_particles=np.array([5, 6, 7]), variables=variables,
        attributes={"align": 1, "voxel_size_angstrom": 1.5},
    )  # fmt: skip


def test_pairs_come_back_with_names_units_and_every_bit(tmp_path, recwarn):
    pairs = make()
    write_pairs(pairs, tmp_path / "pairs.zarr")
    opened = xr.open_zarr(tmp_path / "pairs.zarr")
    assert [str(warning.message) for warning in recwarn if "onsolidated" in str(warning.message)] == []
    xr.testing.assert_identical(opened.load(), read_pairs(tmp_path / "pairs.zarr"))
    xr.testing.assert_equal(opened, pairs)
    assert opened["shift_angstrom"].attrs["units"] == "angstrom"
    assert opened["name"].values.tolist() == ["a", "é", "c"]
    assert opened.attrs["voxel_size_angstrom"] == 1.5


def test_what_is_no_store_of_pairs_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_pairs(tmp_path / "pairs.zarr")
    (tmp_path / "pairs.zarr").mkdir()
    with pytest.raises(InputError, match=r"pairs\.zarr"):
        read_pairs(tmp_path / "pairs.zarr")
