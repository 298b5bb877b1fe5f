"""Nothing that a .csg, a .star, a pickle or a folder says makes us read or write outside the folders that were given."""

import os
import pickle
import zipfile
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import yaml

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats.cryosparc.result_group import read_result_group
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.volume_store import write_series_zip
from regroup_dask.steps.exporting import export
from tests import small_job
from tests.cryodrgn_folder import write_training
from tests.steps.rich_particles import cryosparc_records, from_cryosparc

OUTSIDE = [
    *("/etc/passwd", "../secret.cs", "sub/../../secret.cs", "link.cs", "linked/secret.cs", "./../secret.cs", "secret\0.cs"),
    *("..", ".", "", "a" * 5000, "a\nb.cs", "~/secret.cs", "file:///etc/passwd", "s3://bucket/secret.cs", "C:\\secret.cs"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_group_names_files_of_its_own_folder_only(tmp_path, name):
    np.save(tmp_path / "secret.npy", np.zeros(3))
    (tmp_path / "secret.npy").rename(tmp_path / "secret.cs")
    folder = tmp_path / "job"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.cs").symlink_to(tmp_path / "secret.cs")
    (folder / "linked").symlink_to(tmp_path)
    group = {"group": {"name": "p", "type": "particle"}, "results": {"blob": {"metafile": f">{name}", "num_items": 3}}}
    (folder / "p.csg").write_text(yaml.safe_dump(group))
    with pytest.raises(InputError, match=r"p\.csg"):
        read_result_group(str(folder / "p.csg"))
    with pytest.raises(InputError):
        open_particles(folder / "p.csg")


def test_a_group_runs_nothing(tmp_path):
    made = tmp_path / "made"
    (tmp_path / "p.csg").write_text(f"group: !!python/object/apply:os.mkdir ['{made}']\nresults: {{}}\n")
    with pytest.raises(InputError, match="YAML cannot be read"):
        read_result_group(str(tmp_path / "p.csg"))
    assert not made.exists()


LEADING_OUT = ["{outside}", "../outside.mrc", "Class3D/../../outside.mrc", "", "..", "a\0b.mrc", "http://x/y.mrc"]


@pytest.mark.parametrize("image", LEADING_OUT)
def test_a_model_names_maps_of_its_project_only(tmp_path, image):
    job = small_job.make_job(structures=2, members=1, n_particles=10)
    folder = small_job.write_relion(job, tmp_path / "project" / "Class3D" / "job001")
    outside = small_job.write_map(tmp_path / "outside.mrc", job.maps[0], job.voxel_size)
    model = folder / "run_it025_model.star"
    text = model.read_text()
    first = "Class3D/job001/run_it025_class001.mrc"
    assert first in text
    model.write_text(text.replace(first, image.format(outside=outside) or '""'))
    with pytest.raises(InputError, match=r"class 1 .*(leads out of|has no map|class maps beside)"):
        recognise_job(folder)
    # A map of that name beside the model is taken instead: the last part of a name is always looked for there.
    if Path(image).name == "outside.mrc":
        own = small_job.write_map(folder / "outside.mrc", job.maps[0], job.voxel_size)
        assert recognise_job(folder).volume_files[0] == str(own)


def test_image_and_micrograph_names_are_never_opened(tmp_path, monkeypatch):
    records = cryosparc_records(40)
    names = [b"/etc/passwd", b"../../../etc/shadow", b"a\nb.mrc", b"x" * 60, b">/dev/zero", b"|rm -rf ~", b"con\x01.mrc"]
    for field in ("blob/path", "location/micrograph_path"):
        records[field][: len(names)] = [name[: records.dtype[field].itemsize] for name in names]
    _, output = from_cryosparc(tmp_path / "cs", records)
    opened = []
    really_open = os.open

    def watch(path, *rest, **more):
        opened.append(os.fspath(path) if not isinstance(path, int) else "")
        return really_open(path, *rest, **more)

    monkeypatch.setattr(os, "open", watch)
    for side in ("relion", "cryodrgn"):
        export(output, side, tmp_path / side)
    assert all(str(path).startswith((str(tmp_path), "/dev/shm", "/tmp", "/proc")) for path in opened)
    again = open_particles(tmp_path / "relion" / "regrouped_particles.star").to_table(["rlnImageName"])
    best = records["alignments3D_multi/class_posterior"].argmax(axis=1)
    assert again.num_rows == (best != 3).sum()


def test_a_series_is_packed_under_plain_names(tmp_path):
    maps = []
    for number, folder in enumerate(("a", "b/../c", "deep/er")):
        path = tmp_path / folder / f"superclass_{number:03d}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        maps.append(small_job.write_map(path, np.ones((4, 4, 4), "f4") * number, 2.0))
    write_series_zip(tmp_path / "series.zip", maps)
    with zipfile.ZipFile(tmp_path / "series.zip") as archive:
        assert archive.namelist() == [f"superclass_{number:03d}.mrc" for number in range(3)]
        archive.extractall(tmp_path / "out")
    with mrcfile.open(tmp_path / "out" / "superclass_002.mrc") as found:
        assert (found.data == 2).all()


def test_links_in_an_output_folder_are_not_copied(tmp_path):
    _, output = from_cryosparc(tmp_path / "cs", cryosparc_records(40))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    (output / "cryosparc").mkdir()
    (output / "cryosparc" / "regrouped_particles.cs").write_text("x")
    (output / "cryosparc" / "leak.cs").symlink_to(tmp_path / "secret")
    (output / "cryosparc" / "leaks").symlink_to(tmp_path / "private")
    export(output, "cryosparc", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["regrouped_particles.cs"]


@pytest.mark.parametrize("where", ["there", "dangling"])
def test_an_export_does_not_write_through_a_link(tmp_path, where):
    _, output = from_cryosparc(tmp_path / "cs", cryosparc_records(40))
    (tmp_path / "there").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / where)
    with pytest.raises(InputError, match="exists"):
        export(output, "relion", tmp_path / "target")
    (tmp_path / "new.partial").symlink_to(tmp_path / "there")
    with pytest.raises(InputError, match="was not made by an export"):
        export(output, "relion", tmp_path / "new")
    assert not list((tmp_path / "there").iterdir())


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["poses.pkl", "labels.pkl", "config.yaml"])
def test_a_training_folder_runs_nothing(tmp_path, file):
    kmeans = write_training(small_job.make_job(structures=2, members=1, n_particles=10), tmp_path / "training")
    made = tmp_path / "made"
    if file == "config.yaml":
        (tmp_path / "training" / file).write_text(f"dataset_args: !!python/object/apply:os.mkdir ['{made}']\n")
        assert recognise_job(kmeans).particle_files == (str(kmeans / "labels.pkl"),)
    elif file == "poses.pkl":
        (tmp_path / "training" / file).write_bytes(pickle.dumps((np.eye(3), Hostile(made))))
        with pytest.warns(RegroupWarning, match=r"poses are not used: .*mkdir"):
            assert recognise_job(kmeans).particle_files == (str(kmeans / "labels.pkl"),)
    else:
        (kmeans / file).write_bytes(pickle.dumps([1, Hostile(made)]))
        with pytest.raises(InputError, match="mkdir"):
            recognise_job(kmeans)
    assert not made.exists()
