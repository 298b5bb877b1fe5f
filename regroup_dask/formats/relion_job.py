"""The files of a RELION Class3D job."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.job import Job
from regroup_dask.formats.model_star import read_model_classes
from regroup_dask.formats.volume_names import stem_of

# run_it025, run_ct25_it050 (continued from iteration 25), run (the last of some jobs)
_DATA_FILE = re.compile(r"(?P<root>.+?)(?:_it(?P<iteration>\d{3,}))?_data\.star$")


class _Iteration(NamedTuple):
    prefix: str
    iteration: int | None


def recognise_relion_job(folder: str, file_names: Sequence[str]) -> Job | None:
    """Recognise a RELION classification, or return None where there is no sign of one.

    Parameters
    ----------
    folder : str
    file_names : sequence of str
        The folder's files, sorted.

    Raises
    ------
    InputError
        A class without a map, or a job with nothing to regroup.
    """
    candidates = _iterations(file_names)
    with_maps = [one for one in candidates if _maps_by_name(one, file_names) or _model(one, file_names)]
    if not with_maps:
        if candidates and any(one.iteration is not None for one in candidates):
            raise InputError(
                f"{folder} has {candidates[-1].prefix}_data.star and no class maps "
                f"({candidates[-1].prefix}_classNNN.mrc); "
                "copy them there, or give --particles and --volumes instead."
            )
        return None
    # An iteration that is being written now has its data.star last, so the newest data.star is a whole
    # iteration.
    newest = with_maps[-1]
    model_star = _model(newest, file_names)
    voxel_size = None
    if model_star:
        model = read_model_classes(os.path.join(folder, model_star))
        volume_files = {
            class_id: _locate(folder, image, class_id, model_star)
            for class_id, image in enumerate(model.reference_images)
        }
        voxel_size = model.voxel_size_angstrom
    else:
        volume_files = {
            class_id: os.path.join(folder, name)
            for class_id, name in _maps_by_name(newest, file_names).items()
        }
        missing = sorted(set(range(max(volume_files) + 1)) - set(volume_files))
        if missing:
            raise InputError(
                f"class {missing[0] + 1} (class id {missing[0]}) of {folder} has no map "
                f"({newest.prefix}_class{missing[0] + 1:03d}.mrc); copy the class maps there."
            )
    if len(volume_files) < 2:
        raise InputError(
            f"{folder} has one class ({newest.prefix}); there is nothing to regroup with fewer than two."
        )
    data_star = f"{newest.prefix}_data.star"
    job_type = _job_type(folder, file_names)
    lines = [
        f"RELION job {job_type or 'Class3D'} in {folder}"
        + ("" if newest.iteration is None else f", iteration {newest.iteration}"),
        f"particles: {data_star}",
        f"class maps: {len(volume_files)}, "
        f"{os.path.basename(volume_files[0])} (class id 0) to "
        f"{os.path.basename(volume_files[max(volume_files)])}",
    ]
    if model_star:
        lines.append(f"classes and their signal-to-noise: {model_star}")
        empty = [class_id for class_id, share in enumerate(model.distribution) if share == 0]
        if empty:
            lines.append(f"classes of no particles, kept: class ids {', '.join(map(str, empty))}")
    else:
        lines.append(f"no {newest.prefix}_model.star: the classes are those that have a map")
    masks = [name for name in file_names if re.search(r"(^|_)mask.*\.mrc$", name)]
    return Job(
        kind="relion",
        folder=folder,
        iteration=newest.iteration,
        particle_files=(os.path.join(folder, data_star),),
        passthrough_files=(),
        volume_files=volume_files,
        class_names={class_id: stem_of(path) for class_id, path in volume_files.items()},
        model_star=os.path.join(folder, model_star) if model_star else None,
        mask=os.path.join(folder, masks[0]) if len(masks) == 1 else None,
        voxel_size_angstrom=voxel_size,
        job_type=job_type,
        lines=tuple(lines),
    )


def _iterations(file_names: Sequence[str]) -> list[_Iteration]:
    """Iterations of the folder, the newest last; a file without an iteration is the job's last word."""
    found = []
    for name in file_names:
        match = _DATA_FILE.match(name)
        if match:
            number = match["iteration"]
            found.append(_Iteration(name.removesuffix("_data.star"), int(number) if number else None))
    # of equal iterations the continued run (run_ct25_it050 against run_it050) is the newer; its name is
    # longer
    return sorted(
        found, key=lambda one: (one.iteration is None, one.iteration or 0, len(one.prefix), one.prefix)
    )


def _model(iteration: _Iteration, file_names: Sequence[str]) -> str | None:
    name = f"{iteration.prefix}_model.star"
    return name if name in file_names else None


def _maps_by_name(iteration: _Iteration, file_names: Sequence[str]) -> dict[int, str]:
    pattern = re.compile(re.escape(iteration.prefix) + r"_class(\d{3})\.mrc$")
    found = {}
    for name in file_names:
        match = pattern.match(name)
        if match:
            found[int(match[1]) - 1] = name
    return found


def _locate(folder: str, image: str, class_id: int, model_star: str) -> str:
    """Path of a class map, which model.star names relative to the project's folder, wherever the job lies.

    A name that leads out of the project (absolute, or with ``..``) is not followed: only its last part is looked for.
    """
    name = os.path.basename(image)
    strange = "\0" in image or name in ("", ".", "..")
    beside = os.path.join(folder, name)
    if not strange and storage.is_file(beside):
        return beside
    if strange or os.path.isabs(image) or "://" in image or ".." in image.split("/"):
        raise InputError(
            f"class {class_id + 1} (class id {class_id}) of {os.path.join(folder, model_star)} has the map {image!r}, which "
            "is not in its folder and leads out of the project; copy the class maps beside the model.star."
        )
    for project in storage.folders_above(folder):
        if storage.is_file(os.path.join(project, image)):
            return os.path.join(project, image)
    raise InputError(
        f"class {class_id + 1} (class id {class_id}) of {os.path.join(folder, model_star)} has no map: "
        f"{image} is neither "
        f"in {folder} nor below a folder above it; copy the class maps beside the model.star."
    )


def _job_type(folder: str, file_names: Sequence[str]) -> str | None:
    if "job.star" not in file_names:
        return None
    for line in storage.read_bytes(os.path.join(folder, "job.star")).decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "_rlnJobTypeLabel":
            return words[1]
    return None
