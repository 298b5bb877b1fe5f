"""The commands of view.cxc, carried out here as ChimeraX's documentation says, put every map where the result has it."""

import os
import re
import shlex
import shutil

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import regroup_dask as rd
from regroup_dask.report.chimerax import write_view
from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.surface import surface_threshold
from regroup_dask.steps.moved_inputs import remember_places
from tests import small_job
from tests.report.output_folder import write_output

NUMBER, HEX_COLOUR = r"-?\d+(\.\d+)?(e[+-]?\d+)?", "#[0-9a-f]{6}"
MODEL, TOP_MODEL = r"#\d+\.\d+", r"#\d+(\.\d+)?"
MATRIX = rf"{TOP_MODEL}(,{NUMBER}){{12}}"
# What the script uses of each command, word by word as ChimeraX registers it (its volume, volume flip, open, rename, hide, view
# matrix, view and lighting commands): options may come in any order, each with a value of this form.
GRAMMAR = {
    ("open", "FILE"): {"id": MODEL, "name": ".+"},
    ("volume", "flip", MODEL): {"axis": "xyz", "modelId": MODEL},
    ("volume", MODEL): {
        "voxelSize": NUMBER,
        "originIndex": r"-?\d+,-?\d+,-?\d+",
        "level": NUMBER,
        "color": HEX_COLOUR,
        "transparency": r"0(\.\d+)?|1",
    },
    ("rename", TOP_MODEL, ".+"): {},
    ("hide", MODEL, "models"): {},
    ("view", "matrix"): {"models": MATRIX},
    ("view",): {},
    ("view", "orient"): {},
    ("lighting", "soft"): {},
}


def is_known(words):
    """Whether a command is one of the grammar, with its options and the form of their values."""
    for form, options in GRAMMAR.items():
        head, rest = words[: len(form)], words[len(form) :]
        fits = len(head) == len(form) and all(
            part == "FILE" or re.fullmatch(part, word) for part, word in zip(form, head, strict=True)
        )
        if fits and len(rest) % 2 == 0 and bool(rest) == bool(options):
            names = rest[::2]
            values = dict(zip(names, rest[1::2], strict=True))
            if set(names) <= set(options) and all(re.fullmatch(options[name], values[name]) for name in names):
                return len(names) == len(values)
    return False


class Model:
    """A map in the scene: voxel i is at (i - origin) * voxel size, moved by matrix."""

    def __init__(self, name, volume, path):
        self.name, self.volume, self.path = name, volume, path
        self.matrix, self.origin, self.voxel_size = np.eye(3, 4), np.zeros(3), 1.0
        self.hidden, self.level, self.colour, self.reversed = False, None, None, False

    def at(self, points):
        """Density at points of the scene, (n, 3) in x, y, z."""
        own = (points - self.matrix[:, 3]) @ np.linalg.inv(self.matrix[:, :3]).T
        index = own / self.voxel_size + self.origin
        return map_coordinates(self.volume.astype(float), index.T[::-1], order=3)

    def carried(self, points):
        """Where points of the map's own frame, about voxel n // 2, are in the scene."""
        own = -points if self.reversed else points
        return own @ self.matrix[:, :3].T + self.matrix[:, 3]


def carry_out(script):
    """Models and groups after the commands of a script, by their numbers."""
    models, groups = {}, {}
    for line in script.read_text().splitlines():
        words = shlex.split(line, comments=line.startswith("#"))
        # Outside quotes a semicolon begins another command.
        assert not words or (is_known(words) and ";" not in re.sub('"[^"]*"', "", line)), line
        if not words or words[0] in ("lighting",) or words == ["view"] or words == ["view", "orient"]:
            continue
        if words[0] == "open":
            path = os.path.join(script.parent, words[1])
            with mrcfile.open(path) as stream:
                volume = stream.data.copy()
            assert words[2::2] == ["id", "name"]
            models[words[3]] = Model(words[5], volume, path)
        elif words[:2] == ["volume", "flip"]:
            assert words[3:6] == ["axis", "xyz", "modelId"]
            source = models[words[2]]
            models[words[6]] = Model(source.name, source.volume[::-1, ::-1, ::-1], source.path)
            models[words[6]].reversed = True
        elif words[0] == "volume":
            model, options = models[words[1]], dict(zip(words[2::2], words[3::2], strict=True))
            model.voxel_size = float(options["voxelSize"])
            model.origin = np.array([int(value) for value in options["originIndex"].split(",")])
            model.level, model.colour = float(options["level"]), options["color"]
        elif words[:3] == ["view", "matrix", "models"]:
            number, *values = words[3].split(",")
            matrix = np.array([float(value) for value in values]).reshape(3, 4)
            if number in models:
                models[number].matrix = matrix
            else:
                groups.setdefault(number, {})["matrix"] = matrix
        elif words[0] == "rename":
            if words[1] in models:
                models[words[1]].name = words[2]
            else:
                groups.setdefault(words[1], {})["name"] = words[2]
        elif words[0] == "hide":
            models[words[1]].hidden = words[2] == "models"
        else:
            raise AssertionError(f"unknown command: {line}")
    return models, groups


@pytest.fixture(scope="module", params=[24, 25], ids=["even box", "odd box"])
def run(request, tmp_path_factory):
    """Aligned classes of two structures; one class, and with it half of a superclass, is of the other hand."""
    job = small_job.make_job(structures=2, members=3, mirrored=(4,), box=request.param, seed=3)
    folder = tmp_path_factory.mktemp("a project")
    source = small_job.write_cryosparc(job, folder / "J 10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regroup_dask.pipeline.write_page", lambda folder: folder / "report.html")
        result = rd.regroup(str(source / "*_volume.mrc"), n_superclasses=2, align=True, output=folder / "the OUT")
    return job, result, carry_out(result.output / "view.cxc")


def members_of(models, group):
    return {
        int(re.fullmatch(r"class (\d+)(, other hand)?", model.name)[1]): model
        for number, model in models.items()
        if number.startswith(f"{group}.") and model.name.startswith("class") and model.level is not None
    }


def test_classes_lie_on_each_other_and_on_their_average(run):
    job, result, (models, groups) = run
    assert len(groups) == 2
    seen = 0
    for number, group in enumerate(sorted(groups)):
        assert groups[group]["name"] == f"superclass {number}"
        average, members = models[f"{group}.1"], members_of(models, group)
        rows = [row for row in result.classes.to_pylist() if row["superclass"] == number]
        assert sorted(members) == sorted(row["class_id"] for row in rows)
        # The balls of every class, by the truth, are in one place of the scene.
        places = [model.carried(job.balls(class_id)) for class_id, model in members.items()]
        assert max(np.abs(place - places[0]).max() for place in places) < 0.6
        # And the densities of the classes average to the density of the superclass there.
        points = (np.random.default_rng(0).uniform(-0.3, 0.3, (4000, 3))) * job.box * job.voxel_size
        total = np.mean([model.at(points) for model in members.values()], axis=0)
        assert np.corrcoef(total, average.at(points))[0, 1] > 0.98
        seen += sum(model.reversed for model in members.values())
    assert seen >= 1


def test_superclasses_stand_side_by_side_in_their_colours(run):
    job, _, (models, groups) = run
    places = [groups[group]["matrix"] for group in sorted(groups)]
    for matrix in places:
        np.testing.assert_array_equal(matrix[:, :3], np.eye(3))
    apart = np.linalg.norm(places[1][:, 3] - places[0][:, 3])
    widest = max(2 * np.linalg.norm(job.balls(class_id), axis=1).max() for class_id in range(len(job.maps)))
    assert apart > widest
    for number, group in enumerate(sorted(groups)):
        assert models[f"{group}.1"].colour == superclass_colour(number)
        assert not models[f"{group}.1"].hidden
        assert all(model.hidden and model.colour == superclass_colour(number) for model in members_of(models, group).values())


def test_surfaces_are_at_the_thresholds_of_the_report(run):
    _, _, (models, groups) = run
    for group in groups:
        average = models[f"{group}.1"]
        assert average.level == pytest.approx(surface_threshold(average.volume), rel=1e-4)
        for model in members_of(models, group).values():
            assert model.volume.min() < model.level < model.volume.max()


def test_a_folder_that_moves_as_a_whole_still_opens(run, tmp_path):
    _, result, (models, _) = run
    project = shutil.copytree(result.output.parent, tmp_path / "elsewhere")
    moved, _ = carry_out(project / result.output.name / "view.cxc")
    assert sorted(moved) == sorted(models)
    assert all(os.path.realpath(model.path).startswith(str(project)) for model in moved.values())


def test_classes_whose_files_are_gone_are_left_out(run, tmp_path):
    _, result, (models, _) = run
    output = shutil.copytree(result.output, tmp_path / "OUT")
    source = result.output.parent / "J 10"
    remember_places(output, [(str(source), str(shutil.copytree(source, tmp_path / "J")))])
    gone = sorted((tmp_path / "J").glob("*_volume.mrc"))[3]
    gone.unlink()
    fewer, groups = carry_out(write_view(output))
    assert len(groups) == 2
    assert {model.name for model in models.values()} - {model.name for model in fewer.values()} == {"class 3"}


def test_without_superclass_maps_there_is_no_script(tmp_path):
    output = write_output(tmp_path / "OUT", volumes=False)
    (output / "view.cxc").write_text("old")
    assert write_view(output) is None
    assert not (output / "view.cxc").exists()
