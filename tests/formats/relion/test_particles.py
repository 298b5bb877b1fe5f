import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import star_text, survey

from .regrouping import LABELS, OPTICS, random_rows, table_text, write_star

REAL_FILES = {
    "aspire_relion31.star": (17, 26, (0,), 1.4),
    "cryocat_R5_tutorial_run_data.star": (9053, 26, (0,), 1.35),
    "cryocat_class3d_run_it025_data.star": (7488, 22, (0, 1), 4.828),
    "cryocat_relion4_refine3d.star": (1746, 21, (0,), 3.942),
    "cryodrgn_relion30_PfCRT.star": (5, 22, (0,), 1.035),
    "cryodrgn_relion31_6opticsgroups.star": (139, 23, (0,), None),
    "cryodrgn_relion31_v2.star": (5, 26, (0,), 2.806),
    "cryodrgn_relion5.star": (17, 26, (0,), 0.89),
    "cyl/run_it025_data.star": (10, 26, (0, 1, 2), 2.7),
}


def star(tmp_path, text, name="a.star") -> str:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp_path / name)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files(shared_data, name):
    import starfile

    path = shared_data / "meta" / name
    source = open_particles(path)
    n_rows, n_columns, class_ids, pixel = REAL_FILES[name]
    assert (source.n_rows, len(source.schema), source.class_ids) == (n_rows, n_columns, class_ids)
    assert source.voxel_size_angstrom == pytest.approx(pixel)
    table = source.to_table()
    assert table.schema == source.schema
    blocks = starfile.read(path, always_dict=True)
    expected = next(blocks[key] for key in ("particles", "images") if key in blocks)
    for column in source.schema:
        found = table.column(column.name).to_pylist()
        if pa.types.is_string(column.type):
            assert found == expected[column.name].astype(str).tolist()
        else:
            np.testing.assert_allclose(found, expected[column.name].to_numpy(dtype=float), rtol=1e-15)
    assert source.class_posteriors(table).sum() == n_rows


@pytest.mark.shared_data
def test_real_file_without_classes(shared_data):
    with pytest.raises(InputError, match="no column _rlnClassNumber, so it says no class"):
        open_particles(shared_data / "meta" / "RyR1GCs_clustRem.star")


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["aspire_class3d_model.star", "cyl/job.star", "run_it025_optimiser_3D.star"])
def test_real_files_of_another_purpose(shared_data, name):
    with pytest.raises(InputError, match=r"has no table of particles: .* found data_"):
        open_particles(shared_data / "meta" / name)


integers = st.integers(-(10**6), 10**6).map(str)
floats = st.floats(-1e6, 1e6).map(lambda value: f"{value:.6f}")
names = st.sampled_from(
    ["a.mrc", "0012", "0x1f", "2020-01-01", "true", "10:20", '"two words"', '""', "NA", "null", "[1,2]"]
)
identifiers = st.integers(10**17, 10**20).map(str)


@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from([integers, floats, names, identifiers]), min_size=1, max_size=4),
    data=st.data(),
    chunk=st.sampled_from([1, 50, 10**6]),
)
def test_types_hold_every_row_and_fragments_change_nothing(tmp_path_factory, kinds, data, chunk):
    n = data.draw(st.integers(1, 12))
    mixed = [st.one_of(kind, data.draw(st.sampled_from([integers, floats, names]))) for kind in kinds]
    rows = [[data.draw(kind) for kind in mixed] + [str(row % 3 + 1)] for row in range(n)]
    labels = [f"rlnColumn{index}" for index in range(len(kinds))] + ["rlnClassNumber"]
    path = star(tmp_path_factory.mktemp("types"), table_text(labels, rows, block="images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star_text, "CHUNK_BYTES", chunk)
        whole = open_particles(path)
        parts = open_particles(path, fragment_rows=data.draw(st.integers(1, n)))
        table = whole.to_table()
        assert pickle.loads(pickle.dumps(parts)).to_table().combine_chunks() == table.combine_chunks()
        assert parts.schema == whole.schema
    for index, label in enumerate(labels):
        text = [row[index] for row in rows]
        found = table.column(label).to_pylist()
        if pa.types.is_string(table.schema.field(label).type):
            assert found == [item.strip('"') for item in text]
        else:
            assert found == [float(item) for item in text]


def test_numbers_that_real_files_hold(tmp_path):
    rows = [["inf", "-nan", "1e-5", 1], ["1.5", "2", "-0", 1]]
    table = open_particles(
        star(tmp_path, table_text(["rlnA", "rlnB", "rlnC", "rlnClassNumber"], rows))
    ).to_table()
    assert [str(item.type) for item in table.schema] == ["double", "double", "double", "int64"]
    assert table.column("rlnA").to_pylist() == [np.inf, 1.5]
    assert np.isnan(table.column("rlnB")[0].as_py())


def test_text_that_is_not_unicode_is_kept_as_bytes(tmp_path):
    text = table_text(["rlnMicrographName", "rlnClassNumber"], [["caf\xe9.mrc", 1]]).encode("latin-1")
    table = open_particles(star(tmp_path, text)).to_table()
    assert table.column("rlnMicrographName").to_pylist() == [b"caf\xe9.mrc"]


@pytest.mark.parametrize("block", ["particles", "images", ""])
def test_names_of_the_particle_block(tmp_path, block):
    text = table_text(["rlnClassNumber"], [[2], [1], [2]], block=block)
    source = open_particles(star(tmp_path, text))
    assert source.class_ids == (0, 1)
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), [[0, 1], [1, 0], [0, 1]])
    assert source.hard
    assert source.posterior_columns == ("rlnClassNumber",)


def test_particles_before_optics_without_final_newline(tmp_path):
    table = table_text(LABELS, random_rows(5, 2))
    source = open_particles(star(tmp_path, (table + OPTICS).rstrip()))
    assert (source.n_rows, source.voxel_size_angstrom) == (5, 1.25)
    assert open_particles(star(tmp_path, (OPTICS + table).rstrip())).n_rows == 5


def test_class_below_one_is_no_class(tmp_path):
    source = open_particles(star(tmp_path, table_text(["rlnClassNumber"], [[2], [0], [-1]])))
    assert source.class_ids == (1,)
    np.testing.assert_array_equal(source.class_posteriors(source.to_table()), [[1], [0], [0]])
    assert any("class number below 1" in line for line in source.lines)


@pytest.mark.parametrize(
    ("labels", "rows", "message"),
    [
        (["rlnX"], [[1]], "no column _rlnClassNumber"),
        (["rlnClassNumber"], [], "has no particles"),
        (
            ["rlnClassNumber"],
            [["one"]],
            "near line 7: _rlnClassNumber holds text, not numbers, for example 'one'",
        ),
        (["rlnClassNumber"], [[1.5]], "_rlnClassNumber holds 1.5, which is no class number"),
        (
            ["rlnClassNumber"],
            [[0], [-1]],
            "no particle has a class: all values of _rlnClassNumber are below 1",
        ),
        (
            ["rlnClassNumber", "rlnPixelSize"],
            [[1, "a"]],
            "the column _rlnPixelSize holds values that are no numbers",
        ),
        (["rlnX", "rlnClassNumber"], [[1, 2], [3]], "line 9: 1 values where the table has 2 columns"),
        (
            ["rlnClassNumber", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"],
            [[1, "a", 1, 1]],
            "_rlnAngleRot holds values",
        ),
    ],
)
def test_wrong_input(tmp_path, labels, rows, message):
    path = star(tmp_path, table_text(labels, rows))
    with pytest.raises(InputError, match=message):
        open_particles(path)


def test_column_that_is_not_there(tmp_path):
    source = open_particles(write_star(tmp_path / "a.star"))
    with pytest.raises(InputError, match="has no column _rlnNo; it has: rlnCoordinateX"):
        source.to_table(["rlnNo"])
    assert source.to_table(["rlnAnglePsi", "rlnImageName"]).column_names == ["rlnAnglePsi", "rlnImageName"]


def test_several_files_are_one_table(tmp_path):
    paths = [
        write_star(tmp_path / f"{name}.star", n=10, n_classes=n, seed=n) for name, n in (("a", 3), ("b", 5))
    ]
    source = open_particles(paths, fragment_rows=4)
    assert [fragment.n_rows for fragment in source.fragments] == [4, 4, 2, 4, 4, 2]
    assert source.fragments[3].first_row == 10
    assert source.class_ids == (0, 1, 2, 3, 4)
    assert source.to_table().num_rows == 20
    other = star(tmp_path, table_text(LABELS, random_rows(2, 2)), "c.star")
    with pytest.raises(InputError, match="have different optics groups or other blocks"):
        open_particles([paths[0], other])


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write_star(tmp_path / "a.star", n=30)
    source = open_particles(path)
    text = (tmp_path / "a.star").read_text().splitlines(keepends=True)
    (tmp_path / "a.star").write_text("".join(text[:25]))
    with pytest.raises(InputError, match=r"changed since it was opened|became shorter"):
        source.to_table()


def test_fragments_are_cut_near_their_aimed_size(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "FRAGMENT_BYTES", 4000)
    monkeypatch.setattr(star_text, "CHUNK_BYTES", 500)
    source = open_particles(write_star(tmp_path / "a.star", n=200))
    sizes = [fragment.stop - fragment.start for fragment in source.fragments]
    assert len(sizes) > 3
    assert max(sizes) <= 4200
    assert min(sizes[:-1]) > 3000


def test_pixel_size_of_several_optics_groups_is_not_one(tmp_path):
    optics = OPTICS.rstrip() + "\n 2 opticsGroup2 1.5\n\n"
    source = open_particles(star(tmp_path, optics + table_text(LABELS, random_rows(6, 2))), fragment_rows=2)
    assert source.voxel_size_angstrom is None
