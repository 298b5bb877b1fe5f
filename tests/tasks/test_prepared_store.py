"""A prepared map comes back as it was written, or its file is refused."""

import numpy as np
import pytest

from regroup_dask.errors import DamagedStoreError
from regroup_dask.science import align
from regroup_dask.tasks import prepared_store
from tests.science.particles import blobs, render


@pytest.fixture(scope="module")
def prepared():
    plan = align.plan_alignment(
        box=24,
        voxel_size_angstrom=4.0,
        particle_radius_angstrom=32.0,
        resolution_angstrom=None,
        maximum_shift_angstrom=8.0,
        hand="off",
    )
    return align.prepare_map(render(*blobs(np.random.default_rng(3)), box=24), plan)


def test_every_array_comes_back_and_begins_where_vectorised_sums_do(prepared, tmp_path):
    prepared_store.create_folder(tmp_path)
    prepared_store.write_prepared(tmp_path, 7, prepared)
    back = prepared_store.cached_prepared(tmp_path, 7, "one")
    assert prepared_store.cached_prepared(tmp_path, 7, "one") is back
    for name, value in prepared._asdict().items():
        found = getattr(back, name)
        assert found.dtype == np.asarray(value).dtype, name
        assert found.ctypes.data % 64 == 0, name
        np.testing.assert_array_equal(found, value)


def test_no_byte_of_a_file_can_change_unnoticed(prepared, tmp_path):
    prepared_store.create_folder(tmp_path)
    prepared_store.write_prepared(tmp_path, 0, prepared)
    path = prepared_store.prepared_path(tmp_path, 0)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    spoilt = [whole[:length] for length in (0, 1, 11, 12, 100, len(whole) - 1)]
    for place in [0, 8, 100, len(whole) - 1, *rng.integers(len(whole), size=40)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(changed))
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(DamagedStoreError, match=r"of map 0 .* is damaged.*--resume"):
            prepared_store.read_prepared(tmp_path, 0)
    path.unlink()
    with pytest.raises(DamagedStoreError, match=r"of map 0 .* is missing"):
        prepared_store.read_prepared(tmp_path, 0)
