"""Maps in unlike orientations that nobody asked to align are spoken of; maps in one frame are not."""

import numpy as np
import pytest
import xarray as xr

import regroup_dask as rd
from regroup_dask.errors import RegroupWarning
from regroup_dask.settings import Settings
from regroup_dask.steps.unaligned import unaligned_sentences
from tests import small_job


def pairs_of(job, *, align=False):
    return rd.compare(job.maps, align=align, voxel_size_angstrom=job.voxel_size)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_maps_that_were_turned(noise):
    turned, still = (
        small_job.make_job(structures=2, members=3, n_balls=30, noise=noise, moved=moved, seed=4) for moved in (True, False)
    )
    settings = Settings(n_superclasses=2)
    (sentence,) = unaligned_sentences(pairs_of(turned), settings)
    assert "--align-pairs" in sentence
    assert unaligned_sentences(pairs_of(still), settings) == []
    assert unaligned_sentences(pairs_of(turned), Settings(n_superclasses=2, align=True)) == []


def test_nothing_is_said_of_maps_of_noise():
    pairs = xr.Dataset({"similarity": (("class_i", "class_j"), np.full((3, 3), np.nan))})
    assert unaligned_sentences(pairs, Settings(n_superclasses=2)) == []


def test_a_run_says_it(tmp_path):
    job = small_job.make_job(structures=2, members=2, n_balls=30, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
        with pytest.warns(RegroupWarning, match="run again with --align-pairs"):
            rd.regroup(job.maps, n_superclasses=2, output=tmp_path / "OUT", voxel_size_angstrom=job.voxel_size)
