import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import starfile
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from regroup_dask.cli import main
from regroup_dask.errors import InputError
from regroup_dask.formats.cryosparc import outputs as cryosparc
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import outputs as relion
from regroup_dask.steps.exporting import export
from tests.formats.cryosparc.making import make_particles, save
from tests.formats.relion.regrouping import plan_for, random_pose, regroup, write_star

POSES = {1: random_pose(1), 2: random_pose(2, mirrored=True)}
LABELS = [0, 0, 1, -1]
PIXEL = 1.5


def arrow(tmp_path, source):
    from regroup_dask.formats import parquet_particles

    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "OUT", parquet_particles)
    for path in (tmp_path / "OUT" / "volumes").iterdir():
        path.unlink()
    return tmp_path / "OUT"


@pytest.fixture
def from_cryosparc(tmp_path):
    records, _ = make_particles(200, 4, "multi", np.random.default_rng(3))
    records["blob/psize_A"], records["blob/shape"] = PIXEL, 64
    records["blob/path"] = [f">J1/extract/p_{i % 3}.mrc".encode() for i in range(200)]
    records["blob/idx"] = np.arange(200)
    source = open_particles(save(tmp_path / "p.cs", records), fragment_rows=60)
    return records, source, arrow(tmp_path, source)


def test_cryosparc_to_relion(tmp_path, from_cryosparc):
    records, source, output = from_cryosparc
    export(output, "relion", tmp_path / "relion")
    plan = plan_for(source, LABELS, POSES)
    regroup(source, plan, tmp_path / "own", cryosparc)
    for name in ("regrouped_particles", "particles_superclass_0", "particles_superclass_1"):
        own = np.load(tmp_path / "own" / "cryosparc" / f"{name}.cs", max_header_size=10**6)
        blocks = starfile.read(tmp_path / "relion" / f"{name}.star", always_dict=True)
        table = blocks["particles"]
        assert blocks["optics"]["rlnImagePixelSize"].unique().tolist() == [PIXEL]
        assert blocks["optics"]["rlnImageSize"].unique().tolist() == [64]
        expected = [f"{i + 1:06d}@{p.decode()[1:]}" for i, p in zip(own["blob/idx"], own["blob/path"], strict=True)]
        assert table["rlnImageName"].tolist() == expected
        assert (table["rlnClassNumber"] - 1).tolist() == own["alignments3D/class"].tolist()
        # RELION's matrix is the transpose of that of CryoSPARC's rotation vector; origins are shifts in angstrom.
        angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
        a = Rotation.from_euler("ZYZ", angles, degrees=True)
        p = Rotation.from_rotvec(own["alignments3D/pose"].astype(float))
        assert (a.inv() * p).magnitude().max() < 1e-5
        shift = own["alignments3D/shift"] * own["alignments3D/psize_A"][:, None]
        np.testing.assert_allclose(table[["rlnOriginXAngst", "rlnOriginYAngst"]], shift, atol=1e-4)
        np.testing.assert_allclose(table["rlnDefocusU"], own["ctf/df1_A"], atol=1e-5)
    remaining = starfile.read(tmp_path / "relion" / "remaining_particles.star", always_dict=True)["particles"]
    assert len(remaining) == (records["alignments3D_multi/class_posterior"].argmax(axis=1) == 3).sum()
    # What is written is read again.
    again = open_particles(tmp_path / "relion" / "regrouped_particles.star")
    assert again.voxel_size_angstrom == PIXEL


def test_relion_to_cryosparc(tmp_path):
    from cryosparc.dataset import Dataset

    source = open_particles(write_star(tmp_path / "a.star", n=120, n_classes=4), fragment_rows=50)
    output = arrow(tmp_path, source)
    (output / "relion").mkdir()
    (output / "relion" / "regrouped_particles.star").write_bytes((tmp_path / "a.star").read_bytes())
    # RELION's side is there, and so copied; its optics groups serve the others.
    assert export(output, "relion", tmp_path / "copied").files
    export(output, "cryosparc", tmp_path / "cryosparc")
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", relion)
    table = starfile.read(tmp_path / "own" / "relion" / "regrouped_particles.star", always_dict=True)["particles"]
    found = Dataset.load(tmp_path / "cryosparc" / "regrouped_particles.cs")
    names = [f"{i + 1:06d}@{path}" for i, path in zip(found["blob/idx"], found["blob/path"], strict=True)]
    assert names == table["rlnImageName"].tolist()
    assert len(set(found["uid"])) == len(found)
    angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    p = Rotation.from_rotvec(found["alignments3D/pose"].astype(float))
    assert (Rotation.from_euler("ZYZ", angles, degrees=True).inv() * p).magnitude().max() < 1e-5
    shift = found["alignments3D/shift"] * found["alignments3D/psize_A"][:, None]
    np.testing.assert_allclose(shift, table[["rlnOriginXAngst", "rlnOriginYAngst"]], atol=1e-4)
    assert found["alignments3D/psize_A"][0] == 1.25
    group = open_particles(tmp_path / "cryosparc" / "regrouped_particles.csg")
    assert group.count_rows() == len(found)


def test_to_cryodrgn(tmp_path, from_cryosparc):
    records, _, output = from_cryosparc
    done = CliRunner().invoke(main, ["export", str(output), "--to", "cryodrgn", "-o", str(tmp_path / "drgn")])
    assert done.exit_code == 0, done.output
    best = records["alignments3D_multi/class_posterior"].argmax(axis=1)
    labels = pickle.loads((tmp_path / "drgn" / "labels.pkl").read_bytes())
    assert labels.tolist() == np.array(LABELS)[best].tolist()
    for k in range(2):
        rows = pickle.loads((tmp_path / "drgn" / f"ind_superclass_{k}.pkl").read_bytes())
        assert rows.tolist() == np.flatnonzero(labels == k).tolist()


def test_what_cannot_be_exported(tmp_path, from_cryosparc):
    _, _, output = from_cryosparc
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists"):
        export(output, "relion", tmp_path / "there")
    with pytest.raises(InputError, match="has no particles/superclass=K"):
        export(tmp_path, "relion", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"uid": [1, 2, 3, 4], "class_id": [0, 1, 2, 3]}), bare)
    nameless = arrow(tmp_path / "second", open_particles(bare))
    with pytest.raises(InputError, match="name no images"):
        export(nameless, "relion", tmp_path / "new")
    assert not any(path.name.startswith(".new") for path in tmp_path.iterdir())
