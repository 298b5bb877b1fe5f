import json

import numpy as np
import pytest

from regroup_dask.errors import InputError
from regroup_dask.formats.describe import describe_file
from regroup_dask.formats.mrc import write_mrc
from regroup_dask.formats.volume_store import create_volume_store
from tests.formats.mrc_files import density, write_with_mrcfile
from tests.formats.test_job_folder import make_relion_job


def test_map(tmp_path):
    write_mrc(tmp_path / "map.mrc", density(), voxel_size_angstrom=2.5, label="made for a test")
    said = dict(describe_file(tmp_path / "map.mrc"))
    assert said["box"] == "12 x 12 x 12 voxels (x, y, z)"
    assert said["voxel size"] == "2.5 A, so the box is 30 A wide"
    assert said["as a class map"] == "can be used"
    assert said["label"] == "made for a test"


def test_map_that_cannot_be_used_is_described_all_the_same(tmp_path):
    path = write_with_mrcfile(tmp_path / "map.mrc", np.ones((9, 9, 9), np.float32), voxel_size=0)
    said = dict(describe_file(path))
    assert said["voxel size"].startswith("not known")
    assert "constant" in said["as a class map"]


def test_store(tmp_path):
    create_volume_store(tmp_path / "v.zarr", n_superclasses=2, box=16, voxel_size_angstrom=3.0)
    said = dict(describe_file(tmp_path / "v.zarr"))
    assert said["as class maps"] == "2 maps, box 16, voxel size 3 A"
    assert "(superclass, z, y, x), chunks (1, 16, 16, 16)" in said["volume"]


def test_job_folder_and_model(tmp_path):
    folder = make_relion_job(tmp_path / "job")
    said = dict(describe_file(folder))
    assert said["particles"] == "run_it025_data.star"
    model = dict(describe_file(folder / "run_it025_model.star"))
    assert model["classes"] == "4"
    assert model["class id 3"].endswith("0.0% of the particles, resolution unknown")


def test_output_folder(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "complete"}))
    assert ("status", "complete") in describe_file(tmp_path)


@pytest.mark.parametrize("name", ["none.mrc", "text.txt", "text.csg", "text.cs", "text.star", "empty"])
def test_what_it_is_not_is_one_sentence(tmp_path, name):
    (tmp_path / "empty").mkdir()
    if name.startswith("text"):
        (tmp_path / name).write_text("nothing: here\n" * 100)
    with pytest.raises(InputError):
        describe_file(tmp_path / name)


@pytest.mark.shared_data
def test_real_files(shared_data):
    for path in sorted((shared_data / "meta").glob("*")) + sorted((shared_data / "maps").glob("*")):
        if path.is_file():
            rows = describe_file(path)
            assert rows[0][0] == "what it is"
            assert all(isinstance(text, str) and text for row in rows for text in row)


def test_parquet_without_classes_is_described_all_the_same(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "table.parquet")
    said = dict(describe_file(tmp_path / "table.parquet"))
    assert (said["rows"], said["columns"]) == ("3", "1: a")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError):
        describe_file(tmp_path / "broken.parquet")
