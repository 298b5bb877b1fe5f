"""Any side from the parquet of an output folder: CryoSPARC, RELION or cryoDRGN."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from distributed import Client

from regroup_dask.errors import InputError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.cryodrgn_export import ArrayExport
from regroup_dask.formats.cryosparc.export import RecordExport, check_record_export
from regroup_dask.formats.cryosparc.volume_groups import write_volume_groups
from regroup_dask.formats.export_folder import check_target, export_folder
from regroup_dask.formats.export_plan import ExportPlan, plan_export
from regroup_dask.formats.particle_facts import QUATERNION, SHIFT
from regroup_dask.formats.regroup_plan import SuperclassMaps
from regroup_dask.formats.regrouped_folder import RegroupedFolder, open_regrouped
from regroup_dask.formats.relion.export import StarExport, check_star_export, image_folder_note
from regroup_dask.formats.relion.model import folder_for_relion, write_model
from regroup_dask.formats.relion.star_text import locate_blocks, read_small_block
from regroup_dask.formats.volumes import find_volumes
from regroup_dask.progress import StageClock
from regroup_dask.tasks import exports
from regroup_dask.tasks.execute import Result, run_units
from regroup_dask.tasks.particles import JoinUnit, join_file

Side = Literal["cryosparc", "relion", "cryodrgn"]
NAMES = {"cryosparc": "CryoSPARC", "relion": "RELION", "cryodrgn": "cryoDRGN"}
IMAGES = ("blob/path", "rlnImageName")


class Exported(NamedTuple):
    """What an export wrote."""

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


class _Work(NamedTuple):
    """What every part of an export needs."""

    particles: RegroupedFolder
    output: Path
    folder: Path
    target: Path
    maps: SuperclassMaps | None
    run: Callable[..., list[Result]]
    optics_groups: Mapping[int, Mapping[str, str]]
    micrograph_size: tuple[int, int] | None
    flip_y: bool

    @property
    def extent_angstrom(self) -> float | None:
        return None if self.maps is None else self.maps.box * self.maps.voxel_size_angstrom

    @property
    def totals(self) -> np.ndarray:
        return self.particles.counts.sum(axis=0)


def export(
    output: Path,
    side: Side,
    target: Path,
    *,
    client: Client | None = None,
    clock: StageClock | None = None,
    micrograph_size: tuple[int, int] | None = None,
    flip_y: bool = True,
) -> Exported:
    """Write one side of an output folder, one task per fragment; the same bytes however many workers there are.

    Parameters
    ----------
    output : Path
        Of a finished run with particles.
    side : {"cryosparc", "relion", "cryodrgn"}
    target : Path
        Folder to make; appears when it is complete.
    client : distributed.Client, optional
        None works in this process.
    clock : StageClock, optional
        Told of the progress.
    micrograph_size : (int, int), optional
        Width and height of the micrographs in pixels, for places that CryoSPARC wants as fractions of them.
    flip_y : bool
        CryoSPARC counts y from the other edge of the micrograph than RELION; False where the micrographs themselves were
        flipped between the programs.

    Raises
    ------
    InputError
        There are no particles, they do not say what the side needs, or the target exists.
    """
    output, target, particles = _opened(output, target)
    clock = clock or StageClock()

    def run(label: str, function: Callable[[Any], Result], units: list[Any]) -> list[Result]:
        with clock.stage(label, len(units)) as advance:
            return run_units(function, units, client=client, advance=advance, say=clock.say)

    with export_folder(target) as folder:
        work = _Work(
            particles,
            output,
            folder,
            target,
            _maps(output),
            run,
            _optics_groups(output),
            micrograph_size,
            flip_y,
        )
        files, notes = {"cryosparc": _cryosparc, "relion": _relion, "cryodrgn": _cryodrgn}[side](work)
    named = files if folder == target else [target / path.relative_to(folder) for path in files]
    return Exported(target, tuple(named), tuple(notes))


def plan_of_export(output: Path, side: Side, target: Path) -> list[str]:
    """Say what `export` would write, and refuse what it would refuse before it looks at the particles."""
    output, target, particles = _opened(output, target)
    check_target(target)
    totals = particles.counts.sum(axis=0).tolist()
    lines = [f"{sum(totals):,} particles for {NAMES[side]}, into {target}:"]
    lines += [f"  superclass {number}: {count:,} particles" for number, count in enumerate(totals[:-1])]
    lines.append(f"  remaining: {totals[-1]:,} particles")
    if storage.is_folder(output / side):
        lines.append(f"They came from {NAMES[side]}: the files in {output / side} are copied as they are.")
    return lines


def _opened(output: Path, target: Path) -> tuple[Path, Path, RegroupedFolder]:
    output, target = (storage.location(storage.absolute(path)) for path in (output, target))
    if not storage.is_folder(output):
        raise InputError(f"{output} is no folder: give the output folder of a run with particles.")
    return output, target, open_regrouped(output)


def _relion(work: _Work) -> tuple[list[Path], list[str]]:
    if storage.is_folder(work.output / "relion"):
        return _copied(work, "relion")
    plan = _look(work)
    check_star_export(plan, work.extent_angstrom)
    writer = StarExport(str(work.folder), work.particles.n_superclasses, plan, work.extent_angstrom)
    writer.create()
    _write(work, writer)
    _join(work, writer)
    files = list(writer.finish())
    if work.maps is not None:
        maps = work.maps._replace(folder_for_relion=folder_for_relion(work.target))
        files += write_model(work.folder, maps, work.totals[:-1], n_dimensions=plan.n_axes)
    return files, [*_pose_notes(plan, work), *_aberration_notes(plan), image_folder_note(work.target)]


def _cryosparc(work: _Work) -> tuple[list[Path], list[str]]:
    if storage.is_folder(work.output / "cryosparc"):
        return _copied(work, "cryosparc")
    plan = _look(work)
    check_record_export(plan)
    k = work.particles.n_superclasses
    writer = RecordExport(str(work.folder), k, plan, work.extent_angstrom, work.micrograph_size, work.flip_y)
    writer = writer.create(work.totals)
    _write(work, writer)
    _join(work, writer)
    files = list(writer.finish())
    if work.maps is not None:
        files += [Path(path) for path in write_volume_groups(str(work.folder), work.maps)]
    notes = [
        *_pose_notes(plan, work),
        *_aberration_notes(plan),
        "The image paths are those of the input: CryoSPARC finds them from its project folder.",
    ]
    if "rlnImageName" in work.particles.schema.names:
        notes.append("blob/sign is 1, for images that are light on dark as RELION makes them.")
    if plan.has_coordinates and not writer.has_places:
        notes.append(
            "Places on the micrographs are left out: CryoSPARC wants fractions of a micrograph, so give --micrograph-size."
        )
    return files, notes


def _cryodrgn(work: _Work) -> tuple[list[Path], list[str]]:
    names = work.particles.schema.names
    plan = _look(work) if any(name in names for name in IMAGES) else None
    images = QUATERNION in names and work.particles.schema.field(SHIFT).type.list_size == 2
    has_poses = images and (plan is None or plan.has_poses) and (plan is not None or work.extent_angstrom is not None)
    writer = ArrayExport(str(work.folder), work.particles.n_superclasses, plan, work.extent_angstrom, has_poses)
    writer = writer.create(work.totals)
    _write(work, writer)
    notes = ["labels.pkl has -1 for particles of no superclass; rows count as in the input of the run."]
    if has_poses:
        notes.append(
            "poses.pkl has the pose of each particle in the frame of its superclass: train on one superclass at a time, with "
            "--ind ind_superclass_K.pkl; particles of no superclass have the pose they came with, if any."
        )
    _join(work, writer)
    return list(writer.finish()), notes


def _look(work: _Work) -> ExportPlan:
    columns = tuple(work.particles.schema.names)
    units = [
        exports.LookUnit(f"fragment_{fragment.index:06d}", fragment, columns, work.optics_groups, work.flip_y)
        for fragment in work.particles.fragments
    ]
    return plan_export(work.run("Looking at particles", exports.look_at_fragment, units))


def _write(work: _Work, writer: StarExport | RecordExport | ArrayExport) -> None:
    counts = work.particles.counts
    before = np.zeros_like(counts)
    before[1:] = np.cumsum(counts, axis=0)[:-1]
    columns = tuple(work.particles.schema.names)
    units = [
        exports.ExportUnit(
            f"fragment_{fragment.index:06d}",
            fragment,
            columns,
            work.optics_groups,
            work.flip_y,
            writer,
            before[fragment.index],
        )
        for fragment in work.particles.fragments
    ]
    work.run("Writing particles", exports.write_fragment, units)


def _join(work: _Work, writer: StarExport | RecordExport | ArrayExport) -> None:
    """Put files together that were written in parts; there are none where every row was written to its place."""
    files = writer.files_to_join(len(work.particles.fragments))
    if files:
        units = [JoinUnit(file.path.rpartition("/")[2], file) for file in files]
        work.run("Joining particles", join_file, units)


def _copied(work: _Work, name: str) -> tuple[list[Path], list[str]]:
    """Copy the side that the particles came from, with RELION's paths of the maps changed to the copy."""
    source = work.output / name
    if storage.is_remote(source) or storage.is_remote(work.folder):
        storing.copy_folder(source, work.folder)
    else:
        shutil.copytree(source, work.folder, dirs_exist_ok=True, ignore=_links)
    model = work.folder / "model.star"
    if storage.is_file(model):
        text = storage.read_bytes(model)
        here, there = (os.fsencode(folder_for_relion(path)) + b"/" for path in (source, work.target))
        storing.write_bytes(model, text.replace(here, there))
    note = f"The particles came from there: {source} is copied, with every column as it was."
    paths = [storage.location(path) for path in storage.files_below(work.folder)]
    return [path for path in paths if not path.name.startswith(".")], [note]


def _links(folder: str, names: list[str]) -> list[str]:
    """Links lead out of the folder; no run makes any."""
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


def _optics_groups(output: Path) -> dict[int, dict[str, str]]:
    path = output / "relion" / "regrouped_particles.star"
    if not storage.is_file(path):
        return {}
    block = next((block for block in locate_blocks(str(path)) if block.name == "optics"), None)
    rows = [] if block is None else read_small_block(str(path), block)
    return {int(row["rlnOpticsGroup"]): row for row in rows if row.get("rlnOpticsGroup", "").isdecimal()}


def _pose_notes(plan: ExportPlan, work: _Work) -> list[str]:
    if not plan.has_poses:
        return ["The particles have no poses: all angles and shifts are 0."]
    return ["Remaining particles have the pose they came with, against their own class."] * bool(work.totals[-1])


def _aberration_notes(plan: ExportPlan) -> list[str]:
    if not plan.left_out:
        return []
    return [
        f"{', '.join(plan.left_out)} are left out: there is no published way to convert trefoil and tetrafoil; refine them "
        "again in the other program."
    ]


def _maps(output: Path) -> SuperclassMaps | None:
    paths = storage.matching_files(f"{output}/volumes/superclass_*.mrc")
    if not paths:
        return None
    found = find_volumes(paths)
    series, mask = output / "series.zip", output / "mask.mrc"
    return SuperclassMaps(
        paths=tuple(paths),
        box=found.box,
        voxel_size_angstrom=found.voxel_size_angstrom,
        series_zip=str(series) if storage.is_file(series) else None,
        mask=str(mask) if storage.is_file(mask) else None,
    )
