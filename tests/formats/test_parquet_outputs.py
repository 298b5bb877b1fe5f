from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import RegroupWarning
from regroup_dask.formats import parquet_particles as parquet
from regroup_dask.formats.particles import open_particles

from .relion.regrouping import law, plan_for, random_pose, regroup, write_star
from .test_parquet_particles import particle_table, vectors


def written_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 99), data=st.data(), poses=st.booleans())
def test_every_row_once_with_all_its_columns(tmp_path_factory, n, seed, data, poses):
    folder = tmp_path_factory.mktemp("out")
    table = particle_table(n, seed=seed, poses=poses)
    pq.write_table(table, folder / "a.parquet")
    source = open_particles(folder / "a.parquet", fragment_rows=data.draw(st.integers(1, n)))
    superclasses = data.draw(st.lists(st.integers(-1, 2), min_size=4, max_size=4))
    superclasses[data.draw(st.integers(0, 3))] = 1
    plan = plan_for(source, superclasses)
    paths, superclass = regroup(source, plan, folder / "out", parquet)
    assert [Path(path).name for path in paths] == [
        *(f"superclass={k}" for k in range(plan.n_superclasses)),
        "remaining",
    ]
    grouped = ds.dataset(folder / "out" / "particles", partitioning="hive").to_table()
    remaining = ds.dataset(folder / "out" / "remaining").to_table()
    assert grouped.schema.remove(grouped.schema.get_field_index("superclass")) == remaining.schema
    rows = [*grouped.column("input_row").to_pylist(), *remaining.column("input_row").to_pylist()]
    assert sorted(rows) == list(range(n))
    back = pa.concat_tables([grouped.drop_columns(["superclass"]), remaining]).sort_by("input_row")
    assert back.select(table.column_names).combine_chunks().equals(table)
    np.testing.assert_array_equal(
        grouped.column("superclass"), superclass[grouped.column("input_row").to_numpy()]
    )
    np.testing.assert_array_equal(
        back.column("assigned_class_id"), source.class_posteriors(source.to_table()).argmax(axis=1)
    )
    for path in (folder / "out").rglob("*.parquet"):
        assert (np.diff(pq.read_table(path).column("input_row").to_numpy()) > 0).all()
    again = tmp_path_factory.mktemp("again")
    regroup(source, plan, again, parquet)
    assert written_files(again) == written_files(folder / "out")


@pytest.mark.parametrize("kind", ["relion", "parquet"])
def test_poses_follow_their_class(tmp_path, kind):
    if kind == "relion":
        source = open_particles(write_star(tmp_path / "a.star", n=30, n_classes=4), fragment_rows=7)
    else:
        pq.write_table(particle_table(30), tmp_path / "a.parquet")
        source = open_particles(tmp_path / "a.parquet", fragment_rows=7)
    poses = {1: random_pose(1), 2: random_pose(2, mirrored=True), 3: random_pose(3)}
    regroup(source, plan_for(source, [0, 0, 1, -1], poses), tmp_path / "out", parquet)
    table = source.to_table()
    best = source.class_posteriors(table).argmax(axis=1)
    rotation, shift = source.particle_poses(table, best)
    found = ds.dataset(tmp_path / "out" / "particles", partitioning="hive").to_table().sort_by("input_row")
    rows = found.column("input_row").to_numpy()
    assert rows.tolist() == np.flatnonzero(best < 3).tolist()
    quaternion = np.stack(found.column("superclass_rotation_quaternion").to_numpy(zero_copy_only=False))
    moved_shift = np.stack(found.column("superclass_shift_angstrom").to_numpy(zero_copy_only=False))
    assert (quaternion[:, 3] >= 0).all()
    for index, row in enumerate(rows):
        expected = rotation[row : row + 1], shift[row : row + 1]
        if best[row] in poses:
            pose = poses[best[row]]
            expected = law(*expected, pose.rotation[None], pose.shift_angstrom[None], [pose.mirrored])
        np.testing.assert_allclose(
            Rotation.from_quat(quaternion[index]).as_matrix(), expected[0][0], atol=1e-9
        )
        np.testing.assert_allclose(moved_shift[index], expected[1][0], atol=1e-9)
    remaining = ds.dataset(tmp_path / "out" / "remaining").to_table()
    assert (
        remaining.column("superclass_rotation_quaternion").null_count
        == remaining.num_rows
        == (best == 3).sum()
    )


def test_a_superclass_without_particles_keeps_its_columns(tmp_path):
    pq.write_table(
        pa.table({"uid": [1, 2], "class_posterior": vectors(np.eye(3)[:2])}), tmp_path / "a.parquet"
    )
    source = open_particles(tmp_path / "a.parquet")
    paths, _ = regroup(source, plan_for(source, [0, 0, 1]), tmp_path / "out", parquet)
    empty = ds.dataset(paths[1]).to_table()
    assert (empty.num_rows, empty.schema) == (0, ds.dataset(paths[0]).schema)
    assert ds.dataset(paths[2]).count_rows() == 0


def test_rows_that_say_nothing_remain(tmp_path):
    posterior = vectors(np.eye(3), mask=np.array([False, True, False]))
    pq.write_table(pa.table({"uid": [1, 2, 3], "class_posterior": posterior}), tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    paths, _ = regroup(source, plan_for(source, [0, 0, 0]), tmp_path / "out", parquet)
    remaining = ds.dataset(paths[-1]).to_table()
    assert remaining.column("uid").to_pylist() == [2]
    assert remaining.column("assigned_class_id").to_pylist() == [-1]


def test_columns_of_an_earlier_regrouping_are_replaced(tmp_path):
    table = (
        particle_table(5)
        .append_column("input_row", pa.array([9] * 5))
        .append_column("superclass", pa.array([7] * 5))
    )
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_particles(tmp_path / "a.parquet")
    with pytest.warns(RegroupWarning, match="input_row, superclass"):
        regroup(source, plan_for(source, [0, 0, 0, 0]), tmp_path / "out", parquet)
    found = ds.dataset(tmp_path / "out" / "particles", partitioning="hive").to_table()
    assert found.column("input_row").to_pylist() == [0, 1, 2, 3, 4]
    assert found.column("superclass").to_pylist() == [0] * 5


def test_files_have_statistics_and_compression(tmp_path):
    source = open_particles(write_star(tmp_path / "a.star"))
    regroup(source, plan_for(source, [0, 0, 0, 0]), tmp_path / "out", parquet)
    column = (
        pq.ParquetFile(tmp_path / "out/particles/superclass=0/frag00000-0.parquet")
        .metadata.row_group(0)
        .column(0)
    )
    assert column.compression == "LZ4"
    assert column.statistics.has_min_max
