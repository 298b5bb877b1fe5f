"""Reading .cs files: every generation, both encodings, joins, and what is refused."""

import json
import pickle
import struct
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import yaml
from cryosparc.dataset import CSDAT_FORMAT, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.formats import uid_index
from regroup_dask.formats.cryosparc import dataset_file, rearranged, stacked_files
from regroup_dask.formats.cryosparc.arrow_columns import arrow_schema, fill_records, record_dtype, to_arrow
from regroup_dask.formats.particles import open_particles
from tests.formats.cryosparc.making import LOCATION, make_particles, random_records, save, slot_fields

GENERATIONS = ["multi", "class3D", "class"]


def records_of(source, table):
    records = np.zeros(table.num_rows, source.dtype)
    fill_records(records, table)
    return records


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_is_read_bit_for_bit(tmp_path, generation):
    records, posteriors = make_particles(57, 3, generation, np.random.default_rng(1))
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=10, scratch=tmp_path / "scratch")
    assert source.kind == "cryosparc"
    assert source.count_rows() == 57
    assert [fragment.n_rows for fragment in source.get_fragments()] == [10] * 5 + [7]
    assert source.class_ids == (0, 1, 2)
    assert source.schema.names == list(records.dtype.names)
    assert source.schema.field("uid").type == pa.uint64()
    assert source.schema.field("blob/path").type == pa.string()
    assert source.schema.field("ctf/tetra_A").type == pa.list_(pa.float32(), 4)
    assert source.voxel_size_angstrom == 1.5
    table = source.to_table()
    assert records_of(source, table).tobytes() == records.tobytes()
    assert record_dtype(table.schema) == records.dtype
    narrow = source.to_table(list(source.posterior_columns))
    np.testing.assert_array_equal(source.class_posteriors(narrow), posteriors)


@pytest.mark.filterwarnings("ignore:Stored array in format 2.0")
def test_a_hundred_classes_need_the_second_version_of_the_header(tmp_path):
    records, posteriors = make_particles(2, 100, "class", np.random.default_rng(3))
    source = open_particles(save(tmp_path / "p.cs", records))
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), posteriors)
    assert (tmp_path / "p.cs").read_bytes()[6] == 2
    from regroup_dask.formats.cryosparc.record_file import write_records

    write_records(str(tmp_path / "again.cs"), records)
    assert (tmp_path / "again.cs").read_bytes() == (tmp_path / "p.cs").read_bytes()


def test_fragments_and_sources_travel(tmp_path):
    records, _ = make_particles(30, 2, "multi", np.random.default_rng(2))
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=12)
    fragment = pickle.loads(pickle.dumps(source.fragments[1]))
    np.testing.assert_array_equal(fragment.read(["uid"])["uid"].to_numpy(), records["uid"][12:24])
    assert pickle.loads(pickle.dumps(source)).head(3).num_rows == 3


def test_more_classes_than_numpy_wants_in_a_header(tmp_path):
    records, posteriors = make_particles(4, 20, "class", np.random.default_rng(3))
    path = save(tmp_path / "p.cs", records)
    with pytest.raises(ValueError, match="max_header_size"):
        np.load(path)
    source = open_particles(path)
    assert source.class_ids == tuple(range(20))
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), posteriors)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("n", [0, 33])
def test_columnar_encoding_equals_cryosparc_tools(tmp_path, generation, n):
    records, _ = make_particles(n, 3, generation, np.random.default_rng(4))
    Dataset(records).save(tmp_path / "p.cs", format=CSDAT_FORMAT)
    source = open_particles(tmp_path / "p.cs", fragment_rows=7, scratch=tmp_path / "scratch")
    expected = Dataset.load(str(tmp_path / "p.cs"))
    assert source.schema.names == expected.fields()
    records = records_of(source, source.to_table())
    for name in expected.fields():
        found = records[name]
        if found.dtype.kind == "S":
            assert [text.decode() for text in found] == list(expected[name])
        else:
            np.testing.assert_array_equal(found, np.asarray(expected[name]))


def test_the_columnar_encoding_of_2022(tmp_path):
    records, _ = make_particles(21, 2, "multi", np.random.default_rng(5))
    names = records.dtype.names
    descr = [
        (name, records.dtype[name].base.str, *([records.dtype[name].shape] * bool(records.dtype[name].shape)))
        for name in names
    ]
    header = json.dumps({"dtype": descr, "compression": "snap", "compressed_fields": list(names[1:])}).encode()
    content = b"\x94CSDAT" + struct.pack("<I", len(header)) + header
    for name in names:
        data = np.ascontiguousarray(records[name]).tobytes()
        if name != "uid":
            data = pa.compress(data, codec="snappy", asbytes=True)
        content += struct.pack("<I", len(data)) + data
    (tmp_path / "p.cs").write_bytes(content)
    source = open_particles(tmp_path / "p.cs", scratch=tmp_path / "scratch")
    assert records_of(source, source.to_table()).tobytes() == records.tobytes()


def test_text_that_is_not_utf8_stays_as_bytes(tmp_path):
    records, _ = make_particles(5, 2, "multi", np.random.default_rng(6))
    records["blob/path"][3] = b"\xff\xfe.mrc"
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=2)
    assert source.schema.field("blob/path").type == pa.binary()
    assert records_of(source, source.to_table()).tobytes() == records.tobytes()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_arrow_keeps_every_bit(data):
    bases = st.sampled_from(["<u8", "<u4", "<i2", ">f4", "<f8", "S1", "S7"])
    n = data.draw(st.integers(0, 5))
    fields = []
    for index, base in enumerate(data.draw(st.lists(bases, min_size=1, max_size=5))):
        shape = () if base.startswith("S") else data.draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
        fields.append((f"slot/{index}", base, shape))
    dtype = np.dtype(fields)
    records = np.frombuffer(data.draw(st.binary(min_size=n * dtype.itemsize, max_size=n * dtype.itemsize)), dtype)
    binary = [name for name in dtype.names if dtype[name].kind == "S"]
    table = to_arrow({name: records[name] for name in dtype.names}, arrow_schema(dtype, binary=binary))
    back = np.zeros(n, record_dtype(table.schema))
    fill_records(back, table)
    assert back.tobytes() == records.tobytes()
    sliced = np.zeros(max(n - 1, 0), dtype)
    fill_records(sliced, table.slice(1))
    assert sliced.tobytes() == records[1:].tobytes()


# passthrough


@pytest.mark.parametrize("encoding", ["numpy", "columnar"])
@pytest.mark.parametrize("order", ["same", "shuffled", "more"])
def test_passthrough_is_joined_on_uid(tmp_path, order, encoding, monkeypatch):
    monkeypatch.setattr(stacked_files, "FRAGMENT_BYTES", 600)
    monkeypatch.setattr(rearranged, "BLOCK_ROWS", 4)
    monkeypatch.setattr(rearranged, "BUCKET_ROWS", 16)
    monkeypatch.setattr(uid_index, "BUCKET_ROWS", 16)
    rng = np.random.default_rng(7)
    records, _ = make_particles(50, 2, "multi", rng)
    beside = random_records(80 if order == "more" else 50, LOCATION, rng)
    beside["uid"][:50] = records["uid"]
    by_uid = {row["uid"]: row for row in beside}
    if order != "same":
        beside = rng.permutation(beside)
    path = save(tmp_path / "passthrough.cs", beside)
    if encoding == "columnar":
        Dataset(beside).save(path, format=CSDAT_FORMAT)
    source = open_particles(
        save(tmp_path / "p.cs", records), passthrough=path, fragment_rows=9, scratch=tmp_path / "scratch"
    )
    assert (source.fragments[0].table.passthrough[0].rearranged is None) == (order == "same")
    assert source.schema.names == [*records.dtype.names, "location/micrograph_path", "location/center_x_frac"]
    table = source.to_table()
    assert table["uid"].to_pylist() == records["uid"].tolist()
    for uid, text, x in zip(*(table[name].to_pylist() for name in ("uid", *source.schema.names[-2:])), strict=True):
        assert (text.encode(), np.float32(x)) == (by_uid[uid]["location/micrograph_path"], by_uid[uid][2])
    alone = source.fragments[3].read(["location/center_x_frac"])
    assert alone.column(0).to_pylist() == table["location/center_x_frac"].to_pylist()[27:36]


def test_a_particle_missing_in_the_passthrough_is_refused(tmp_path):
    rng = np.random.default_rng(8)
    records, _ = make_particles(20, 2, "multi", rng)
    beside = random_records(20, LOCATION, rng)
    beside["uid"] = records["uid"]
    path = save(tmp_path / "passthrough.cs", beside[[*range(6), *range(9, 20)]])
    with pytest.raises(InputError, match="3 of 20 particles are not in the passthrough") as caught:
        open_particles(save(tmp_path / "p.cs", records), passthrough=path)
    assert any(str(uid) in str(caught.value) for uid in records["uid"][6:9])


# several files


def test_one_file_per_class_gives_hard_classes(tmp_path):
    records, _ = make_particles(40, 3, "hard", np.random.default_rng(9))
    records["alignments3D/class"] = np.sort(records["alignments3D/class"])
    for k in range(4):
        save(tmp_path / f"class_{k:02d}_00042_particles.cs", records[records["alignments3D/class"] == k])
    source = open_particles(tmp_path / "class_*_particles.cs", fragment_rows=11)
    assert source.hard
    assert source.class_ids == (0, 1, 2, 3)
    table = source.to_table()
    np.testing.assert_array_equal(source.class_posteriors(table).argmax(axis=1), records["alignments3D/class"])
    assert records_of(source, table).tobytes() == records.tobytes()


def test_files_with_text_of_other_widths_are_stacked(tmp_path):
    records, _ = make_particles(10, 2, "class", np.random.default_rng(10))
    wider = records[5:].astype([(n, "S99") if n == "blob/path" else (n, records.dtype[n]) for n in records.dtype.names])
    source = open_particles([save(tmp_path / "a.cs", records[:5]), save(tmp_path / "b.cs", wider)])
    assert source.dtype["blob/path"] == np.dtype("S99")
    assert source.to_table()["uid"].to_pylist() == records["uid"].tolist()


def test_files_of_other_columns_are_refused(tmp_path):
    records, _ = make_particles(10, 2, "class", np.random.default_rng(10))
    other, _ = make_particles(10, 3, "class", np.random.default_rng(11))
    with pytest.raises(InputError, match="only one of them has alignments_class_2/"):
        open_particles([save(tmp_path / "a.cs", records), save(tmp_path / "b.cs", other)])


def test_duplicate_uids_are_refused_by_name(tmp_path):
    records, _ = make_particles(10, 2, "class", np.random.default_rng(12))
    again = records[:4].copy()
    again["uid"][:3] = [5, 6, 7]
    with pytest.raises(InputError, match="repeated") as caught:
        open_particles([save(tmp_path / "a.cs", records), save(tmp_path / "b.cs", again)])
    for part in (str(records["uid"][3]), "a.cs (row 3)", "b.cs (row 3)"):
        assert part in str(caught.value)


class Uids(NamedTuple):
    """Rows whose uids are known."""

    uids: np.ndarray
    first_row: int

    @property
    def n_rows(self):
        return len(self.uids)

    def read_hashes(self):
        return uid_index.hashes_of_integers(self.uids), ()


def parts_of(pieces):
    starts = np.cumsum([0, *map(len, pieces)])
    return [Uids(piece, int(start)) for piece, start in zip(pieces, starts[:-1], strict=True)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=300), st.integers(1, 64), st.data())
def test_index_finds_every_uid(tmp_path_factory, uids, bucket_rows, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uid_index, "BUCKET_ROWS", bucket_rows)
        values = np.array(uids, dtype=np.uint64)
        pieces = np.array_split(values, data.draw(st.integers(1, 5)))
        scratch = str(tmp_path_factory.mktemp("scratch"))
        index = uid_index.build_uid_index(parts_of(pieces), scratch=scratch)
        uid_index.refuse_duplicates(index, [("a", len(values))])
        asked = np.array([*uids, *data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=5))], dtype=np.uint64)
        expected = [uids.index(uid) if uid in uids else -1 for uid in asked.tolist()]
        order = np.argsort(uid_index.hashes_of_integers(asked))
        found = index.find_sorted(uid_index.hashes_of_integers(asked)[order])
        assert found.tolist() == np.array(expected)[order].tolist()
        hashes = index.hashes(0, max(len(uids), 1)) if uids else []
        assert sorted(map(uid_index.uid_of_hash, hashes)) == sorted(uids)
        if uids:
            twice = np.append(values, values[data.draw(st.integers(0, len(uids) - 1))])
            index = uid_index.build_uid_index(parts_of([twice[:1], twice[1:]]), scratch=scratch)
            with pytest.raises(InputError, match=f"the first being {twice[-1]} in a"):
                uid_index.refuse_duplicates(index, [("a", len(twice))])


# prefixes


def test_the_prefix_can_be_chosen(tmp_path):
    rng = np.random.default_rng(13)
    extra = [f for k in range(4) for f in slot_fields(f"alignments_class_{k}")]
    records, posteriors = make_particles(12, 3, "class3D", rng, extra=extra)
    path = save(tmp_path / "p.cs", records)
    source = open_particles(path)
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), posteriors)
    assert any("alignments_class_" in line for line in source.lines)
    assert open_particles(path, class_prefix="alignments_class_").class_ids == (0, 1, 2, 3)
    with pytest.raises(InputError, match="prefixes present: alignments_class3D_, alignments_class_"):
        open_particles(path, class_prefix="alignments3D_multi")
    with pytest.raises(InputError, match="prefixes present"):
        open_particles(path, class_prefix="nonsense")


def test_particles_of_a_refinement_are_refused(tmp_path):
    records, _ = make_particles(12, 1, "hard", np.random.default_rng(14))
    with pytest.raises(InputError, match=r"has no class posteriors.*alignments3D, alignments2D"):
        open_particles(save(tmp_path / "p.cs", records))


def test_classes_that_differ_between_rows_are_refused(tmp_path):
    records, _ = make_particles(12, 3, "multi", np.random.default_rng(15))
    records["alignments3D_multi/class"][7] = [2, 1, 0]
    source = open_particles(save(tmp_path / "p.cs", records))
    with pytest.raises(InputError, match="row 7"):
        source.class_posteriors(source.to_table())


# bad files


def test_no_rows(tmp_path):
    records, _ = make_particles(0, 3, "multi", np.random.default_rng(16))
    source = open_particles(save(tmp_path / "p.cs", records))
    assert source.fragments == ()
    assert source.class_ids == (0, 1, 2)
    assert source.to_table().num_rows == source.head().num_rows == 0


@pytest.mark.parametrize("encoding", ["numpy", "columnar"])
@pytest.mark.parametrize("keep", [3, 8, 60, 0.5, 0.98])
def test_truncated_files_are_refused(tmp_path, keep, encoding):
    records, _ = make_particles(40, 2, "multi", np.random.default_rng(17))
    path = tmp_path / "p.cs"
    save(path, records)
    if encoding == "columnar":
        Dataset(records).save(path, format=CSDAT_FORMAT)
        keep = min(keep, 0.7)
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep >= 1 else int(keep * len(content))])
    with pytest.raises(InputError):
        open_particles(path, scratch=tmp_path / "scratch")


def test_pickled_objects_are_never_loaded(tmp_path):
    records = np.zeros(3, [("uid", "<u8"), ("x", object)])
    with open(tmp_path / "p.cs", "wb") as stream:
        np.save(stream, records, allow_pickle=True)
    with pytest.raises(InputError, match="pickled"):
        open_particles(tmp_path / "p.cs")


@pytest.mark.parametrize("encoding", ["numpy", "columnar"])
def test_flipped_bytes_give_an_answer_or_an_error(tmp_path, encoding):
    records, _ = make_particles(8, 2, "class", np.random.default_rng(18))
    path = tmp_path / "p.cs"
    save(path, records)
    if encoding == "columnar":
        Dataset(records).save(path, format=CSDAT_FORMAT)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(19)
    for trial in range(120):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content) if trial % 2 else 700, 1 + trial % 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            source = open_particles(path, scratch=tmp_path / "scratch")
            assert source.class_posteriors(source.to_table()).shape[0] == source.n_rows
        except InputError:
            pass


# groups


def write_group(path, files, kind="particle"):
    results = {slot: {"metafile": name, "num_items": 1, "type": f"particle.{slot}"} for slot, name in files.items()}
    group = {"description": "", "name": "particles", "title": "", "type": kind}
    path.write_text(yaml.safe_dump({"created": "", "group": group, "results": results, "version": "v4.5.3"}))
    return path


def test_a_group_gives_its_primary_and_passthrough_files(tmp_path):
    rng = np.random.default_rng(20)
    records, _ = make_particles(15, 2, "multi", rng)
    beside = random_records(15, LOCATION, rng)
    beside["uid"] = records["uid"][::-1]
    save(tmp_path / "p.cs", records)
    save(tmp_path / "pass.cs", beside)
    files = {"location": ">pass.cs", "blob": ">p.cs", "alignments3D_multi": ">p.cs"}
    source = open_particles(write_group(tmp_path / "g.csg", files))
    assert [path.rsplit("/", 1)[1] for path in source.files] == ["p.cs", "pass.cs"]
    assert "location/center_x_frac" in source.schema.names


@pytest.mark.parametrize(
    "name", [">../outside.cs", ">/etc/passwd", ">sub/../../outside.cs", ">link.cs", "p.cs", ">no.cs"]
)
def test_a_group_cannot_lead_outside_its_folder(tmp_path, name):
    records, _ = make_particles(5, 2, "multi", np.random.default_rng(21))
    save(tmp_path / "outside.cs", records)
    folder = tmp_path / "group"
    folder.mkdir()
    (folder / "link.cs").symlink_to(tmp_path / "outside.cs")
    with pytest.raises(InputError):
        open_particles(write_group(folder / "g.csg", {"blob": name}))


@pytest.mark.parametrize("text", ["", "a: [", "- 1\n- 2", "group: 3\nresults: {}", "!!python/object:os.system {}"])
def test_what_is_no_group_is_refused(tmp_path, text):
    (tmp_path / "g.csg").write_text(text)
    with pytest.raises(InputError):
        open_particles(tmp_path / "g.csg")


def test_a_group_of_volumes_is_refused(tmp_path):
    records, _ = make_particles(5, 2, "multi", np.random.default_rng(22))
    save(tmp_path / "p.cs", records)
    with pytest.raises(InputError, match="type volume"):
        open_particles(write_group(tmp_path / "g.csg", {"map": ">p.cs"}, kind="volume"))


# opening any kind


def test_opening_says_what_is_wrong(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no particle file known here"):
        open_particles(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        open_particles(tmp_path / "absent.cs")
    with pytest.raises(InputError, match="no particles file matches"):
        open_particles(tmp_path / "*.cs")


# real files


@pytest.mark.shared_data
def test_schema_of_a_real_three_class_job(shared_data):
    source = open_particles(shared_data / "meta" / "4k_dataset.cs")
    assert source.class_ids == (0, 1, 2)
    assert source.posterior_columns[0] == "alignments_class_0/class_posterior"
    assert source.n_rows == 0
    assert len(source.schema) == 106


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name", ["cryosparc_P12_J24_001_particles", "cryosparc_J2_particles_exported", "empiar_10076_7"]
)
def test_real_files_keep_every_bit(shared_data, name):
    path = shared_data / "meta" / f"{name}.cs"
    with pytest.raises(InputError, match="has no class posteriors"):
        open_particles(path)
    expected = np.load(path)
    file = dataset_file.open_dataset_file(str(path), scratch="")
    table = to_arrow(file.read(0, file.n_rows, file.dtype.names), arrow_schema(file.dtype))
    back = np.zeros(len(expected), expected.dtype)
    fill_records(back, table)
    assert back.tobytes() == expected.tobytes()
