"""What a file holds is told by its content, on disk and in a store."""

import pytest

from regroup_dask.formats import storage
from regroup_dask.formats.fingerprint import fingerprint, has_content


def test_a_fingerprint_is_of_the_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * 100)
    second.write_bytes(b"x" * 100)
    assert fingerprint(first)["sha256"] == fingerprint(second)["sha256"]
    second.write_bytes(b"x" * 99 + b"y")
    assert fingerprint(first)["sha256"] != fingerprint(second)["sha256"]


def test_content_is_known_again_on_disk_and_in_a_store(tmp_path, object_store):
    here, there = tmp_path / "a.mrc", f"{object_store.url}/a.mrc"
    here.write_bytes(b"x" * 1000)
    object_store.put(here, "a.mrc")
    object_store.put(here, "moved/a.mrc")
    known_here, known_there = fingerprint(here), fingerprint(there)
    assert has_content(here, known_there)
    assert has_content(there, known_here)
    assert has_content(f"{object_store.url}/moved/a.mrc", known_there)
    here.write_bytes(b"x" * 999 + b"y")
    object_store.put(here, "a.mrc")
    assert not has_content(here, known_there)
    assert has_content(there, known_here) is False
    assert not has_content(there, known_there)
    here.write_bytes(b"x" * 999)
    assert has_content(here, known_there) is False


@pytest.mark.parametrize("parts", [1, 2])
def test_a_file_sent_in_parts_is_not_taken_for_another(tmp_path, object_store, parts):
    here, there = tmp_path / "a.mrc", f"{object_store.url}/a.mrc"
    here.write_bytes(b"x" * 6 * 2**20)
    fs, inside = storage.filesystem(there)
    with fs.open(inside, "wb", block_size=(5 if parts == 2 else 50) * 2**20) as stream:
        stream.write(here.read_bytes())
    assert has_content(there, fingerprint(here))
    assert has_content(here, fingerprint(there)) is (True if parts == 1 else None)
