"""Maps that lie further apart than the maximum shift are spoken of; those that lie within it are not."""

import numpy as np
import pytest
from scipy.ndimage import shift

import regroup_dask as rd
from regroup_dask.settings import Settings
from regroup_dask.steps.cut_shifts import cut_shift_sentences
from tests import small_job


@pytest.fixture(scope="module")
def apart():
    """Maps in one orientation, every second one moved by four voxels of 6 A."""
    job = small_job.make_job(structures=1, members=4, n_balls=30, moved=False, seed=4)
    moved = [shift(volume, (0, 0, 4 * (index % 2)), order=1) for index, volume in enumerate(job.maps)]
    return np.array(moved, np.float32), job.voxel_size


@pytest.mark.parametrize(("voxels", "said"), [(2, True), (6, False)])
def test_only_maps_further_apart_than_the_limit(apart, voxels, said):
    maps, voxel_size = apart
    limit = voxels * voxel_size
    found = rd.compare(maps, align=True, hand="off", voxel_size_angstrom=voxel_size, maximum_shift_angstrom=limit)
    sentences = cut_shift_sentences(found, Settings(n_superclasses=1, align=True, maximum_shift_angstrom=limit))
    assert bool(sentences) is said
    if said:
        # of four maps two and two lie together: four pairs cannot be right, and may end anywhere within the limit
        assert 2 <= int(sentences[0].split()[0]) <= 4
        assert f"at the maximum shift of {limit:g} A" in sentences[0]
        assert f"--maximum-shift {2 * limit:g}" in sentences[0]


def test_nothing_is_said_without_alignment(apart):
    maps, voxel_size = apart
    found = rd.compare(maps, align=False, voxel_size_angstrom=voxel_size)
    assert cut_shift_sentences(found, Settings(n_superclasses=1)) == []
