import csv

import pyarrow as pa

from regroup_dask.formats.result_tables import read_table, write_table


def test_tables_as_parquet_and_as_csv_with_a_column_per_component(tmp_path):
    table = pa.table(
        {
            "class_id": [0, 1],
            "name": ["a, b", 'é "c"'],
            "n_particles": pa.array([None, 5], pa.int64()),
            "rotation_quaternion": pa.array([[0.0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]], pa.list_(pa.float64(), 4)),
            "shift_angstrom": pa.array([[0.0, 0, 0], [1.25, -2, 1e-17]], pa.list_(pa.float64(), 3)),
        }
    )
    write_table(table, tmp_path, "classes")
    assert read_table(tmp_path, "classes").equals(table)
    with open(tmp_path / "classes.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1]["name"] == 'é "c"'
    assert [float(rows[1][f"shift_angstrom_{axis}"]) for axis in "xyz"] == [1.25, -2, 1e-17]
    assert float(rows[0]["rotation_quaternion_w"]) == 1
    assert rows[0]["n_particles"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", "classes.parquet"]
