"""Any side from the parquet of an output folder: CryoSPARC, RELION or cryoDRGN."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import cryodrgn
from regroup_dask.formats.cryosparc import export as cryosparc_export
from regroup_dask.formats.cryosparc.volume_groups import write_volume_groups
from regroup_dask.formats.particle_facts import QUATERNION, SHIFT, ParticleFacts, particle_facts
from regroup_dask.formats.regroup_plan import SuperclassMaps
from regroup_dask.formats.regrouped_folder import RegroupedFolder, open_regrouped
from regroup_dask.formats.relion import export as relion_export
from regroup_dask.formats.relion.model import write_model
from regroup_dask.formats.relion.star_text import locate_blocks, read_small_block
from regroup_dask.formats.volumes import find_volumes

Side = Literal["cryosparc", "relion", "cryodrgn"]


class Exported(NamedTuple):
    """What an export wrote."""

    folder: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export(output: Path, side: Side, target: Path) -> Exported:
    """Write one side of an output folder.

    Parameters
    ----------
    output : Path
        Of a finished run with particles.
    side : {"cryosparc", "relion", "cryodrgn"}
    target : Path
        Folder to make; appears when it is complete.

    Raises
    ------
    InputError
        There are no particles, they do not say what the side needs, or the target exists.
    """
    if target.exists():
        raise InputError(f"The folder {target} exists: give another with -o.")
    particles = open_regrouped(output)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
    try:
        write = {"cryosparc": _cryosparc, "relion": _relion, "cryodrgn": _cryodrgn}[side]
        files, notes = write(particles, output, unfinished, target)
        unfinished.chmod(0o755)
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(target, tuple(target / path.relative_to(unfinished) for path in files), tuple(notes))


def _relion(particles: RegroupedFolder, output: Path, folder: Path, target: Path) -> Any:
    if (output / "relion").is_dir():
        return _copied(output / "relion", folder)
    optics = _distinct_optics(particles, output)
    files = list(relion_export.write_star_files(folder, _facts(particles, output), particles.n_superclasses, optics))
    maps = _maps(output)
    if maps is not None:
        maps = maps._replace(folder_for_relion=str(target.absolute()))
        n_dimensions = particles.schema.field(SHIFT).type.list_size if SHIFT in particles.schema.names else 2
        files += write_model(folder, maps, particles.counts[:-1], n_dimensions=n_dimensions)
    return files, [*_pose_note(particles), relion_export.image_folder_note(target)]


def _cryosparc(particles: RegroupedFolder, output: Path, folder: Path, target: Path) -> Any:
    if (output / "cryosparc").is_dir():
        return _copied(output / "cryosparc", folder)
    widths = [0, 0]
    for facts, _ in _facts(particles, output):
        for number, texts in enumerate((facts.image_path, facts.micrograph)):
            widths[number] = max([widths[number], *(len(text.encode()) for text in texts.to_pylist())])
    dtype = cryosparc_export.record_dtype(*widths)
    files = list(cryosparc_export.write_record_files(folder, _facts(particles, output), particles.counts, dtype))
    maps = _maps(output)
    if maps is not None:
        files += [Path(path) for path in write_volume_groups(str(folder), maps)]
    notes = [
        "The image paths are those of the input: CryoSPARC finds them from its project folder.",
        "Places on the micrographs are left out: CryoSPARC wants fractions of a micrograph, whose size is not known.",
    ]
    return files, [*_pose_note(particles), *notes]


def _cryodrgn(particles: RegroupedFolder, output: Path, folder: Path, target: Path) -> Any:
    n = int(particles.counts.sum())
    labels = np.full(n, -1, np.int64)
    for table, superclass in particles.tables(["input_row"]):
        labels[table.column("input_row").to_numpy()] = superclass
    files = [folder / "labels.pkl"]
    cryodrgn.write_array(files[0], labels)
    for number in range(particles.n_superclasses):
        files.append(folder / f"ind_superclass_{number}.pkl")
        cryodrgn.write_array(files[-1], np.flatnonzero(labels == number))
    return files, ["labels.pkl has -1 for particles of no superclass; rows count as in the input of the run."]


def _copied(source: Path, folder: Path) -> Any:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    note = f"The particles came from there: {source} is copied, with every column as it was."
    return sorted(path for path in folder.rglob("*") if path.is_file()), [note]


def _facts(particles: RegroupedFolder, output: Path) -> Iterator[tuple[ParticleFacts, np.ndarray]]:
    groups = _optics_groups(output)
    for table, superclass in particles.tables():
        yield particle_facts(table, groups), superclass


def _optics_groups(output: Path) -> dict[int, dict[str, str]]:
    path = output / "relion" / "regrouped_particles.star"
    if not path.is_file():
        return {}
    block = next((block for block in locate_blocks(str(path)) if block.name == "optics"), None)
    rows = [] if block is None else read_small_block(str(path), block)
    return {int(row["rlnOpticsGroup"]): row for row in rows if row.get("rlnOpticsGroup", "").isdecimal()}


def _distinct_optics(particles: RegroupedFolder, output: Path) -> np.ndarray:
    found = [np.unique(np.nan_to_num(facts.optics, nan=-1), axis=0) for facts, _ in _facts(particles, output)]
    distinct = np.unique(np.concatenate(found), axis=0)
    return np.where(distinct == -1, np.nan, distinct)


def _pose_note(particles: RegroupedFolder) -> list[str]:
    if QUATERNION in particles.schema.names:
        return []
    return ["The particles have no poses: all angles and shifts are 0."]


def _maps(output: Path) -> SuperclassMaps | None:
    paths = sorted((output / "volumes").glob("superclass_*.mrc"))
    if not paths:
        return None
    found = find_volumes(paths)
    series, mask = output / "series.zip", output / "mask.mrc"
    return SuperclassMaps(
        paths=tuple(str(path) for path in paths),
        box=found.box,
        voxel_size_angstrom=found.voxel_size_angstrom,
        series_zip=str(series) if series.is_file() else None,
        mask=str(mask) if mask.is_file() else None,
    )
