"""What a notebook shows of a job, of particles and of a result: the facts, and nothing of the input as markup."""

import html.parser
import re

import pytest

import regroup_dask as rd
from regroup_dask.formats.job import Job
from regroup_dask.formats.job_folder import recognise_job
from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.notebook import result_html
from tests import small_job
from tests.report.output_folder import write_output

EVIL = "<script>alert('x')</script>&\"evil\""
VOID = {"img", "br"}


class Checker(html.parser.HTMLParser):
    """Collects text and pictures, and complains of tags that do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.pictures, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not checker.tags & {"script", "b>", "iframe", "link", "style"}
    assert not re.search(r"""(?:src|href)=["'](?!data:image/png)""", text)
    return checker, " ".join("".join(checker.texts).split())


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    made = small_job.make_job(structures=2, members=2, box=16, moved=False, seed=6)
    return made, small_job.write_cryosparc(made, tmp_path_factory.mktemp("notebook") / "J<10>")


def test_a_job_says_what_it_is(job):
    _, folder = job
    _, text = read(recognise_job(folder)._repr_html_())
    assert text.startswith("CryoSPARC job J<10>")
    assert "iteration42" in text
    assert "classes4: 0, 1, 2, 3" in text
    assert "cryosparc_P1_J10_class_03_00042_volume.mrc" in text


def test_particles_say_what_they_are(job):
    made, folder = job
    source = rd.open_particles(
        folder / "cryosparc_P1_J10_00042_particles.cs", passthrough=folder / "P1_J10_passthrough_particles.cs"
    )
    _, text = read(source._repr_html_())
    assert text.startswith("60 particles CryoSPARC")
    assert "classes4: 0, 1, 2, 3 (posteriors over classes)" in text
    assert "told apart byuid" in text
    assert f"{len(source.schema)} columns" in text
    assert all(name in text for name in source.schema.names)
    assert f"{made.voxel_size:g} Å" in text


@pytest.mark.parametrize("kind", ["cryosparc", "relion", "cryodrgn"])
def test_names_of_files_are_text(kind):
    folder = f"/data/{EVIL}"
    shown = Job(kind, folder, None, (f"{folder}/p.cs",), (), {0: f"{folder}/a.mrc"}, lines=(EVIL,), job_type=EVIL)
    _, text = read(shown._repr_html_())
    assert text.count(EVIL) >= 3


def test_a_result_shows_every_superclass_with_its_numbers(tmp_path):
    labels = (0, 1, 0, 1, 0, -1)
    output = write_output(tmp_path / "OUT", labels=labels, warnings=("The maps are small.",))
    checker, text = read(result_html(output))
    assert "5 classes in 2 superclasses" in text
    assert "superclass 0" in text
    assert "superclass 1" in text
    assert "0*, 2, 4" in text
    assert "1*, 3" in text
    assert "The maps are small." in text
    assert "Class 5" in text
    assert len(checker.pictures) == 6
    assert all(picture["src"].startswith("data:image/png;base64,") and picture["alt"] for picture in checker.pictures)
    assert superclass_colour(1) in result_html(output)
    assert len(result_html(output)) < 500_000


def test_a_result_without_maps_or_pairs_is_shown_without_pictures(tmp_path):
    output = write_output(tmp_path / "OUT", pairs=False, maps=False, volumes=False)
    checker, text = read(result_html(output))
    assert checker.pictures == []
    assert "superclass 1" in text


def test_a_result_that_is_gone_is_still_shown(tmp_path):
    _, text = read(result_html(tmp_path / f"no {'<b>'}folder"))
    assert "cannot be read any more" in text
    assert "no <b>folder" in text


def test_sentences_in_a_result_are_text(tmp_path):
    output = write_output(tmp_path / "OUT", warnings=(EVIL,), names=tuple(f"{EVIL}{index}" for index in range(6)))
    _, text = read(result_html(output))
    assert EVIL in text


def test_what_regroup_returns_shows_itself(job, tmp_path, monkeypatch):
    monkeypatch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
    made, _ = job
    result = rd.regroup(made.maps, n_superclasses=2, output=tmp_path / "OUT", voxel_size_angstrom=made.voxel_size)
    checker, text = read(result._repr_html_())
    assert "4 classes in 2 superclasses" in text
    assert len(checker.pictures) == 6
