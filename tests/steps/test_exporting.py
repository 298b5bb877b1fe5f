import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import starfile
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regroup_dask.errors import InputError, UnitError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.cryosparc import outputs as cryosparc
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import outputs as relion
from regroup_dask.steps.exporting import export
from tests.formats.cryosparc.making import save
from tests.formats.relion.regrouping import plan_for, regroup
from tests.steps.rich_particles import (
    BOX,
    LABELS,
    MICROGRAPH,
    PIXEL,
    POSES,
    cryosparc_records,
    from_cryosparc,
    regrouped,
    write_rich_star,
)

ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
ORIGINS = ["rlnOriginXAngst", "rlnOriginYAngst"]


@pytest.fixture
def cryosparc_output(tmp_path):
    records = cryosparc_records()
    source, output = from_cryosparc(tmp_path / "cs", records)
    return records, source, output


@pytest.fixture
def relion_output(tmp_path):
    (tmp_path / "star").mkdir()
    source = open_particles(write_rich_star(tmp_path / "star" / "a.star"), fragment_rows=50)
    output = regrouped(tmp_path / "star", source)
    (output / "relion").mkdir()
    (output / "relion" / "regrouped_particles.star").write_bytes((tmp_path / "star" / "a.star").read_bytes())
    return source, output


def read(path):
    return starfile.read(path, always_dict=True)


def test_cryosparc_to_relion(tmp_path, cryosparc_output):
    records, source, output = cryosparc_output
    done = export(output, "relion", tmp_path / "relion")
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", cryosparc)
    by_uid = {uid: row for row, uid in enumerate(records["uid"].tolist())}
    for name in ("regrouped_particles", "particles_superclass_0", "particles_superclass_1"):
        own = np.load(tmp_path / "own" / "cryosparc" / f"{name}.cs", max_header_size=10**6)
        blocks = read(tmp_path / "relion" / f"{name}.star")
        table, optics = blocks["particles"], blocks["optics"].set_index("rlnOpticsGroup")
        before = records[[by_uid[uid] for uid in own["uid"].tolist()]]
        expected = [f"{i + 1:06d}@{p.decode()[1:]}" for i, p in zip(own["blob/idx"], own["blob/path"], strict=True)]
        assert table["rlnImageName"].tolist() == expected
        assert (table["rlnClassNumber"] - 1).tolist() == own["alignments3D/class"].tolist()
        assert (table["rlnRandomSubset"] - 1).tolist() == own["alignments3D/split"].tolist()
        # RELION's matrix is the transpose of that of CryoSPARC's rotation vector; origins are shifts in angstrom.
        a = Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(), degrees=True)
        p = Rotation.from_rotvec(own["alignments3D/pose"].astype(float))
        assert (a.inv() * p).magnitude().max() < 1e-5
        shift = own["alignments3D/shift"] * own["alignments3D/psize_A"][:, None]
        np.testing.assert_allclose(table[ORIGINS], shift, atol=1e-4)
        np.testing.assert_allclose(table[["rlnDefocusU", "rlnDefocusV"]], np.c_[before["ctf/df1_A"], before["ctf/df2_A"]])
        np.testing.assert_allclose(table["rlnDefocusAngle"], np.degrees(before["ctf/df_angle_rad"]), atol=1e-4)
        np.testing.assert_allclose(table["rlnPhaseShift"], np.degrees(before["ctf/phase_shift_rad"]), atol=1e-4)
        np.testing.assert_allclose(table["rlnCtfScalefactor"], before["ctf/scale"], atol=1e-6)
        assert table["rlnMicrographName"].tolist() == [text.decode() for text in before["location/micrograph_path"]]
        np.testing.assert_allclose(table["rlnCoordinateX"], before["location/center_x_frac"] * MICROGRAPH[0], atol=1e-2)
        np.testing.assert_allclose(table["rlnCoordinateY"], (1 - before["location/center_y_frac"]) * MICROGRAPH[1], atol=1e-2)
        # Optics of each particle, found by its group.
        own_optics = optics.loc[table["rlnOpticsGroup"]]
        assert (own_optics["rlnImagePixelSize"] == PIXEL).all()
        assert (own_optics["rlnImageSize"] == BOX).all()
        assert (own_optics["rlnVoltage"] == 300).all()
        assert (own_optics["rlnImageDimensionality"] == 2).all()
        tilt = 1e3 * np.arcsin(before["ctf/tilt_A"].astype(float) / 2.7e7)
        np.testing.assert_allclose(own_optics[["rlnBeamTiltX", "rlnBeamTiltY"]], tilt, atol=1e-6)
        magnification = np.eye(2).ravel() + before["ctf/anisomag"]
        columns = [f"rlnMagMat{row}{column}" for row in (0, 1) for column in (0, 1)]
        np.testing.assert_allclose(own_optics[columns], magnification, atol=1e-6)
    assert len(optics) == 3
    # Remaining particles keep the pose against their own class.
    remaining = read(tmp_path / "relion" / "remaining_particles.star")["particles"]
    before = records[records["alignments3D_multi/class_posterior"].argmax(axis=1) == 3]
    assert len(remaining) == len(before) > 20
    a = Rotation.from_euler("ZYZ", remaining[ANGLES].to_numpy(), degrees=True)
    p = Rotation.from_rotvec(before["alignments3D_multi/pose"][:, 3].astype(float))
    assert (a.inv() * p).magnitude().max() < 1e-5
    np.testing.assert_allclose(remaining[ORIGINS], before["alignments3D_multi/shift"][:, 3] * 1.5, atol=1e-4)
    assert not any("trefoil" in note for note in done.notes)
    assert not (tmp_path / "relion" / ".parts").exists()
    # What is written is read again.
    again = open_particles(tmp_path / "relion" / "regrouped_particles.star")
    assert again.voxel_size_angstrom == PIXEL


def test_relion_to_cryosparc(tmp_path, relion_output):
    from cryosparc.dataset import Dataset

    source, output = relion_output
    # RELION's side is there, and so copied; its optics groups serve the others.
    assert export(output, "relion", tmp_path / "copied").files
    export(output, "cryosparc", tmp_path / "cryosparc", micrograph_size=MICROGRAPH)
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", relion)
    table = read(tmp_path / "own" / "relion" / "regrouped_particles.star")["particles"]
    found = Dataset.load(tmp_path / "cryosparc" / "regrouped_particles.cs")
    names = [f"{i + 1:06d}@{path}" for i, path in zip(found["blob/idx"], found["blob/path"], strict=True)]
    assert names == table["rlnImageName"].tolist()
    assert len(set(found["uid"])) == len(found)
    p = Rotation.from_rotvec(found["alignments3D/pose"].astype(float))
    assert (Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(), degrees=True).inv() * p).magnitude().max() < 1e-5
    second = table["rlnOpticsGroup"].to_numpy() == 2
    pixel = np.where(second, 1.4, 1.25)
    np.testing.assert_allclose(found["alignments3D/psize_A"], pixel, rtol=1e-6)
    np.testing.assert_allclose(found["blob/psize_A"], pixel, rtol=1e-6)
    np.testing.assert_allclose(found["alignments3D/shift"] * pixel[:, None], table[ORIGINS], atol=1e-4)
    assert (found["blob/shape"] == 96).all()
    assert found["alignments3D/split"].tolist() == (table["rlnRandomSubset"] - 1).tolist()
    assert found["ctf/exp_group_id"].tolist() == (table["rlnOpticsGroup"] - 1).tolist()
    np.testing.assert_allclose(found["ctf/accel_kv"], np.where(second, 200, 300))
    np.testing.assert_allclose(found["ctf/cs_mm"], np.where(second, 1.4, 2.7), rtol=1e-6)
    np.testing.assert_allclose(found["ctf/amp_contrast"], np.where(second, 0.07, 0.1), rtol=1e-6)
    np.testing.assert_allclose(found["ctf/df1_A"], table["rlnDefocusU"], rtol=1e-6)
    np.testing.assert_allclose(found["ctf/df2_A"], table["rlnDefocusV"], rtol=1e-6)
    np.testing.assert_allclose(found["ctf/df_angle_rad"], np.radians(table["rlnDefocusAngle"]), atol=1e-6)
    np.testing.assert_allclose(found["ctf/phase_shift_rad"], np.radians(table["rlnPhaseShift"]), atol=1e-6)
    tilt = np.where(second[:, None], 1.4e7 * np.sin(1e-3 * np.array([0.5, -1.25])), 0)
    np.testing.assert_allclose(found["ctf/tilt_A"], tilt, rtol=1e-5)
    np.testing.assert_allclose(found["ctf/anisomag"], second[:, None] * np.array([0.01, 0.002, -0.003, -0.004]), atol=1e-7)
    np.testing.assert_allclose(found["location/center_x_frac"] * MICROGRAPH[0], table["rlnCoordinateX"], atol=1e-2)
    np.testing.assert_allclose((1 - found["location/center_y_frac"]) * MICROGRAPH[1], table["rlnCoordinateY"], atol=1e-2)
    assert (found["location/micrograph_shape"] == MICROGRAPH[::-1]).all()
    assert found["location/micrograph_path"].tolist() == table["rlnMicrographName"].tolist()
    assert len(set(found["location/micrograph_uid"])) == table["rlnMicrographName"].nunique()
    # One-hot over the superclasses, with the pose of the particle for each, as Heterogeneous Reconstruction Only reads.
    superclass = table["rlnClassNumber"].to_numpy() - 1
    assert (found["alignments3D/class"] == superclass).all()
    assert (found["alignments3D_multi/class_posterior"] == np.eye(2)[superclass]).all()
    assert (found["alignments3D_multi/class"] == [0, 1]).all()
    assert (found["alignments3D_multi/pose"] == found["alignments3D/pose"][:, None]).all()
    group = open_particles(tmp_path / "cryosparc" / "regrouped_particles.csg")
    assert group.count_rows() == len(found)


@pytest.mark.parametrize("side", ["relion", "cryosparc", "cryodrgn"])
@pytest.mark.parametrize("came_from", ["cryosparc_output", "relion_output"])
def test_to_and_from_a_store(tmp_path, request, came_from, side):
    """Every side from an output in a store to a folder in a store: the bytes of the export on disk."""
    output = request.getfixturevalue(came_from)[-1]
    far_output, far = (f"memory://{tmp_path.name}/{name}" for name in ("OUT", "exported"))
    storing.copy_folder(output, far_output)
    done = export(output, side, tmp_path / "exported")
    far_done = export(far_output, side, far)
    names = sorted(str(path.relative_to(tmp_path / "exported")) for path in done.files)
    assert sorted(str(path).removeprefix(f"{far}/") for path in far_done.files) == names
    assert [path.removeprefix(f"{far}/") for path in storage.files_below(far)] == names
    for name in names:
        assert storage.read_bytes(f"{far}/{name}") == (tmp_path / "exported" / name).read_bytes(), name
    with pytest.raises(InputError, match="exists"):
        export(far_output, side, far)
    storing.remove_folder(far)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.tasks.exports.write_fragment", lambda unit: 1 / 0)
        patch.setattr(storing, "copy_folder", lambda source, target: 1 / 0)
        with pytest.raises((UnitError, ZeroDivisionError)):
            export(far_output, side, far)
    assert not storage.exists(far)


def test_fields_are_those_of_cryosparc(tmp_path, relion_output, shared_data):
    _, output = relion_output
    export(output, "cryosparc", tmp_path / "cryosparc", micrograph_size=MICROGRAPH)
    found = np.load(tmp_path / "cryosparc" / "regrouped_particles.cs").dtype
    imported = np.load(shared_data / "meta" / "cryosparc_J2_particles_exported.cs").dtype
    made = np.load(shared_data / "meta" / "4k_dataset.cs", max_header_size=10**6).dtype
    for prefix, real in (("blob/", imported), ("ctf/", imported), ("alignments3D/", made), ("location/", made)):
        own = [name for name in found.names if name.startswith(prefix)]
        theirs = [name for name in real.names if name.startswith(prefix)]
        assert own == theirs[: len(own)], prefix
        for name in own:
            if real[name].kind != "S":
                assert found[name] == real[name], name


def test_there_and_back(tmp_path, cryosparc_output):
    records, _, output = cryosparc_output
    export(output, "relion", tmp_path / "relion")
    star = open_particles(tmp_path / "relion" / "regrouped_particles.star")
    (tmp_path / "again").mkdir()
    # Two classes now, the superclasses, and no pose of a class: what comes back is what went out.
    second = regrouped(tmp_path / "again", star, labels=[0, 1], poses=None)
    (second / "relion").mkdir()
    (tmp_path / "relion" / "regrouped_particles.star").rename(second / "relion" / "regrouped_particles.star")
    export(second, "cryosparc", tmp_path / "back", micrograph_size=MICROGRAPH)
    back = np.load(tmp_path / "back" / "regrouped_particles.cs")
    best = records["alignments3D_multi/class_posterior"].argmax(axis=1)
    kept = records[best != 3]
    assert [path.decode() for path in back["blob/path"]] == [path.decode()[1:] for path in kept["blob/path"]]
    for name in ("blob/idx", "blob/psize_A", "blob/shape", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast", "ctf/df1_A",
                 "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad", "ctf/tilt_A", "ctf/anisomag", "ctf/scale",
                 "location/center_x_frac", "location/center_y_frac", "location/micrograph_shape"):  # fmt: skip
        np.testing.assert_allclose(back[name], kept[name], rtol=2e-6, atol=2e-5 if "tilt_A" in name else 2e-6, err_msg=name)
    # Groups are numbered anew, without gaps.
    assert (back["ctf/exp_group_id"] == kept["ctf/exp_group_id"] - 4).all()


@pytest.mark.parametrize("generation", ["class", "class3D", "hard"])
def test_remaining_particles_keep_their_pose_in_every_generation(tmp_path, generation):
    records = cryosparc_records(generation=generation)
    _, output = from_cryosparc(tmp_path / "cs", records)
    export(output, "relion", tmp_path / "relion")
    remaining = read(tmp_path / "relion" / "remaining_particles.star")["particles"]
    if generation == "hard":
        best = records["alignments3D/class"]
    else:
        prefix = "alignments_class3D_" if generation == "class3D" else "alignments_class_"
        best = np.argmax([records[f"{prefix}{k}/class_posterior"] for k in range(4)], axis=0)
    slot = "alignments_class_3" if generation == "class" else "alignments3D"
    before = records[best == 3]
    a = Rotation.from_euler("ZYZ", remaining[ANGLES].to_numpy(), degrees=True)
    assert (a.inv() * Rotation.from_rotvec(before[f"{slot}/pose"].astype(float))).magnitude().max() < 1e-5
    np.testing.assert_allclose(remaining[ORIGINS], before[f"{slot}/shift"] * 1.5, atol=1e-4)


@pytest.mark.parametrize("side", ["relion", "cryosparc", "cryodrgn"])
def test_the_same_bytes_however_many_workers(tmp_path, cryosparc_output, relion_output, side):
    output = relion_output[1] if side == "cryosparc" else cryosparc_output[2]
    export(output, side, tmp_path / "alone")
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(names) > 3
    for n_workers in (1, 4):
        folder = tmp_path / f"on_{n_workers}"
        with (
            LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            export(output, side, folder, client=client)
        assert sorted(path.name for path in folder.iterdir()) == names
        for name in names:
            assert (folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


@pytest.mark.parametrize("origin", ["cryosparc", "relion"])
def test_to_cryodrgn(tmp_path, cryosparc_output, relion_output, origin):
    output = cryosparc_output[2] if origin == "cryosparc" else relion_output[1]
    export(output, "cryodrgn", tmp_path / "drgn")
    other = "relion" if origin == "cryosparc" else "cryosparc"
    export(output, other, tmp_path / "other")
    loaded = {path.stem: pickle.loads(path.read_bytes()) for path in (tmp_path / "drgn").iterdir()}
    labels = loaded["labels"]
    tables = [pq.read_table(path) for path in (output / "particles").rglob("*.parquet")]
    for k in range(2):
        assert loaded[f"ind_superclass_{k}"].tolist() == np.flatnonzero(labels == k).tolist()
    assert (labels >= 0).sum() == sum(table.num_rows for table in tables)
    rotation, translation = loaded["poses"]
    assert rotation.dtype == translation.dtype == np.float32
    inside = labels >= 0
    if other == "relion":
        blocks = read(tmp_path / "other" / "regrouped_particles.star")
        table = blocks["particles"]
        # cryoDRGN's rotation is RELION's A = P^T; its translation the shift as a fraction of the box.
        expected = Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(), degrees=True).inv().as_matrix()
        shift = table[ORIGINS].to_numpy() / (PIXEL * BOX)
        ctf = table[["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]].to_numpy()
        beside = [[BOX, PIXEL], [300, 2.7, 0.07]]
    else:
        table = np.load(tmp_path / "other" / "regrouped_particles.cs")
        expected = Rotation.from_rotvec(table["alignments3D/pose"].astype(float)).inv().as_matrix()
        shift = table["alignments3D/shift"] / 96
        ctf = np.c_[table["ctf/df1_A"], table["ctf/df2_A"], np.degrees(table["ctf/df_angle_rad"])]
        beside = None
    np.testing.assert_allclose(rotation[inside], expected, atol=1e-5)
    np.testing.assert_allclose(translation[inside], shift, atol=1e-6)
    np.testing.assert_allclose(loaded["ctf"][inside, 2:5], ctf, rtol=1e-5)
    assert loaded["ctf"].shape == (len(labels), 9)
    if beside is not None:
        np.testing.assert_allclose(loaded["ctf"][:, :2], np.tile(beside[0], (len(labels), 1)), rtol=1e-6)
        np.testing.assert_allclose(loaded["ctf"][:, 5:8], np.tile(beside[1], (len(labels), 1)), rtol=1e-6)
    if other == "relion":
        table = read(tmp_path / "other" / "remaining_particles.star")["particles"]
        expected = Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(), degrees=True).inv().as_matrix()
    else:
        table = read(output / "relion" / "regrouped_particles.star")["particles"]
        table = table[table["rlnClassNumber"] == 4]
        expected = Rotation.from_euler("ZYZ", table[ANGLES].to_numpy(), degrees=True).inv().as_matrix()
        np.testing.assert_allclose(translation[~inside] * 96 * np.where(table["rlnOpticsGroup"] == 2, 1.4, 1.25)[:, None],
                                   table[ORIGINS], atol=1e-4)  # fmt: skip
    np.testing.assert_allclose(rotation[~inside], expected, atol=1e-5)


def test_places_are_kept_where_micrographs_were_flipped(tmp_path, cryosparc_output, relion_output):
    records, _, output = cryosparc_output
    export(output, "relion", tmp_path / "relion", flip_y=False)
    table = read(tmp_path / "relion" / "regrouped_particles.star")["particles"]
    kept = records[records["alignments3D_multi/class_posterior"].argmax(axis=1) != 3]
    np.testing.assert_allclose(table["rlnCoordinateY"], kept["location/center_y_frac"] * MICROGRAPH[1], atol=1e-2)
    found = {}
    for flip_y in (True, False):
        export(relion_output[1], "cryosparc", tmp_path / f"{flip_y}", micrograph_size=MICROGRAPH, flip_y=flip_y)
        found[flip_y] = np.load(tmp_path / f"{flip_y}" / "regrouped_particles.cs")["location/center_y_frac"]
    np.testing.assert_allclose(found[True], 1 - found[False], atol=1e-6)


def test_aberrations_without_a_published_conversion_are_told(tmp_path):
    records = cryosparc_records(60)
    records["ctf/trefoil_A"] = 12
    _, output = from_cryosparc(tmp_path / "cs", records)
    assert any("ctf/trefoil_A" in note for note in export(output, "relion", tmp_path / "relion").notes)
    source = open_particles(write_rich_star(tmp_path / "a.star", n=40, zernike="[0,0,0.25,0,0,0]"))
    output = regrouped(tmp_path, source)
    (output / "relion").mkdir()
    (output / "relion" / "regrouped_particles.star").write_bytes((tmp_path / "a.star").read_bytes())
    assert any("rlnOddZernike" in note for note in export(output, "cryosparc", tmp_path / "cryosparc").notes)


def test_one_half_is_no_split(tmp_path):
    records = cryosparc_records(60)
    records["alignments3D_multi/split"] = 0
    _, output = from_cryosparc(tmp_path / "cs", records)
    export(output, "relion", tmp_path / "relion")
    assert "rlnRandomSubset" not in read(tmp_path / "relion" / "regrouped_particles.star")["particles"]


def test_relion_3_0_takes_its_box_from_the_maps(tmp_path):
    from tests.small_job import write_map

    text = (tmp_path / "old.star", "data_\n\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n_rlnAngleRot #3\n_rlnAngleTilt #4\n"
            "_rlnAnglePsi #5\n_rlnOriginX #6\n_rlnOriginY #7\n_rlnMagnification #8\n_rlnDetectorPixelSize #9\n")
    rows = "".join(f"{i + 1}@s.mrcs {i % 2 + 1} {i} 20 30 1.5 -2 50000 7.0\n" for i in range(10))
    text[0].write_text(text[1] + rows)
    output = regrouped(tmp_path, open_particles(text[0]), labels=[0, 1], poses=None)
    with pytest.raises(InputError, match="box of their images"):
        export(output, "relion", tmp_path / "none")
    volume = np.random.default_rng(0).normal(size=(16, 16, 16)).astype("f4")
    for k in range(2):
        write_map(output / "volumes" / f"superclass_{k:03d}.mrc", volume, 2.8)
    export(output, "relion", tmp_path / "relion")
    blocks = read(tmp_path / "relion" / "regrouped_particles.star")
    assert blocks["optics"][["rlnImagePixelSize", "rlnImageSize"]].to_numpy().tolist() == [[1.4, 32]]
    np.testing.assert_allclose(blocks["particles"][ORIGINS], np.tile([2.1, -2.8], (10, 1)), atol=1e-6)
    model = read(tmp_path / "relion" / "model.star")["model_classes"]
    assert model["rlnReferenceImage"].tolist() == [str(tmp_path / "relion" / f"run_it000_class00{k}.mrc") for k in (1, 2)]


def test_names_with_spaces_and_quotes_are_one_value(tmp_path):
    records = cryosparc_records(60)
    records["blob/path"][:4] = [b"J1/my stack.mrc", b'J1/"q".mrc', b"J1/a'b c.mrc", b"#1.mrc"]
    records["alignments3D_multi/class_posterior"][:4] = [1, 0, 0, 0]
    records["location/micrograph_path"][1] = b"a b.mrc"
    _, output = from_cryosparc(tmp_path / "cs", records)
    export(output, "relion", tmp_path / "relion")
    table = open_particles(tmp_path / "relion" / "regrouped_particles.star").to_table(["rlnImageName", "rlnMicrographName"])
    rows = {row["rlnImageName"]: row["rlnMicrographName"] for row in table.to_pylist()}
    assert {"000001@J1/my stack.mrc", "000003@J1/a'b c.mrc", "000004@#1.mrc"} <= set(rows)
    assert rows['000002@J1/"q".mrc'] == "a b.mrc"


def test_what_cannot_be_exported(tmp_path, cryosparc_output):
    _, _, output = cryosparc_output
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists"):
        export(output, "relion", tmp_path / "there")
    with pytest.raises(InputError, match="has no particles/superclass=K"):
        export(tmp_path, "relion", tmp_path / "new")
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"uid": [1, 2, 3, 4], "class_id": [0, 1, 2, 3]}), bare)
    (tmp_path / "second").mkdir()
    nameless = regrouped(tmp_path / "second", open_particles(bare))
    with pytest.raises(InputError, match="name no images"):
        export(nameless, "relion", tmp_path / "new")
    assert {path.name for path in export(nameless, "cryodrgn", tmp_path / "labels").files} == {
        "labels.pkl", "ind_superclass_0.pkl", "ind_superclass_1.pkl",
    }  # fmt: skip
    records = cryosparc_records(40)
    records["blob/psize_A"] = 0
    _, no_pixel = from_cryosparc(tmp_path / "third", records)
    with pytest.raises(InputError, match="do not say the pixel size"):
        export(no_pixel, "relion", tmp_path / "new")
    lost = next((output / "particles").rglob("*.parquet"))
    lost.unlink()
    with pytest.raises(InputError, match="each row of the input once"):
        export(output, "relion", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.partial").exists()


# Rotations at the poles of Euler angles and at half a turn, where conventions meet their edges.
edges = st.sampled_from([(0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0), (0.6, 0.8, 0), (0, -1e-9, 0), (0, 0, -0.5)])
rotations = st.one_of(
    edges.map(lambda axis: np.pi * np.array(axis)),
    st.integers(0, 2**31).map(lambda seed: Rotation.random(rng=seed).as_rotvec()),
)
particles = st.tuples(
    rotations, st.floats(-500, 500), st.integers(0, 2**31), st.integers(0, 3), st.text("abJ0_-./ é'", min_size=1, max_size=12)
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(particles, min_size=2, max_size=12))
def test_every_row_once_in_order_with_its_pose_in_every_program(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    records = cryosparc_records(len(rows))
    for row, (vector, shift, index, class_id, name) in enumerate(rows):
        records["alignments3D_multi/pose"][row], records["alignments3D_multi/shift"][row] = vector, (shift, -shift / 3)
        records["alignments3D_multi/class_posterior"][row] = np.eye(4)[class_id]
        records["blob/idx"][row], records["blob/path"][row] = index, f"J1{name}".encode()
    source = open_particles(save(folder / "p.cs", records), fragment_rows=5)
    output = regrouped(folder, source, poses=None)
    best = np.array([row[3] for row in rows])
    label = np.array(LABELS)[best]
    for side in ("relion", "cryodrgn"):
        export(output, side, folder / side)
    loaded = {path.stem: pickle.loads(path.read_bytes()) for path in (folder / "cryodrgn").iterdir()}
    assert loaded["labels"].tolist() == label.tolist()
    pose = records["alignments3D_multi/pose"][np.arange(len(rows)), best].astype(float)
    matrix = Rotation.from_rotvec(pose).inv().as_matrix()
    shift = records["alignments3D_multi/shift"][np.arange(len(rows)), best]
    np.testing.assert_allclose(loaded["poses"][0], matrix, atol=2e-6)
    np.testing.assert_allclose(loaded["poses"][1] * BOX, shift, rtol=1e-6, atol=1e-5)
    names = [f"{int(i) + 1:06d}@{p.decode()}" for i, p in zip(records["blob/idx"], records["blob/path"], strict=True)]
    for file, inside in (("regrouped_particles", label >= 0), ("remaining_particles", label < 0)):
        lines = [line for line in (folder / "relion" / f"{file}.star").read_text().splitlines() if "@J1" in line]
        assert len(lines) == inside.sum()
        for line, row in zip(lines, np.flatnonzero(inside), strict=True):
            assert names[row].rstrip() in line.replace('"', "").replace("'", "'")
            angles, origin = np.array(line.split()[-5:-2], float), np.array(line.split()[-2:], float)
            found = Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix()
            np.testing.assert_allclose(found, matrix[row], atol=2e-6)
            np.testing.assert_allclose(origin, shift[row] * PIXEL, rtol=1e-5, atol=2e-6)
