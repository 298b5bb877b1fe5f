"""Every real metadata file beside the checkout is read and written back: untouched columns have the same text or bits.

Files of particles that a job with classes did not make are given classes: a star file a column more, a .cs file a table
of posteriors beside it, as CryoSPARC keeps them apart from passthrough columns. Files of other kinds are read.
"""

from pathlib import Path

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc import outputs as cryosparc
from regroup_dask.formats.describe import describe_file
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import outputs as relion
from regroup_dask.formats.relion.star_text import locate_blocks, read_small_block
from tests.conftest import SHARED_DATA
from tests.formats.cryosparc.making import random_records, save, slot_fields
from tests.formats.relion.regrouping import plan_for, random_pose, regroup

META = SHARED_DATA / "meta"
FILES = sorted(str(path.relative_to(META)) for path in META.rglob("*") if path.is_file())
STARS = [name for name in FILES if name.endswith(".star")]
OTHER_STARS = [name for name in STARS if any(kind in name for kind in ("model", "optimiser", "sampling", "job.star"))]
POSE_LABELS = ("rlnClassNumber", "rlnAngle", "rlnOrigin")

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FILES, reason="the shared data folder is not beside this checkout"),
    pytest.mark.filterwarnings("ignore"),
]


def test_every_file_has_its_place():
    kinds = {Path(name).suffix for name in FILES}
    assert kinds == {".cs", ".star"}
    assert len(FILES) >= 19


def particle_lines(path):
    """Labels of the particles' table, its rows as lists of text, and all other lines; by plain splitting."""
    labels, rows, others, block, inside = [], [], [], "", False
    for line in Path(path).read_text().splitlines():
        words = line.split()
        if words and words[0].startswith("data_"):
            block, inside = words[0], False
        table = block in ("data_particles", "data_images", "data_")
        if table and words and words[0].startswith("_rln"):
            labels.append(words[0][1:])
            inside = True
        elif table and inside and words and not words[0].startswith("#"):
            rows.append(words)
        else:
            others.append(line)
    return labels, rows, others


@pytest.mark.parametrize("name", [name for name in STARS if name not in OTHER_STARS])
def test_star_files_keep_the_text_of_every_untouched_column(tmp_path, name):
    path = META / name
    labels, rows, others = particle_lines(path)
    if "rlnClassNumber" not in labels:
        with pytest.raises(InputError, match="rlnClassNumber"):
            open_particles(path)
        path = with_classes(path, tmp_path, len(labels))
        labels, rows, others = particle_lines(path)
    source = open_particles(path, fragment_rows=1000)
    # Where there are several classes the last goes to remaining; all others move.
    n = len(source.class_ids)
    superclass = [0, *[1] * (n - 2), -1] if n > 2 else [0, -1][:n]
    poses = {class_id: random_pose(class_id + 5) for class_id in source.class_ids}
    paths, _ = regroup(source, plan_for(source, superclass, poses), tmp_path / "OUT", relion)
    by_name = {Path(file).stem: file for file in paths}
    found_labels, regrouped, found_others = particle_lines(by_name["regrouped_particles"])
    remaining = particle_lines(by_name["remaining_particles"])[1]
    assert found_labels[: len(labels)] == labels
    assert found_others == others
    of_row = np.array([int(row[labels.index("rlnClassNumber")]) for row in rows])
    kept = np.isin(of_row, [k + 1 for k, label in zip(source.class_ids, superclass, strict=True) if label >= 0])
    assert len(regrouped) + len(remaining) == len(rows)
    assert remaining == [row for row, inside in zip(rows, kept, strict=True) if not inside]
    before = [row for row, inside in zip(rows, kept, strict=True) if inside]
    untouched = [number for number, label in enumerate(labels) if not label.startswith(POSE_LABELS)]
    assert len(untouched) >= 4
    for column in untouched:
        assert [row[column] for row in regrouped] == [row[column] for row in before], labels[column]
    if {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"} <= set(labels):
        angles = [labels.index(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")]
        old, new = (Rotation.from_euler("ZYZ", np.array([[float(row[a]) for a in angles] for row in table]), degrees=True)
                    for table in (before, regrouped))  # fmt: skip
        moved = Rotation.from_matrix([poses[k - 1].rotation for k in of_row[kept]])
        assert (new.inv() * moved * old).magnitude().max() < 1e-4
    for file in paths:
        assert starfile.read(file, always_dict=True)


def with_classes(path, tmp_path, n_columns):
    """The file with a class for each of its particles at the end of its row."""
    lines = []
    for number, line in enumerate(path.read_text().splitlines()):
        words = line.split()
        if len(words) == n_columns and not words[0].startswith("_"):
            line = f"{line.rstrip()} {number % 3 + 1}"
        if words and words[0].startswith("_") and words[-1] == f"#{n_columns}":
            line = f"{line}\n_rlnClassNumber #{n_columns + 1}"
        lines.append(line)
    copy = tmp_path / path.name
    copy.write_text("\n".join(lines) + "\n")
    return copy


@pytest.mark.parametrize("name", OTHER_STARS)
def test_star_files_of_other_kinds_are_read(name):
    path = META / name
    with pytest.raises(InputError, match="no table of particles"):
        open_particles(path)
    assert describe_file(path)
    blocks = {block.name: block for block in locate_blocks(str(path))}
    for block_name, expected in starfile.read(path, always_dict=True).items():
        rows = read_small_block(str(path), blocks[block_name])
        if isinstance(expected, dict):
            assert list(rows[0]) == list(expected)
        else:
            assert [list(row) for row in rows] == [list(expected.columns)] * len(expected)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".cs")])
def test_cs_files_keep_the_bits_of_every_untouched_column(tmp_path, name):
    path = META / name
    records = np.load(path, max_header_size=10**6)
    if not len(records):
        # The vendor's own file has columns and no rows.
        names = [(column, records.dtype[column].base, records.dtype[column].shape) for column in records.dtype.names]
        records = random_records(40, names, np.random.default_rng(2))
        path = save(tmp_path / "filled.cs", records)
    posteriors = "alignments_class_0/class_posterior" in records.dtype.names
    if posteriors:
        source = open_particles(path)
    else:
        with pytest.raises(InputError, match="has no class posteriors"):
            open_particles(path)
        # CryoSPARC keeps posteriors and passthrough columns in files of their own, joined by uid.
        random = np.random.default_rng(1)
        fields = [("uid", "<u8"), *(field for k in range(3) for field in slot_fields(f"alignments_class3D_{k}"))]
        classes = random_records(len(records), fields, random)
        classes["uid"] = records["uid"]
        for k in range(3):
            classes[f"alignments_class3D_{k}/class_posterior"] = random.uniform(0, 1, len(records))
        source = open_particles(save(tmp_path / "classes.cs", classes[::-1].copy()), passthrough=path, fragment_rows=500)
    poses = {1: random_pose(1)}
    if not posteriors and "alignments3D/pose" not in records.dtype.names:
        poses = None
    regroup(source, plan_for(source, [0, 0, -1], poses), tmp_path / "OUT", cryosparc)
    parts = [np.load(tmp_path / "OUT" / "cryosparc" / f"{part}_particles.cs", max_header_size=10**6)
             for part in ("regrouped", "remaining")]  # fmt: skip
    assert sum(map(len, parts)) == len(records)
    place = {uid: row for row, uid in enumerate(records["uid"].tolist())}
    for part, replaced in zip(parts, (("alignments3D/", "alignments_class"), ()), strict=True):
        rows = [place[uid] for uid in part["uid"].tolist()]
        untouched = [column for column in records.dtype.names if not column.startswith(replaced)]
        assert len(untouched) > 10
        for column in untouched:
            assert part.dtype[column] == records.dtype[column], column
            assert part[column].tobytes() == records[column][rows].tobytes(), column
        order = [column for column in part.dtype.names if column in untouched]
        assert order == untouched
