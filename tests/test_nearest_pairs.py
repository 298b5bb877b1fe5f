"""A run in which only the nearest maps are compared: the same bytes on one worker and on four, junk flagged, all told."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster
from sklearn.metrics import adjusted_rand_score

import regroup_dask as rd
from tests import small_job
from tests.tasks.small_job import content

NOISE = 5


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Twelve maps of two structures, one of the other hand, one replaced by noise; regrouped on one worker and on four."""
    job = small_job.make_job(structures=2, members=6, box=20, voxel_size=6.0, mirrored=(4,), seed=2)
    job.maps[NOISE] = np.random.default_rng(0).normal(size=job.maps[NOISE].shape) * job.maps.std()
    folder = tmp_path_factory.mktemp("nearest")
    files = [
        small_job.write_map(folder / f"class_{index:02d}.mrc", volume, job.voxel_size) for index, volume in enumerate(job.maps)
    ]
    results = []
    for n_workers in (1, 4):
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            options = {"n_superclasses": 2, "align": True, "pairs": "nearest:3"}
            results.append(rd.regroup(files, output=folder / f"of_{n_workers}", client=client, **options))
    return job, folder, results


def test_one_worker_and_four_give_the_same_bytes(outputs):
    _, folder, _ = outputs
    one, four = content(folder / "of_1"), content(folder / "of_4")
    assert one == four
    assert len(one) > 10


def test_some_pairs_were_never_compared_and_the_groups_are_right(outputs):
    job, _, (result, _) = outputs
    assert np.isnan(result.pairs["correlation"].values).any()
    others = np.arange(len(job.maps)) != NOISE
    labels = result.groups["superclass"].values
    assert adjusted_rand_score(job.structure_of_class[others], labels[others]) == 1.0
    hands = job.mirrored[others] != job.mirrored[others][0]
    assert np.array_equal(result.groups["mirrored"].values[others], hands != hands[labels[others].argmin()])


def test_noise_is_flagged_with_its_reason_and_all_is_told_how_sure_it_is(outputs):
    _, folder, (result, _) = outputs
    rows = {row["class_id"]: row for row in pq.read_table(folder / "of_1" / "classes.parquet").to_pylist()}
    assert [class_id for class_id, row in rows.items() if row["note"]] == [NOISE]
    assert "noise" in rows[NOISE]["note"] or "resembles no other" in rows[NOISE]["note"]
    others = [row["stability"] for class_id, row in rows.items() if class_id != NOISE]
    assert min(others) > 0.5
    assert np.isfinite(result.groups["superclass_stability"].values).all()
    curve = result.groups.attrs["stability_curve"]
    assert None not in curve
    assert len(curve) == len(result.groups.attrs["candidate_superclasses"]) > 3
