import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError
from regroup_dask.formats.particles import open_particles


def vectors(values, *, mask=None):
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=None if mask is None else pa.array(mask))


def particle_table(n, n_classes=4, *, seed=0, poses=True, posteriors=True):
    random = np.random.default_rng(seed)
    columns = {"uid": pa.array(random.integers(0, 2**63, n, dtype=np.uint64) * 2 + 1)}
    if posteriors:
        columns["class_posterior"] = vectors(random.dirichlet(np.ones(n_classes), n).astype(np.float32))
    else:
        columns["class_id"] = pa.array(random.integers(0, n_classes, n, dtype=np.int32))
    if poses:
        columns["rotation_quaternion"] = vectors(random.normal(size=(n, 4)))
        columns["shift_angstrom"] = vectors(random.normal(size=(n, 2)).astype(np.float32))
    columns["micrograph"] = pa.array([f"mic_{row % 7}" for row in range(n)])
    return pa.table(columns)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 60),
    group=st.integers(1, 60),
    rows=st.one_of(st.none(), st.integers(1, 70)),
    poses=st.booleans(),
)
def test_fragments_are_the_file(tmp_path_factory, n, group, rows, poses):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    table = particle_table(n, poses=poses)
    pq.write_table(table, path, row_group_size=group)
    source = pickle.loads(pickle.dumps(open_particles(path, fragment_rows=rows)))
    assert source.schema.equals(table.schema)
    assert source.to_table().combine_chunks().equals(table)
    first = 0
    for index, fragment in enumerate(source.fragments):
        assert (fragment.index, fragment.first_row) == (index, first)
        assert fragment.read(["micrograph", "uid"]).equals(table.slice(first, fragment.n_rows).select(["micrograph", "uid"]))
        first += fragment.n_rows
    assert first == n == source.n_rows
    posterior = np.stack(table.column("class_posterior").to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), posterior)


def test_classes_without_posteriors(tmp_path):
    pq.write_table(
        pa.table({"uid": ["a", "b", "c", "d"], "class_id": pa.array([5, None, -1, 2], pa.int8())}),
        tmp_path / "a.parquet",
    )
    source = open_particles(tmp_path / "a.parquet")
    assert source.class_ids == (2, 5)
    assert source.hard
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), [[0, 1], [0, 0], [0, 0], [1, 0]])
    assert source.particle_poses(source.to_table(), np.zeros(4, int)) is None


def test_poses_and_nulls(tmp_path):
    table = particle_table(10)
    quaternion = np.random.default_rng(0).normal(size=(10, 4))
    quaternion[4] = 0
    table = table.set_column(2, "rotation_quaternion", vectors(quaternion, mask=np.arange(10) == 3))
    table = table.set_column(1, "class_posterior", vectors(np.ones((10, 3)) / 3, mask=np.arange(10) == 2))
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    rotation, shift = source.particle_poses(source.to_table(), np.zeros(10, int))
    known = [0, 1, 2, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(rotation[known], Rotation.from_quat(quaternion[known]).as_matrix(), atol=1e-12)
    assert np.isnan(rotation[[3, 4]]).all()
    np.testing.assert_array_equal(shift, np.stack(table.column("shift_angstrom").to_numpy(zero_copy_only=False)))
    np.testing.assert_allclose(source.class_posteriors(source.to_table()).sum(axis=1), [1, 1, 0, 1, 1, 1, 1, 1, 1, 1])


def test_lists_as_pandas_writes_them(tmp_path):
    frame = pd.DataFrame({"uid": [1, 2], "class_posterior": [np.array([0.25, 0.75]), np.array([1.0, 0.0])]})
    frame.to_parquet(tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    assert source.class_ids == (0, 1)
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), [[0.25, 0.75], [1, 0]])
    frame["class_posterior"] = [np.array([0.25, 0.75]), np.array([1.0])]
    frame.to_parquet(tmp_path / "b.parquet")
    source = open_particles(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="class_posterior has rows of other than 2 values"):
        source.class_posteriors(source.to_table())


def test_partitioned_folder(tmp_path):
    table = particle_table(50, posteriors=False)
    partitioning = ds.partitioning(pa.schema([("class_id", pa.int32()), ("micrograph", pa.string())]), flavor="hive")
    ds.write_dataset(table, tmp_path / "set", format="parquet", partitioning=partitioning)
    (tmp_path / "set" / "_hidden.parquet").write_bytes(b"not parquet")
    source = open_particles(tmp_path / "set")
    expected = ds.dataset(tmp_path / "set", partitioning="hive").to_table()
    found = source.to_table().select(expected.column_names)
    assert found.sort_by("uid").to_pydict() == expected.sort_by("uid").to_pydict()
    assert source.class_ids == (0, 1, 2, 3)


def test_folder_names_as_hive_writes_them(tmp_path):
    """Spaces and slashes written as in a URL, no value, and numbers too large for 32 bits; of all files together."""
    micrographs = ["J2/a b.mrc", "12", None, "é=1"]
    columns = {"micrograph": pa.array(micrographs * 5), "session": pa.array([2**40, None, 3, -4] * 5)}
    table = pa.table({**columns, "class_id": pa.array([0, 1, None, 1] * 5), "uid": range(20)})
    partitioning = ds.partitioning(table.select(["micrograph", "session", "class_id"]).schema, flavor="hive")
    ds.write_dataset(table, tmp_path / "set", format="parquet", partitioning=partitioning)
    source = open_particles(tmp_path / "set")
    found = source.to_table().select(table.column_names).sort_by("uid")
    assert found.to_pydict() == table.to_pydict()
    assert [str(found.schema.field(name).type) for name in columns] == ["string", "int64"]
    np.testing.assert_array_equal(source.class_posteriors(found), [[1, 0], [0, 1], [0, 0], [0, 1]] * 5)
    assert pickle.loads(pickle.dumps(source)).to_table().equals(source.to_table())


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint64(), pa.int16()])
def test_class_ids_of_any_whole_number(tmp_path, kind):
    pq.write_table(pa.table({"uid": range(4), "class_id": pa.array([0, 2, None, 2], kind)}), tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    assert source.schema.field("class_id").type == kind
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), [[1, 0], [0, 1], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    "uids",
    [
        pa.array(["a", "b", "c"]).dictionary_encode(),
        pa.array(["a", "b", "c"], pa.string_view()),
        pa.array(["a", "b", "c"], pa.large_string()),
        pa.array([2**63, 5, 7], pa.uint64()).dictionary_encode(),
    ],
    ids=["dictionary", "view", "large", "dictionary of numbers"],
)
def test_uids_as_other_programs_write_them(tmp_path, uids):
    table = pa.table({"uid": uids, "class_id": [0, 1, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    assert source.to_table().column("uid").to_pylist() == uids.to_pylist()
    # Each row goes its own way.
    assert source.to_table().take([2, 0]).num_rows == 2
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]).unify_dictionaries(), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=f"the first being {uids[1].as_py()} in .*row 1.*row 3"):
        open_particles(tmp_path / "b.parquet")


def test_several_files_must_have_the_same_columns(tmp_path):
    for name, table in (
        ("a", particle_table(4)),
        ("b", particle_table(5, seed=1)),
        ("c", particle_table(5, poses=False)),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert open_particles([tmp_path / "a.parquet", tmp_path / "b.parquet"]).n_rows == 9
    with pytest.raises(InputError, match="have different columns"):
        open_particles([tmp_path / "a.parquet", tmp_path / "c.parquet"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop_columns(["uid"]),
            "no column uid that names its particles; it has: class_posterior, rot",
        ),
        (
            lambda t: t.drop_columns(["class_posterior"]),
            "neither a column class_posterior nor class_id .* it has: uid",
        ),
        (lambda t: t.set_column(0, "uid", pa.array([0.5] * 5)), "the column uid is of type double"),
        (
            lambda t: t.set_column(1, "class_id", pa.array(["a"] * 5)),
            "class_id is of type string; an integer",
        ),
        (
            lambda t: t.set_column(1, "class_posterior", pa.array([0.5] * 5)),
            "class_posterior is of type double",
        ),
        (
            lambda t: t.set_column(2, "rotation_quaternion", vectors(np.ones((5, 3)))),
            "has 3 values in a row; 4 are",
        ),
        (
            lambda t: t.set_column(3, "shift_angstrom", vectors(np.ones((5, 4)))),
            "4 values in a row; 2 or 3 are",
        ),
        (
            lambda t: t.drop_columns(["class_posterior"]).append_column("class_id", pa.array([2**40, 1, 2, 3, 4])),
            "a class_id is 1099511627776; classes are numbered from 0",
        ),
        (lambda t: t.slice(0, 0), "there are no particles in it"),
    ],
)
def test_wrong_input(tmp_path, change, message):
    pq.write_table(change(particle_table(5)), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        open_particles(tmp_path / "a.parquet")


def test_truncated_file(tmp_path):
    pq.write_table(particle_table(500), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot read the parquet file .*b.parquet"):
        open_particles(tmp_path / "b.parquet")
