"""view.cxc: commands by which ChimeraX opens a result, superclass by superclass, the classes aligned beneath.

Facts of ChimeraX that the commands rely on: ``volume originIndex`` says which voxel is the origin, whatever the header of
the map says; ``view matrix models`` sets a position relative to the parent model, as the rows of a 3 x 4 matrix that acts
on coordinates in angstrom; ``volume flip axis xyz`` reverses the order of the voxels on all axes and leaves the grid where
it is; and a script is run in its own folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from regroup_dask.formats import storage, storing
from regroup_dask.report.aligned_members import move_classes, voxel_size_of
from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.common_frame import poses_to_first
from regroup_dask.report.output_contents import OutputContents, read_output
from regroup_dask.report.superclass_views import LARGEST_READ_BYTES, superclass_maps, surface_extent
from regroup_dask.report.surface import surface_threshold, without_dust
from regroup_dask.science.rotations import Pose, compose_pose, identity_pose, quaternion_to_matrix

SCRIPT = "view.cxc"
OPENED_BY_CHIMERAX = (".mrc", ".map", ".ccp4")
# Far from the numbers of what is open already.
FIRST_MODEL = 101
REVERSED_FROM = 1000
GAP = 1.15
CLASS_TRANSPARENCY = 0.6


class PlacedMap(NamedTuple):
    """A map as ChimeraX shall show it.

    Attributes
    ----------
    path
        As written in the script.
    name
        For the list of models.
    box, voxel_size_angstrom
        Of the file.
    threshold
        Density of the surface.
    pose
        From the map's own frame into the one that all are shown in.
    """

    path: str
    name: str
    box: int
    voxel_size_angstrom: float
    threshold: float
    pose: Pose


def write_view(folder: Path) -> Path | None:
    """Write ``view.cxc`` into an output folder; None, and no file, where there are no superclass maps.

    Parameters
    ----------
    folder
        An output folder with volumes/; class maps are shown where their files can be read, which ChimeraX cannot do
        in an object store: copy such a folder to disk and open the view there.
    """
    folder = storage.location(folder)
    target = folder / SCRIPT
    text = view_commands(read_output(folder))
    if text is None:
        storing.remove_file(target)
        return None
    storing.write_bytes(target, text.encode())
    return target


def view_commands(contents: OutputContents) -> str | None:
    """Return the commands, or None where there are no superclass maps to open."""
    files = [contents.folder / row["volume"] for row in contents.superclasses]
    if contents.volumes is None or not files or not all(storage.is_file(path) for path in files):
        return None
    large = contents.volumes["density"].nbytes > LARGEST_READ_BYTES
    moved = move_classes(contents.class_maps, contents.groups) if large and contents.class_maps is not None else None
    small = superclass_maps(contents.volumes, moved, contents.groups)
    if small is None:
        return None
    thresholds = [surface_threshold(volume) for volume in small.values]
    frames = poses_to_first(contents.pairs, contents.groups) or [identity_pose()] * len(files)
    box = int(contents.volumes["density"].sizes["x"])
    voxel_size = float(contents.volumes.attrs["voxel_size_angstrom"])
    columns = int(np.ceil(np.sqrt(len(files))))
    spacing = GAP * _width(small, thresholds)
    lines = _heading()
    members = _members(contents, frames, box, voxel_size)
    for number, (row, threshold, frame) in enumerate(zip(contents.superclasses, thresholds, frames, strict=True)):
        model = FIRST_MODEL + number
        shown = PlacedMap(row["volume"], f"superclass {number} map", box, voxel_size, threshold, frame)
        lines += ["", f"# superclass {number}: {_classes(contents, number)}"]
        lines += _open(model, 1, shown, superclass_colour(number))
        lines += [
            f'rename #{model} "superclass {number}"',
            f"view matrix models #{model},{_matrix(np.eye(3), _place(number, columns, spacing))}",
        ]
    lines += ["", "lighting soft", "view orient", "view"]
    if any(members):
        lines += ["", "# the classes, each moved as its superclass's average has it, hidden at first; to see those of one:"]
        most = max(len(placed) for placed in members)
        lines += [f"#     show #{FIRST_MODEL}.2-{most + 1} models"]
        for number, placed in enumerate(members):
            for position, entry in enumerate(placed, 2):
                colour = superclass_colour(number)
                lines += _open(FIRST_MODEL + number, position, entry, colour, transparency=CLASS_TRANSPARENCY)
                lines.append(f"hide #{FIRST_MODEL + number}.{position} models")
    return "\n".join(lines) + "\n"


def _heading() -> list[str]:
    return [
        "# Made by regroup-dask. Open it with ChimeraX (File > Open, or: chimerax view.cxc).",
        f"# Superclass K is model #{FIRST_MODEL}+K: its map, and its classes as submodels, in the colour of report.html.",
        "# Surfaces are at a quarter of the way from the solvent to the densest 0.2 %, and above the noise of the solvent.",
        "# The maps are turned for the view only: all superclasses as superclass 0, side by side.",
    ]


def _members(contents: OutputContents, frames: list[Pose], box: int, voxel_size: float) -> list[list[PlacedMap]]:
    """Readable class maps of each superclass, largest first."""
    found: list[list[PlacedMap]] = [[] for _ in frames]
    if contents.class_maps is None:
        return found
    known = set(contents.class_maps["class_id"].values.tolist())
    rows = sorted(contents.classes, key=lambda row: (-(row["n_particles"] or 0), row["class_id"]))
    for row in rows:
        number, path = row["superclass"], str(row["volume"])
        readable = path.lower().endswith(OPENED_BY_CHIMERAX) and os.path.isfile(path) and not {'"', "\\"} & set(path)
        if number < 0 or not readable or row["class_id"] not in known:
            continue
        density = contents.class_maps["density"].sel(class_id=row["class_id"]).values
        pose = Pose(
            quaternion_to_matrix(np.array(row["rotation_quaternion"])),
            np.array(row["shift_angstrom"], np.float64),
            bool(row["mirrored"]),
        )
        found[number].append(
            PlacedMap(
                _path_in_script(path, contents.folder),
                f"class {row['class_id']}",
                box,
                voxel_size,
                surface_threshold(density),
                compose_pose(frames[number], pose),
            )
        )
    return found


def _open(parent: int, position: int, shown: PlacedMap, colour: str, *, transparency: float = 0.0) -> list[str]:
    """Commands that open one map as submodel `position`, with the origin at voxel ``box // 2`` and at its pose."""
    origin, model = shown.box // 2, f"#{parent}.{position}"
    surface = f"level {shown.threshold:.6g} color {colour}" + (f" transparency {transparency:g}" if transparency else "")
    opened = model
    lines = []
    if shown.pose.mirrored:
        # The reversed copy is what is shown; what it is made of stays beside it, hidden.
        opened = f"#{parent}.{REVERSED_FROM + position}"
    lines.append(f'open "{shown.path}" id {opened} name "{shown.name}"')
    if shown.pose.mirrored:
        lines.append(f"volume flip {opened} axis xyz modelId {model}")
        lines.append(f"hide {opened} models")
        lines.append(f'rename {model} "{shown.name}, other hand"')
        # Voxel i is now where voxel n - 1 - i was, and -x shall be where x was.
        origin = shown.box - 1 - origin
    lines.append(f"volume {model} voxelSize {shown.voxel_size_angstrom:.8g} originIndex {origin},{origin},{origin} {surface}")
    lines.append(f"view matrix models {model},{_matrix(shown.pose.rotation, shown.pose.shift_angstrom)}")
    return lines


def _matrix(rotation: np.ndarray, shift: np.ndarray) -> str:
    """The rows of a 3 x 4 matrix, separated by commas."""
    rows = np.concatenate([np.asarray(rotation), np.asarray(shift)[:, None]], axis=1)
    return ",".join(f"{value + 0.0:.9g}" for value in rows.ravel())


def _place(number: int, columns: int, spacing: float) -> np.ndarray:
    """Where a superclass stands in the picture: to the right, then down."""
    return np.array([spacing * (number % columns), -spacing * (number // columns), 0.0])


def _width(small: xr.DataArray, thresholds: list[float]) -> float:
    """Width, in angstrom, that no superclass goes beyond however it is turned about its origin."""
    clean = [without_dust(volume, level) for volume, level in zip(small.values, thresholds, strict=True)]
    lowest, highest = surface_extent(clean, thresholds)
    return 2 * float(np.maximum(np.abs(lowest), np.abs(highest)).max()) * voxel_size_of(small.to_dataset(name="density"))


def _classes(contents: OutputContents, number: int) -> str:
    ids = [row["class_id"] for row in contents.classes if row["superclass"] == number]
    return f"{'class' if len(ids) == 1 else 'classes'} {', '.join(map(str, ids))}"


def _path_in_script(path: str, folder: Path) -> str:
    """From the output folder where both lie in one tree, so that it can move as a whole; else the whole path."""
    if storage.is_remote(folder):
        return path.removeprefix(f"{folder}/")
    absolute, here = os.path.abspath(path), os.path.abspath(folder)
    shared = os.path.commonpath([absolute, here])
    return os.path.relpath(absolute, here) if shared not in (os.sep, "") else absolute
