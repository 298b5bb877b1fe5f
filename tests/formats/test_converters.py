"""Other people's programs read what is written: cryosparc-tools, starfile, and cs2star with pyem.

cs2star (PyPI) reads job folders by itself, and converts with pyem, which is not on PyPI:
``pip install git+https://github.com/brisvag/pyem``. Where the two live in another environment, the variable
REGROUP_DASK_CS2STAR says where its cs2star is. What both said once is recorded in test_published_conventions, which
needs neither.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from regroup_dask.formats.cryosparc import outputs as cryosparc
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.relion import outputs as relion
from regroup_dask.steps.exporting import export
from tests.formats.relion.regrouping import plan_for, regroup
from tests.steps.rich_particles import (
    LABELS,
    MICROGRAPH,
    POSES,
    cryosparc_records,
    from_cryosparc,
    regrouped,
    write_rich_star,
)

ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
ORIGINS = ["rlnOriginXAngst", "rlnOriginYAngst"]
CTF = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"]


@pytest.fixture(scope="module")
def cs2star():
    """Path of a cs2star that finds pyem."""
    beside = Path(sys.executable).with_name("cs2star")
    named = os.environ.get("REGROUP_DASK_CS2STAR")
    found = named or (str(beside) if beside.is_file() else shutil.which("cs2star"))
    if not found:
        pytest.skip("cs2star is not installed: pip install cs2star")
    python = Path(found).with_name("python")
    if subprocess.run([str(python), "-c", "import pyem.metadata, pyem.star"], capture_output=True).returncode:
        pytest.skip("cs2star converts with pyem, which is not on PyPI: pip install git+https://github.com/brisvag/pyem")
    return found


def make_job(folder, particles):
    """A CryoSPARC job of these files, as its job.json lists them; a passthrough file with the uid alone is added."""
    job = folder / "P1" / "J5"
    job.mkdir(parents=True)
    shutil.copy(particles, job / "regrouped_particles.cs")
    records = np.load(particles, max_header_size=10**6)
    with open(job / "passthrough_particles.cs", "wb") as stream:
        np.save(stream, records[["uid", "blob/idx"]])
    results = [
        {"metafiles": [f"J5/{name}.cs"], "passthrough": name.startswith("pass"), "group_name": "regrouped_particles"}
        for name in ("regrouped_particles", "passthrough_particles")
    ]
    content = {"type": "regroup_3D_new", "uid": "J5", "parents": [], "output_results": results}
    (job / "job.json").write_text(json.dumps(content))
    return job


def converted(cs2star, tmp_path, particles):
    """The star file that cs2star makes of a .cs file, by image."""
    job = make_job(tmp_path, particles)
    # CryoSPARC counts y from the other edge than RELION: --inverty, which pyem's own csparc2star.py does by default.
    done = subprocess.run([cs2star, str(job), str(tmp_path / "star"), "--inverty"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return blocks_by_image(tmp_path / "star" / "particles.star")


def blocks_by_image(path):
    blocks = starfile.read(path, always_dict=True)
    return blocks["particles"].set_index("rlnImageName").sort_index(), blocks["optics"].set_index("rlnOpticsGroup")


def assert_same_particles(ours, theirs):
    """Compare tables of two star files; theirs rounds places to pixels."""
    (table, optics), (expected, expected_optics) = ours, theirs
    assert table.index.tolist() == expected.index.tolist()
    rotation, other = (Rotation.from_euler("ZYZ", item[ANGLES].to_numpy(), degrees=True) for item in (table, expected))
    assert (rotation.inv() * other).magnitude().max() < 1e-5
    np.testing.assert_allclose(table[ORIGINS], expected[ORIGINS], atol=1e-3)
    np.testing.assert_allclose(table[CTF], expected[CTF], rtol=1e-6, atol=1e-3)
    assert table["rlnClassNumber"].tolist() == expected["rlnClassNumber"].tolist()
    assert table["rlnRandomSubset"].tolist() == expected["rlnRandomSubset"].tolist()
    assert table["rlnMicrographName"].tolist() == expected["rlnMicrographName"].tolist()
    for axis in "XY":
        assert np.abs(table[f"rlnCoordinate{axis}"] - expected[f"rlnCoordinate{axis}"]).max() <= 0.51
    for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnImageSize"):
        own = optics.loc[table["rlnOpticsGroup"], label].to_numpy()
        np.testing.assert_allclose(own, expected_optics.loc[expected["rlnOpticsGroup"], label], rtol=1e-5)


def test_cs2star_converts_a_cryosparc_run_as_the_export_does(tmp_path, cs2star):
    source, output = from_cryosparc(tmp_path / "cs", cryosparc_records())
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", cryosparc)
    export(output, "relion", tmp_path / "relion")
    theirs = converted(cs2star, tmp_path, tmp_path / "own" / "cryosparc" / "regrouped_particles.cs")
    assert_same_particles(blocks_by_image(tmp_path / "relion" / "regrouped_particles.star"), theirs)


def test_cs2star_takes_an_export_back_to_relion(tmp_path, cs2star):
    source = open_particles(write_rich_star(tmp_path / "a.star"))
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", relion)
    output = regrouped(tmp_path, source)
    (output / "relion").mkdir()
    (output / "relion" / "regrouped_particles.star").write_bytes((tmp_path / "a.star").read_bytes())
    export(output, "cryosparc", tmp_path / "cryosparc", micrograph_size=MICROGRAPH)
    theirs = converted(cs2star, tmp_path, tmp_path / "cryosparc" / "regrouped_particles.cs")
    assert_same_particles(blocks_by_image(tmp_path / "own" / "relion" / "regrouped_particles.star"), theirs)


def test_pyem_converts_beam_tilt_as_the_export_does(tmp_path, cs2star):
    source, output = from_cryosparc(tmp_path / "cs", cryosparc_records())
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", cryosparc)
    export(output, "relion", tmp_path / "relion")
    program = (
        "import sys, numpy as np\nfrom pyem.metadata import cryosparc_2_cs_ctf_parameters as convert\n"
        "cs = np.load(sys.argv[1], max_header_size=10**6)\ndf = convert(cs)\n"
        "np.savetxt(sys.argv[2], df[['rlnBeamTiltX', 'rlnBeamTiltY']].to_numpy())"
    )
    own = tmp_path / "own" / "cryosparc" / "regrouped_particles.cs"
    python = str(Path(cs2star).with_name("python"))
    subprocess.run([python, "-c", program, str(own), str(tmp_path / "tilt.txt")], check=True, capture_output=True)
    blocks = starfile.read(tmp_path / "relion" / "regrouped_particles.star", always_dict=True)
    optics = blocks["optics"].set_index("rlnOpticsGroup").loc[blocks["particles"]["rlnOpticsGroup"]]
    expected = np.loadtxt(tmp_path / "tilt.txt")
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(optics[["rlnBeamTiltX", "rlnBeamTiltY"]], expected, atol=1e-6)


def test_cs2star_finds_the_files_of_a_job(tmp_path):
    parser = pytest.importorskip("cs2star.job_parser", reason="cs2star is not installed: pip install cs2star")
    source, _ = from_cryosparc(tmp_path / "cs", cryosparc_records(60))
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", cryosparc)
    job = make_job(tmp_path, tmp_path / "own" / "cryosparc" / "regrouped_particles.cs")
    found = parser.find_cs_files(job)["particles"]
    assert found["cs"] == {job / "regrouped_particles.cs"}
    assert found["passthrough"] == {job / "passthrough_particles.cs"}


@pytest.mark.parametrize("side", ["cryosparc", "relion"])
def test_cryosparc_tools_and_starfile_read_every_file(tmp_path, side):
    from cryosparc.dataset import Dataset

    if side == "relion":
        source = open_particles(write_rich_star(tmp_path / "a.star"))
        module, own, other = relion, "relion", "cryosparc"
        output = regrouped(tmp_path, source)
    else:
        source, output = from_cryosparc(tmp_path / "cs", cryosparc_records())
        module, own, other = cryosparc, "cryosparc", "relion"
    regroup(source, plan_for(source, LABELS, POSES), tmp_path / "own", module)
    shutil.copytree(tmp_path / "own" / own, output / own)
    # Pixel sizes come from the optics groups of RELION's side.
    export(output, other, tmp_path / "exported")
    n_rows = {}
    for folder in (output / own, tmp_path / "exported"):
        for path in sorted(folder.glob("*particles*")):
            if path.suffix == ".cs":
                n_rows[path.stem, ".cs"] = len(Dataset.load(path))
            elif path.suffix == ".star":
                n_rows[path.stem, ".star"] = len(starfile.read(path, always_dict=True)["particles"])
    for name in ("regrouped_particles", "particles_superclass_0", "particles_superclass_1", "remaining_particles"):
        assert n_rows[name, ".cs"] == n_rows[name, ".star"] > 0
    assert n_rows["regrouped_particles", ".cs"] + n_rows["remaining_particles", ".cs"] == source.count_rows()
