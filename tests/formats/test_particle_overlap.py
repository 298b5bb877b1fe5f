"""Particles of two folders are matched by what they are, in one pass or in many."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regroup_dask.formats.particle_overlap import particle_overlap


def write(folder, labels, columns):
    """An output folder whose particles of label K are in superclass K, and of -1 in remaining."""
    for label in sorted(set(labels.tolist())):
        target = folder / "remaining" if label < 0 else folder / "particles" / f"superclass={label}"
        target.mkdir(parents=True, exist_ok=True)
        rows = np.flatnonzero(labels == label)
        pieces = np.array_split(rows, 2)
        for number, piece in enumerate(pieces):
            chosen = {name: pa.array(np.asarray(values, dtype=object)[piece].tolist()) for name, values in columns.items()}
            pq.write_table(pa.table(chosen), target / f"part_{number}.parquet")
    return folder


@pytest.fixture
def labels():
    random = np.random.default_rng(4)
    return random.integers(-1, 3, 500), random.integers(-1, 2, 500)


def expected(one, two):
    counts = np.zeros((4, 3), np.int64)
    np.add.at(counts, (one, two), 1)
    return counts


@pytest.mark.parametrize("rows_per_pass", [10**7, 60])
@pytest.mark.parametrize("key", ["uid", "rlnImageName"])
def test_counts_are_those_of_a_join(tmp_path, labels, key, rows_per_pass):
    order = np.random.default_rng(5).permutation(500)
    uid = np.random.default_rng(6).integers(1, 2**63, 500)
    keys = uid if key == "uid" else np.array([f"{value:06d}@stack.mrcs" for value in uid])
    first = write(tmp_path / "one", labels[0], {key: keys, "input_row": np.arange(500)})
    second = write(tmp_path / "two", labels[1][order], {key: keys[order], "input_row": np.arange(500)})
    found = particle_overlap(first, second, n_first=3, n_second=2, same_rows=False, rows_per_pass=rows_per_pass)
    assert found.key == key
    np.testing.assert_array_equal(found.counts, expected(*labels))
    assert (found.only_first, found.only_second, found.repeated) == (0, 0, 0)


@pytest.mark.parametrize("rows_per_pass", [10**7, 60])
def test_particles_of_one_folder_only_and_repeated_ones_are_counted(tmp_path, labels, rows_per_pass):
    first = write(tmp_path / "one", labels[0], {"uid": np.arange(500)})
    twice = np.concatenate([np.arange(100, 600), np.arange(100, 110)])
    second = write(tmp_path / "two", np.concatenate([labels[1], labels[1][:10]]), {"uid": twice})
    found = particle_overlap(first, second, n_first=3, n_second=2, same_rows=False, rows_per_pass=rows_per_pass)
    assert (found.only_first, found.only_second, found.repeated) == (100, 100, 10)
    np.testing.assert_array_equal(found.counts, expected(labels[0][100:], labels[1][:400]))


def test_rows_tell_particles_apart_only_where_the_files_are_the_same(tmp_path, labels):
    first = write(tmp_path / "one", labels[0], {"input_row": np.arange(500)})
    second = write(tmp_path / "two", labels[1], {"input_row": np.arange(500)})
    assert particle_overlap(first, second, n_first=3, n_second=2, same_rows=False) is None
    found = particle_overlap(first, second, n_first=3, n_second=2, same_rows=True)
    assert found.key == "input_row"
    np.testing.assert_array_equal(found.counts, expected(*labels))


def test_a_folder_without_particles_gives_nothing(tmp_path, labels):
    first = write(tmp_path / "one", labels[0], {"uid": np.arange(500)})
    (tmp_path / "two").mkdir()
    assert particle_overlap(first, tmp_path / "two", n_first=3, n_second=2, same_rows=True) is None
