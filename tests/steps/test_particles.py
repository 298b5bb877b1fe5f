"""The particle stage on generated tables of every format: every row once, in order, untouched columns to the bit."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xarray as xr
from cryosparc.dataset import CSDAT_FORMAT, Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.regroup_plan import SuperclassMaps
from regroup_dask.formats.rotations import quaternions_of_matrices
from regroup_dask.progress import StageClock
from regroup_dask.settings import Settings
from regroup_dask.steps import particles
from regroup_dask.steps.run_context import RunContext
from tests.formats.cryosparc.making import LOCATION, make_particles, random_records, save
from tests.formats.relion.regrouping import LABELS, OPTICS, random_pose, random_rows, table_text

N_CLASSES = 4
CHANGED = ("rlnClassNumber", "rlnAngle", "rlnOrigin")


def stage(source, labels, folder, *, times=1, rule="argmax", align=True):
    """Run the particle stage in this process, as a run does; several times, as a run that is taken up again does."""
    groups = grouping(labels)
    (folder / "volumes").mkdir(parents=True, exist_ok=True)
    n_superclasses = max(labels) + 1
    paths = tuple(str(folder / "volumes" / f"superclass_{k:03d}.mrc") for k in range(n_superclasses))
    for path in paths:
        Path(path).write_bytes(b"map")
    chosen = Settings(n_superclasses=n_superclasses, align=align, posteriors=rule)
    for _ in range(times):
        run = RunContext(folder, None, StageClock())
        counts = particles.survey(source, run)
        where = particles.count(source, counts, dict(enumerate(labels)), n_superclasses, chosen, run)
        written = particles.write(source, groups, where, chosen, SuperclassMaps(paths, 4, 1.25), run)
    return where, written


def grouping(labels):
    """Every class but the first of each superclass is turned and shifted."""
    poses = [random_pose(k) for k in range(len(labels))]
    quaternion, shift = np.zeros((len(labels), 4)), np.zeros((len(labels), 3))
    for k, pose in enumerate(poses):
        first = labels.index(labels[k]) == k
        quaternion[k] = [0, 0, 0, 1] if first else quaternions_of_matrices(pose.rotation[None])[0]
        shift[k] = 0 if first else pose.shift_angstrom
    return xr.Dataset(
        {
            "superclass": ("class_id", labels),
            "mirrored": ("class_id", np.zeros(len(labels), bool)),
            "rotation_quaternion": (("class_id", "quaternion"), quaternion),
            "shift_angstrom": (("class_id", "axis"), shift),
        },
        coords={"class_id": np.arange(len(labels))},
    )


@st.composite
def groupings(draw):
    labels = draw(st.lists(st.integers(-1, 2), min_size=N_CLASSES, max_size=N_CLASSES))
    labels[draw(st.integers(0, N_CLASSES - 1))] = 0
    used = sorted({label for label in labels if label >= 0})
    return [used.index(label) if label >= 0 else -1 for label in labels]


def arrow_rows(folder):
    """Everything the Arrow side has, in input order."""
    grouped = ds.dataset(folder / "particles", partitioning="hive").to_table().drop_columns(["superclass"])
    remaining = ds.dataset(folder / "remaining").to_table()
    for path in folder.rglob("*.parquet"):
        assert (np.diff(pq.ParquetFile(path).read(["input_row"]).column(0).to_numpy()) > 0).all()
    return pa.concat_tables([grouped, remaining]).sort_by("input_row")


@settings(max_examples=25, deadline=None)
@given(
    generation=st.sampled_from(["multi", "class3D", "class", "hard"]),
    columnar=st.booleans(),
    beside=st.booleans(),
    rule=st.sampled_from(["argmax", "sum"]),
    n=st.integers(8, 50),
    n_files=st.integers(1, 2),
    labels=groupings(),
    data=st.data(),
)
def test_cryosparc(tmp_path_factory, generation, columnar, beside, rule, n, n_files, labels, data):
    folder = tmp_path_factory.mktemp("cs")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    records, _ = make_particles(n, N_CLASSES, generation, rng)
    if generation == "hard":
        records["alignments3D/class"][:N_CLASSES] = np.arange(N_CLASSES)
    paths = []
    for number, part in enumerate(np.array_split(records, n_files)):
        paths.append(save(folder / f"p{number}.cs", part))
        if columnar:
            Dataset.load(paths[-1]).save(paths[-1], format=CSDAT_FORMAT)
    passthrough = []
    if beside:
        more = random_records(n, LOCATION, rng)
        more["uid"] = records["uid"][rng.permutation(n)]
        passthrough = [save(folder / "pass.cs", more)]
    source = open_particles(
        paths, passthrough=passthrough, fragment_rows=data.draw(st.integers(1, n)), scratch=folder / "scratch"
    )
    where, written = stage(source, labels, folder / "OUT", rule=rule, times=data.draw(st.integers(1, 2)))
    table = source.to_table()
    back = arrow_rows(folder / "OUT")
    assert back.column("input_row").to_pylist() == list(range(n))
    assert back.select(table.column_names).combine_chunks().equals(table.combine_chunks())
    files = {name: np.load(folder / "OUT" / "cryosparc" / f"{name}.cs", max_header_size=10**7) for name in names(labels)}
    assert [len(files[name]) for name in names(labels)[1:]] == where.per_fragment.sum(axis=0).tolist()
    position = {uid: row for row, uid in enumerate(table.column("uid").to_pylist())}
    everything = [*files["regrouped_particles"]["uid"], *files["remaining_particles"]["uid"]]
    assert sorted(position[uid] for uid in everything) == list(range(n))
    slots = {"alignments3D", *source.posterior_slots.slots}
    for name, rows in files.items():
        places = [position[uid] for uid in rows["uid"]]
        assert places == sorted(places)
        for column in rows.dtype.names:
            if name == "remaining_particles" or column.split("/")[0] not in {*slots, *made_slots(source, labels)}:
                assert rows[column].tobytes() == values_of(table, column, rows.dtype[column])[places].tobytes(), column
    assert written.rules_differ >= 0


def names(labels):
    superclasses = [f"particles_superclass_{k}" for k in range(max(labels) + 1)]
    return ["regrouped_particles", *superclasses, "remaining_particles"]


def made_slots(source, labels):
    return {f"{source.posterior_slots.prefix}{k}" for k in range(max(labels) + 1)}


def values_of(table, column, kind):
    if kind.kind == "S":
        texts = table.column(column).to_pylist()
        return np.array([text if isinstance(text, bytes) else text.encode() for text in texts], kind)
    return np.array(table.column(column).to_pylist(), kind.base)


FILES_OF_RELION = {
    "3.0": ("images", "", ("rlnOriginX", "rlnOriginY"), ("rlnMagnification", "rlnDetectorPixelSize")),
    "3.1": ("particles", "before", ("rlnOriginXAngst", "rlnOriginYAngst"), ("rlnOpticsGroup",)),
    "4": ("particles", "after", ("rlnOriginXAngst", "rlnOriginYAngst"), ("rlnOpticsGroup", "rlnCtfFigureOfMerit")),
    "5 without origins": ("particles", "before", (), ("rlnOpticsGroup", "rlnTomoVisibleFrames")),
    "subtomograms": (
        "particles",
        "before",
        ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"),
        ("rlnOpticsGroup", "rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"),
    ),
}


@settings(max_examples=40, deadline=None)
@given(
    version=st.sampled_from(sorted(FILES_OF_RELION)),
    padded=st.booleans(),
    n=st.integers(4, 30),
    labels=groupings(),
    data=st.data(),
)
def test_relion(tmp_path_factory, version, padded, n, labels, data):
    folder = tmp_path_factory.mktemp("star")
    block, optics, origins, more = FILES_OF_RELION[version]
    columns = [*LABELS[:6], *origins, *more]
    numbers = {"rlnMagnification": 50000.0, "rlnDetectorPixelSize": 7.0, "rlnOpticsGroup": 1, "rlnTomoVisibleFrames": "[1,0,1]"}
    rows = []
    for row in random_rows(n, N_CLASSES, seed=data.draw(st.integers(0, 99))):
        extra = [numbers.get(name, data.draw(st.sampled_from(["1e-3", "007", "nan", "2.50"]))) for name in more]
        rows.append([*row[:6], *([row[6], row[7], -3.25][: len(origins)]), *extra])
    if not padded:
        rows = [[f"{item:.3f}" if isinstance(item, float) else item for item in row] for row in rows]
    text = table_text(columns, rows, block=block)
    text = OPTICS + text if optics == "before" else text + OPTICS if optics else text
    path = folder / "a.star"
    path.write_text(text)
    source = open_particles(path, fragment_rows=data.draw(st.integers(1, n)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where, _ = stage(source, labels, folder / "OUT", times=data.draw(st.integers(1, 2)))
    table = source.to_table()
    back = arrow_rows(folder / "OUT")
    assert back.column("input_row").to_pylist() == list(range(n))
    assert same_to_the_bit(back.select(table.column_names).combine_chunks(), table.combine_chunks())
    lines = text_rows(path)
    taken = {name: text_rows(folder / "OUT" / "relion" / f"{name}.star") for name in names(labels)}
    assert [len(taken[name]) for name in names(labels)[1:]] == where.per_fragment.sum(axis=0).tolist()
    kept = [index for index, name in enumerate(columns) if not name.startswith(CHANGED)]
    known = {line.split()[1]: row for row, line in enumerate(lines)}
    for name, found in taken.items():
        places = [known[line.split()[1]] for line in found]
        assert places == sorted(places)
        for line, place in zip(found, places, strict=True):
            words, before = line.split(), lines[place].split()
            assert [words[index] for index in kept] == [before[index] for index in kept]
            class_id = int(before[2]) - 1
            if name == "remaining_particles":
                assert line == lines[place]
            elif labels.index(labels[class_id]) == class_id:  # its class stays where it is
                assert words[3:6] == before[3:6]
    both = [*taken["regrouped_particles"], *taken["remaining_particles"]]
    assert sorted(known[line.split()[1]] for line in both) == list(range(n))
    assert not (folder / "OUT" / "relion" / ".parts").exists()


def text_rows(path):
    return [line for line in Path(path).read_text().splitlines() if "@" in line]


def same_to_the_bit(found, expected):
    """Tables are equal, NaN to NaN."""
    return all(
        np.array_equal(found.column(item.name), expected.column(item.name), equal_nan=pa.types.is_floating(item.type))
        for item in expected.schema
    )


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(4, 50),
    soft=st.booleans(),
    text_uids=st.booleans(),
    group_rows=st.integers(1, 60),
    labels=groupings(),
    data=st.data(),
)
def test_parquet(tmp_path_factory, n, soft, text_uids, group_rows, labels, data):
    folder = tmp_path_factory.mktemp("parquet")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    uids = rng.permutation(10 * n)[:n]
    posterior = rng.dirichlet(np.ones(N_CLASSES), n).astype(np.float32)
    columns = {
        "uid": pa.array([f"particle {uid}" for uid in uids] if text_uids else uids),
        "rotation_quaternion": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=4 * n)), 4),
        "note": pa.array([None if row % 3 else {"a": [row]} for row in range(n)]),
    }
    if soft:
        columns["class_posterior"] = pa.FixedSizeListArray.from_arrays(pa.array(posterior.ravel()), N_CLASSES)
    else:
        columns["class_id"] = pa.array(np.append(np.arange(N_CLASSES), rng.integers(-1, N_CLASSES, n - N_CLASSES)))
    table = pa.table(columns)
    pq.write_table(table, folder / "a.parquet", row_group_size=group_rows)
    source = open_particles(folder / "a.parquet", fragment_rows=data.draw(st.integers(1, n)), scratch=folder / "scratch")
    where, _ = stage(source, labels, folder / "OUT", rule=data.draw(st.sampled_from(["argmax", "sum"])))
    back = arrow_rows(folder / "OUT")
    assert back.column("input_row").to_pylist() == list(range(n))
    assert back.select(table.column_names).combine_chunks().equals(table.combine_chunks())
    assert ds.dataset(folder / "OUT" / "remaining").count_rows() == where.remaining


def test_repeated_and_missing_uids_of_parquet_are_refused(tmp_path):
    for uids, message in (
        (["a", "b", "a"], "the first being a in .*row 0.*row 2"),
        ([1, 2, 2], "the first being 2"),
        ([1, None, 2], "row 1 has no uid"),
    ):
        pq.write_table(pa.table({"uid": uids, "class_id": [0, 1, 1]}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=message):
            open_particles(tmp_path / "a.parquet", fragment_rows=2, scratch=tmp_path / "scratch")


def test_a_large_row_group_is_read_in_parts(tmp_path, monkeypatch):
    from regroup_dask.formats import parquet_files

    monkeypatch.setattr(parquet_files, "FRAGMENT_BYTES", 2000)
    monkeypatch.setattr(parquet_files, "LARGE_ROW_GROUP_BYTES", 6000)
    monkeypatch.setattr(parquet_files, "STREAMED_ROWS", 64)
    rng = np.random.default_rng(0)
    table = pa.table({"uid": rng.permutation(5000), "class_id": rng.integers(0, 3, 5000)})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    source = open_particles(tmp_path / "a.parquet")
    assert len(source.fragments) > 10
    assert source.to_table().combine_chunks().equals(table)
