import json

import numpy as np
import pytest

from regroup_dask.errors import InputError, OutputExistsError
from regroup_dask.formats.run_folder import read_run, run_folder, write_run


def opened(output, *, resume=False, overwrite=False, identity=None):
    return run_folder(output, resume=resume, overwrite=overwrite, identity=identity or {"settings": {"k": 2}})


def fail(output, error):
    with opened(output) as folder:
        (folder / "half").write_text("half")
        raise error


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with opened(tmp_path / "deep" / "OUT") as folder:
        assert not (tmp_path / "deep" / "OUT").exists()
        assert folder.is_absolute()
        (folder / "work").mkdir(exist_ok=True)
        (folder / "map.mrc").write_text("map")
        write_run(folder, {"status": "complete"})
    assert sorted(path.name for path in (tmp_path / "deep" / "OUT").iterdir()) == ["map.mrc", "run.json"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["OUT"]


def test_wrong_input_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        fail(tmp_path / "deep" / "deeper" / "OUT", InputError("no"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_is_taken_up_with_the_same_settings_only(tmp_path):
    with pytest.raises(RuntimeError):
        fail(tmp_path / "OUT", RuntimeError())
    with pytest.raises(OutputExistsError, match="--resume"), opened(tmp_path / "OUT"):
        pass
    with pytest.raises(InputError, match="settings"), opened(tmp_path / "OUT", resume=True, identity={"settings": 3}):
        pass
    with opened(tmp_path / "OUT", resume=True) as folder:
        assert (folder / "half").read_text() == "half"
    assert (tmp_path / "OUT" / "half").exists()


def test_overwriting_replaces_a_run_and_nothing_else(tmp_path):
    with opened(tmp_path / "OUT") as folder:
        (folder / "old").write_text("old")
    with opened(tmp_path / "OUT", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert sorted(path.name for path in (tmp_path / "OUT").iterdir()) == ["new", "run.json"]
    (tmp_path / "OUT" / "run.json").unlink()
    with pytest.raises(OutputExistsError, match="not made by"), opened(tmp_path / "OUT", overwrite=True):
        pass


def test_the_record_is_json_for_everybody(tmp_path):
    write_run(tmp_path, {"a": float("nan"), "b": [np.float64(2), np.int64(3)], "c": (True, None), "d": tmp_path})
    record = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert record == {"a": None, "b": [2.0, 3], "c": [True, None], "d": str(tmp_path)}
    assert read_run(tmp_path) == record


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)
