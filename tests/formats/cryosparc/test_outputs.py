"""Regrouped .cs files: every row once, untouched columns bit-identical, poses that project."""

import os
import zipfile

import numpy as np
import pytest
import yaml
from cryosparc.dataset import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc.outputs import create_outputs, finish_outputs, write_fragment
from regroup_dask.formats.particles import (
    Assignment,
    ClassPose,
    RegroupPlan,
    SuperclassMaps,
    open_particles,
    output_functions,
)
from regroup_dask.science.particle_poses import move_poses
from tests.formats.cryosparc.making import LOCATION, make_particles, random_records, save, slot_fields

GENERATIONS = ["multi", "class3D", "class", "hard"]


def assign(posteriors, superclass_of_class, n_superclasses, rule="argmax"):
    """A slow and plain assignment, row by row."""
    n, _ = posteriors.shape
    best, superclass = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    within = np.full((n, n_superclasses), -1, np.int32)
    soft = np.zeros((n, n_superclasses), np.float32)
    for i, row in enumerate(posteriors):
        if not np.isfinite(row).all() or row.sum() == 0:
            continue
        best[i] = int(np.argmax(row))
        for k in range(n_superclasses):
            members = [c for c, s in enumerate(superclass_of_class) if s == k]
            within[i, k] = max(members, key=lambda c: (row[c], -c))
            soft[i, k] = row[members].sum()
        superclass[i] = superclass_of_class[best[i]] if rule == "argmax" else np.argmax(soft[i])
    return Assignment(best, superclass, soft, within)


def make_plan(superclass_of_class, rng, *, update=True, mirrored=()):
    poses = {}
    seen = set()
    for class_id, superclass in enumerate(superclass_of_class):
        if superclass >= 0:
            first = superclass not in seen
            seen.add(superclass)
            rotation = np.eye(3) if first else Rotation.random(rng=rng).as_matrix()
            shift = np.zeros(3) if first else rng.uniform(-8, 8, 3)
            poses[class_id] = ClassPose(rotation, shift, class_id in mirrored)
    return RegroupPlan(
        n_superclasses=max(superclass_of_class) + 1,
        class_ids=tuple(range(len(superclass_of_class))),
        superclass_of_class=dict(enumerate(superclass_of_class)),
        pose_of_class=poses,
        update_poses=update,
        move_poses=move_poses,
    )


def regroup(source, plan, folder, *, rule="argmax", order=None, maps=None, twice=False):
    """Run the three steps as the tasks do, fragments in any order."""
    labels = [plan.superclass_of_class[class_id] for class_id in plan.class_ids]
    fragments = list(source.get_fragments())
    assignments, counts = [], []
    for fragment in fragments:
        table = fragment.read(list(source.posterior_columns))
        assignments.append(assign(source.class_posteriors(table), labels, plan.n_superclasses, rule))
        counts.append([(assignments[-1].superclass == k).sum() for k in [*range(plan.n_superclasses), -1]])
    counts = np.array(counts, dtype=np.int64).reshape(-1, plan.n_superclasses + 1)
    before = np.cumsum(counts, axis=0) - counts
    outputs = create_outputs(source, plan, counts, str(folder))
    turns = list(range(len(fragments))) if order is None else order
    for index in turns * (1 + twice):
        fragment = fragments[index]
        write_fragment(source, fragment, fragment.read(), assignments[index], plan, outputs, before[index])
    made = finish_outputs(source, plan, outputs, counts, maps)
    joined = Assignment(*(np.concatenate(parts) for parts in zip(*assignments, strict=True))) if fragments else None
    return joined, made


def load(folder, name):
    return np.load(f"{folder}/cryosparc/{name}.cs", max_header_size=10**7)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("rule", ["argmax", "sum"])
def test_every_row_goes_where_it_belongs(tmp_path, generation, rule):
    rng = np.random.default_rng(1)
    records, _ = make_particles(83, 5, generation, rng)
    if generation == "multi":
        records["alignments3D_multi/class_posterior"][11] = 0
        records["alignments3D_multi/class_posterior"][12] = np.nan
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=20)
    plan = make_plan([0, 1, -1, 0, 1], rng, mirrored=(4,))
    assignment, _ = regroup(source, plan, tmp_path, rule=rule, order=[3, 0, 4, 2, 1])

    remaining = load(tmp_path, "remaining_particles")
    assert remaining.dtype == records.dtype
    assert remaining.tobytes() == records[assignment.superclass < 0].tobytes()
    if generation == "multi":
        assert set(records["uid"][11:13]) <= set(remaining["uid"])
    inside = records[assignment.superclass >= 0]
    regrouped = load(tmp_path, "regrouped_particles")
    assert regrouped["uid"].tolist() == inside["uid"].tolist()
    touched = ("alignments3D", "alignments_class", "alignments3D_multi")
    for name in records.dtype.names:
        if not name.startswith(touched):
            assert regrouped[name].tobytes() == inside[name].tobytes(), name
    superclass = assignment.superclass[assignment.superclass >= 0]
    for k in range(2):
        assert load(tmp_path, f"particles_superclass_{k}").tobytes() == regrouped[superclass == k].tobytes()
    np.testing.assert_array_equal(regrouped["alignments3D/class"], superclass)
    assert (regrouped["alignments3D/class_posterior"] == 1).all()
    assert (regrouped["alignments3D/class_ess"] == 1).all()
    one_hot = superclass[:, None] == [0, 1]
    if generation == "multi":
        np.testing.assert_array_equal(regrouped["alignments3D_multi/class_posterior"], one_hot)
        assert (regrouped["alignments3D_multi/class"] == [0, 1]).all()
        assert regrouped.dtype["alignments3D_multi/pose"].shape == (2, 3)
        assert regrouped.dtype["alignments3D_multi/psize_A"].shape == ()
    elif generation != "hard":
        prefix = {"class": "alignments_class_", "class3D": "alignments_class3D_"}[generation]
        for k in range(2):
            np.testing.assert_array_equal(regrouped[f"{prefix}{k}/class_posterior"], one_hot[:, k])
            assert (regrouped[f"{prefix}{k}/class"] == k).all()
        assert f"{prefix}2/class_posterior" not in regrouped.dtype.names


def pose_of(record, slot, index=None):
    """(P, shift in angstrom) of one record; ``index`` along the class axis of alignments3D_multi."""
    pose, shift, pixel = (record[f"{slot}/{field}"] for field in ("pose", "shift", "psize_A"))
    if index is not None:
        pose, shift = pose[index], shift[index]
    return Rotation.from_rotvec(pose.astype(float)).as_matrix(), shift.astype(float) * float(pixel)


def seen(points, pose):
    """Where points of a map appear in the image."""
    rotation, shift = pose
    return (points @ rotation)[:, :2] - shift


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("mirrored", [(), (1, 4)])
def test_moved_maps_project_as_before(tmp_path, generation, mirrored):
    """Points of the class map at the old pose and of the moved map at the new one fall on the same places."""
    rng = np.random.default_rng(2)
    records, _ = make_particles(40, 5, generation, rng)
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=16)
    plan = make_plan([0, 1, -1, 0, 1], rng, mirrored=mirrored)
    assignment, _ = regroup(source, plan, tmp_path, rule="sum")
    regrouped = load(tmp_path, "regrouped_particles")
    rows = np.flatnonzero(assignment.superclass >= 0)
    points = rng.uniform(-50, 50, (8, 3))

    def old_pose(record, class_id):
        if generation == "multi":
            return pose_of(record, "alignments3D_multi", class_id)
        return pose_of(record, f"alignments_class_{class_id}" if generation == "class" else "alignments3D")

    def check(record, class_id, new):
        pose = plan.pose_of_class[class_id]
        moved = (-points if pose.mirrored else points) @ pose.rotation.T + pose.shift_angstrom
        np.testing.assert_allclose(seen(moved, new), seen(points, old_pose(record, class_id)), atol=2e-3)

    for record, output, row in zip(records[rows], regrouped, rows, strict=True):
        within = assignment.best_class_in_superclass[row]
        check(record, within[assignment.superclass[row]], pose_of(output, "alignments3D"))
        for k in range(2):
            if generation == "multi":
                check(record, within[k], pose_of(output, "alignments3D_multi", k))
            elif generation == "class":
                check(record, within[k], pose_of(output, f"alignments_class_{k}"))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_poses_are_told_in_angstrom_for_any_class(tmp_path, generation):
    rng = np.random.default_rng(3)
    records, _ = make_particles(12, 4, generation, rng)
    records[5]["alignments3D_multi/pose" if generation == "multi" else records.dtype.names[-1]] = np.nan
    source = open_particles(save(tmp_path / "p.cs", records))
    class_index = rng.integers(0, len(source.class_ids), 12)
    class_index[7] = -1
    rotation, shift = source.particle_poses(source.to_table(), class_index)
    for i, (record, index) in enumerate(zip(records, class_index, strict=True)):
        if i == 7 or (i == 5 and generation == "multi"):
            assert np.isnan(rotation[i]).all()
            assert np.isnan(shift[i]).all()
            continue
        slot = {"multi": "alignments3D_multi", "class": f"alignments_class_{index}"}.get(generation, "alignments3D")
        expected = pose_of(record, slot, index if generation == "multi" else None)
        np.testing.assert_allclose(rotation[i], expected[0], atol=1e-12)
        np.testing.assert_allclose(shift[i], expected[1], atol=1e-12)
    nothing = source.to_table().slice(0, 0)
    assert source.particle_poses(nothing, class_index[:0])[0].shape == (0, 3, 3)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_poses_that_do_not_move_keep_their_bits(tmp_path, generation):
    rng = np.random.default_rng(3)
    records, _ = make_particles(40, 4, generation, rng)
    source = open_particles(save(tmp_path / "p.cs", records))
    labels = [0, 1, 0, 1]
    for update in (False, True):
        folder = tmp_path / str(update)
        assignment, _ = regroup(source, make_plan(labels, rng, update=update), folder)
        regrouped = load(folder, "regrouped_particles")
        for record, output, class_id in zip(records, regrouped, assignment.class_id, strict=True):
            if update and class_id > 1:
                continue  # classes 0 and 1 are the references of their superclasses
            for field in ("pose", "shift", "split", "alpha_min"):
                slot = {"multi": "alignments3D_multi", "class": f"alignments_class_{class_id}"}.get(
                    generation, "alignments3D"
                )
                expected = record[f"{slot}/{field}"]
                if generation == "multi" and field != "split":
                    expected = expected[class_id]
                assert output[f"alignments3D/{field}"].tobytes() == expected.tobytes()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_round_trip_of_any_table(tmp_path_factory, data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, n_classes = data.draw(st.integers(0, 60)), data.draw(st.integers(2, 6))
    generation = data.draw(st.sampled_from(GENERATIONS[:3]))
    leave_out = data.draw(st.sampled_from([(), ("alpha_min",), ("class_ess", "weight")]))
    records, _ = make_particles(n, n_classes, generation, rng, leave_out=leave_out)
    n_superclasses = data.draw(st.integers(1, n_classes - 1))
    labels = rng.permutation([*range(n_superclasses), *rng.integers(-1, n_superclasses, n_classes - n_superclasses)])
    tmp_path = tmp_path_factory.mktemp("round")
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=data.draw(st.integers(1, 70)))
    plan = make_plan(labels.tolist(), rng, update=data.draw(st.booleans()))
    regroup(source, plan, tmp_path, twice=data.draw(st.booleans()))
    regrouped, remaining = load(tmp_path, "regrouped_particles"), load(tmp_path, "remaining_particles")
    assert sorted([*regrouped["uid"], *remaining["uid"]]) == sorted(records["uid"])
    parts = [load(tmp_path, f"particles_superclass_{k}") for k in range(n_superclasses)]
    assert sum(len(part) for part in parts) == len(regrouped)
    position = {uid: i for i, uid in enumerate(records["uid"])}
    for part in (regrouped, remaining, *parts):
        rows = [position[uid] for uid in part["uid"]]
        assert rows == sorted(rows)
        for name in (
            "blob/path",
            "blob/idx",
            "ctf/tetra_A",
            "alignments2D/pose",
            "alignments2D/class_posterior",
        ):
            assert part[name].tobytes() == records[name][rows].tobytes()
    assert not any(name.endswith(leave_out) for name in regrouped.dtype.names if "2D" not in name and leave_out)
    for name in [
        "regrouped_particles",
        "remaining_particles",
        *[f"particles_superclass_{k}" for k in range(n_superclasses)],
    ]:
        loaded = Dataset.load(f"{tmp_path}/cryosparc/{name}.cs")
        assert loaded["uid"].tolist() == load(tmp_path, name)["uid"].tolist()
        assert loaded.fields() == list(load(tmp_path, name).dtype.names)


def test_the_slot_of_an_upstream_refinement_is_replaced_in_place(tmp_path):
    rng = np.random.default_rng(4)
    records, _ = make_particles(20, 3, "class", rng, extra=[*slot_fields("alignments3D"), ("last/x", "<f4")])
    source = open_particles(save(tmp_path / "p.cs", records))
    assignment, _ = regroup(source, make_plan([0, 1, 1], rng, update=False), tmp_path)
    regrouped = load(tmp_path, "regrouped_particles")
    expected = [name for name in records.dtype.names if not name.startswith("alignments_class_2/")]
    assert list(regrouped.dtype.names) == expected
    for i, class_id in enumerate(assignment.class_id):
        assert regrouped["alignments3D/pose"][i].tobytes() == records[f"alignments_class_{class_id}/pose"][i].tobytes()


def test_new_slots_stand_before_the_posteriors(tmp_path):
    rng = np.random.default_rng(5)
    records, _ = make_particles(9, 3, "multi", rng)
    regroup(open_particles(save(tmp_path / "p.cs", records)), make_plan([0, 1, 1], rng), tmp_path)
    prefixes = list(dict.fromkeys(name.split("/")[0] for name in load(tmp_path, "regrouped_particles").dtype.names))
    assert prefixes == ["uid", "blob", "ctf", "alignments3D", "alignments3D_multi", "alignments2D"]
    names = [name for name in load(tmp_path, "regrouped_particles").dtype.names if name.startswith("alignments3D/")]
    assert len(names) == 18


def test_passthrough_columns_are_written(tmp_path):
    rng = np.random.default_rng(6)
    records, _ = make_particles(30, 3, "class3D", rng)
    beside = random_records(30, LOCATION, rng)
    beside["uid"] = rng.permutation(records["uid"])
    source = open_particles(
        save(tmp_path / "p.cs", records), passthrough=save(tmp_path / "pass.cs", beside), fragment_rows=7
    )
    regroup(source, make_plan([0, 1, -1], rng), tmp_path)
    path_of = dict(zip(beside["uid"], beside["location/micrograph_path"], strict=True))
    for name in ("regrouped_particles", "remaining_particles", "particles_superclass_1"):
        for row in load(tmp_path, name):
            assert row["location/micrograph_path"] == path_of[row["uid"]]
        assert load(tmp_path, name).dtype["location/micrograph_path"] == np.dtype("S30")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_particles_at_all(tmp_path, generation):
    rng = np.random.default_rng(7)
    records, _ = make_particles(1, 3, "multi" if generation == "hard" else generation, rng)
    source = open_particles(save(tmp_path / "p.cs", records[:0]))
    regroup(source, make_plan([0, 1, 1], rng), tmp_path)
    for name in ("regrouped_particles", "particles_superclass_0", "remaining_particles"):
        assert len(Dataset.load(f"{tmp_path}/cryosparc/{name}.cs")) == 0


def test_writing_again_changes_nothing_and_order_does_not_matter(tmp_path):
    rng = np.random.default_rng(8)
    records, _ = make_particles(50, 4, "multi", rng)
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=9)
    plan = make_plan([0, 1, 1, -1], rng)
    regroup(source, plan, tmp_path / "a")
    regroup(source, plan, tmp_path / "b", order=[5, 1, 0, 2, 4, 3])
    regroup(source, plan, tmp_path / "b", order=[2])  # an interrupted run that goes on keeps what is there
    for name in sorted(os.listdir(tmp_path / "a" / "cryosparc")):
        assert (tmp_path / "a/cryosparc" / name).read_bytes() == (tmp_path / "b/cryosparc" / name).read_bytes()


def make_maps(folder, n=2):
    volumes = folder / "volumes"
    volumes.mkdir(parents=True)
    for name in [f"superclass_{k:03d}.mrc" for k in range(n)] + ["mask.mrc"]:
        (volumes / name).write_bytes(name.encode())
    with zipfile.ZipFile(volumes / "series.zip", "w") as series:
        series.writestr("superclass_000.mrc", b"")
    paths = tuple(str(volumes / f"superclass_{k:03d}.mrc") for k in range(n))
    return SuperclassMaps(paths, 64, 2.5, str(volumes / "series.zip"), str(volumes / "mask.mrc"))


def test_groups_name_files_of_their_own_folder(tmp_path):
    rng = np.random.default_rng(9)
    records, _ = make_particles(20, 3, "class", rng)
    source = open_particles(save(tmp_path / "p.cs", records))
    _, made = regroup(source, make_plan([0, 1, 1], rng), tmp_path / "out", maps=make_maps(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    folder = tmp_path / "moved" / "cryosparc"
    names = ["regrouped_particles", "particles_superclass_0", "particles_superclass_1", "remaining_particles"]
    volumes = ["volume_superclass_0", "volume_superclass_1", "volumes_all_superclasses", "mask"]
    expected = {f"{name}{end}" for name in names + volumes for end in (".cs", ".csg")}
    maps = {"volume_superclass_0.mrc", "volume_superclass_1.mrc", "mask.mrc", "volumes_all_superclasses.zip"}
    assert set(os.listdir(folder)) == expected | maps == {os.path.basename(path) for path in made}
    kinds = {}
    for name in names + volumes:
        group = yaml.safe_load((folder / f"{name}.csg").read_text())
        kinds[name] = group["group"]["type"]
        assert group["group"]["name"] == name
        for slot, result in group["results"].items():
            loaded = Dataset.load(str(folder / result["metafile"].removeprefix(">")))
            assert len(loaded) == result["num_items"]
            assert slot in loaded.prefixes()
            if name in volumes:
                path = loaded[f"{slot}/path"][0]
                assert (folder / path.removeprefix(">")).is_file()
                assert loaded[f"{slot}/psize_A"][0] == 2.5
                assert loaded[f"{slot}/shape"][0].tolist() == [64, 64, 64]
    assert kinds["volumes_all_superclasses"] == "volume_multi"
    assert kinds["volume_superclass_1"] == "volume"
    assert kinds["regrouped_particles"] == "particle"
    assert (folder / "volume_superclass_1.mrc").read_bytes() == b"superclass_001.mrc"
    again = open_particles(folder / "regrouped_particles.csg")
    assert again.class_ids == (0, 1)


def test_a_pixel_size_of_zero_is_refused_only_when_it_is_needed(tmp_path):
    rng = np.random.default_rng(10)
    records, _ = make_particles(20, 3, "class", rng)
    for k in range(3):
        records[f"alignments_class_{k}/psize_A"] = 0
    source = open_particles(save(tmp_path / "p.cs", records))
    regroup(source, make_plan([0, 1, 1], rng, update=False), tmp_path / "a")
    with pytest.raises(InputError, match="pixel size"):
        regroup(source, make_plan([0, 1, 1], rng), tmp_path / "b")
    records, _ = make_particles(20, 3, "class", rng, leave_out=("psize_A",))
    source = open_particles(save(tmp_path / "p.cs", records))
    with pytest.raises(InputError, match="no psize_A"):
        regroup(source, make_plan([0, 1, 1], rng), tmp_path / "c")


def test_the_side_is_found_by_its_kind():
    assert output_functions("cryosparc") == (create_outputs, write_fragment, finish_outputs)


@pytest.mark.shared_data
def test_the_schema_of_a_real_job(shared_data, tmp_path):
    """The vendor's own file: 106 columns, no rows; and the same columns filled."""
    path = shared_data / "meta" / "4k_dataset.cs"
    rng = np.random.default_rng(11)
    regroup(open_particles(path), make_plan([0, 1, 1], rng), tmp_path / "empty")
    assert len(Dataset.load(f"{tmp_path}/empty/cryosparc/regrouped_particles.cs")) == 0
    dtype = np.load(path).dtype
    records = random_records(30, [(name, dtype[name].base, dtype[name].shape) for name in dtype.names], rng)
    records["location/micrograph_path"] = b"x"
    source = open_particles(save(tmp_path / "p.cs", records))
    regroup(source, make_plan([0, 1, 1], rng), tmp_path)
    names = list(load(tmp_path, "regrouped_particles").dtype.names)
    assert names == [name for name in dtype.names if not name.startswith("alignments_class_2/")]
