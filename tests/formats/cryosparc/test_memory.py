"""Memory does not grow with the number of particles: opening, reading a fragment and writing it."""

import tracemalloc

import numpy as np
import pytest

from regroup_dask.formats import uid_index
from regroup_dask.formats.cryosparc import dataset_file, outputs, rearranged, stacked_files
from regroup_dask.formats.cryosparc.outputs import create_outputs, write_fragment
from regroup_dask.formats.particles import open_particles
from tests.formats.cryosparc.making import LOCATION, make_particles, random_records, save
from tests.formats.cryosparc.test_outputs import assign, make_plan

FRAGMENT_ROWS = 500


def peak_bytes(action):
    """Run and return the result and the most memory it took at once, NumPy and Arrow's copies of it included."""
    tracemalloc.start()
    try:
        result = action()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def one_by_one(function, pieces):
    """What one worker does: threads would have as many pieces in memory as happen to overlap."""
    return [function(piece) for piece in pieces]


def measure(folder, n_rows):
    """Peaks of opening, reading a fragment with its passthrough columns, and writing it."""
    rng = np.random.default_rng(1)
    block, _ = make_particles(1000, 4, "multi", rng)
    records = np.tile(block, n_rows // 1000)
    records["uid"] = rng.permutation(n_rows)
    beside = np.tile(random_records(1000, LOCATION, rng), n_rows // 1000)
    beside["uid"] = rng.permutation(n_rows)
    folder.mkdir()
    paths = save(folder / "p.cs", records), save(folder / "pass.cs", beside)
    row_bytes = records.dtype.itemsize
    del records, beside
    source, opening = peak_bytes(
        lambda: open_particles(
            paths[0], passthrough=paths[1], fragment_rows=FRAGMENT_ROWS, scratch=folder / "scratch", run=one_by_one
        )
    )
    fragment = source.fragments[1]
    table, reading = peak_bytes(fragment.read)
    plan = make_plan([0, 1, 1, -1], rng)
    assignment = assign(source.class_posteriors(table), [0, 1, 1, -1], 2)
    counts = np.array([[(assignment.superclass == k).sum() for k in (0, 1, -1)]])
    files = create_outputs(source, plan, counts, str(folder))
    _, writing = peak_bytes(lambda: write_fragment(source, fragment, table, assignment, plan, files, np.zeros(3, int)))
    return np.array([opening, reading, writing]), FRAGMENT_ROWS * row_bytes


def test_memory_does_not_grow_with_the_table(tmp_path, monkeypatch):
    for module, name, value in (
        (dataset_file, "CHUNK_BYTES", 2**17),
        (rearranged, "BUCKET_ROWS", 2**11),
        (stacked_files, "CHUNK_BYTES", 2**17),
        (stacked_files, "FRAGMENT_BYTES", 2**18),
        (uid_index, "BUCKET_ROWS", 2**11),
        (outputs, "BLOCK_BYTES", 2**16),
    ):
        monkeypatch.setattr(module, name, value)
    measure(tmp_path / "warm", 2000)
    small, fragment_bytes = measure(tmp_path / "small", 10000)
    large, _ = measure(tmp_path / "large", 40000)
    assert large == pytest.approx(small, rel=0.1)
    assert (large[1:] < 3 * fragment_bytes).all()
