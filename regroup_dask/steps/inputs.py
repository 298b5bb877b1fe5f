"""What a run takes in: maps, particles, mask and model, found and checked before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats import storage
from regroup_dask.formats.cryodrgn import LabelParticles
from regroup_dask.formats.fingerprint import fingerprint, has_content
from regroup_dask.formats.job_folder import Job, recognise_job
from regroup_dask.formats.model_star import read_model_ssnr
from regroup_dask.formats.particles import ParticleSource, open_particles
from regroup_dask.formats.pieces import RunPieces, in_this_process
from regroup_dask.formats.volumes import VolumeReference, VolumeSeries, find_mask, find_volumes


class Inputs(NamedTuple):
    """The inputs of a run.

    Attributes
    ----------
    series
        The class maps.
    source
        The particles, or None.
    mask
        A mask of the same box, or None.
    ssnr
        Signal-to-noise ratio per class id and shell, where a model file gives it.
    lines
        What was found, a sentence each.
    given
        What was asked for, to be found again by a later command.
    """

    series: VolumeSeries
    source: ParticleSource | None
    mask: VolumeReference | None
    ssnr: dict[int, np.ndarray]
    lines: tuple[str, ...]
    given: dict[str, Any]


def inputs_of_job(
    folder: str | Path,
    *,
    mask: str | Path | None = None,
    class_prefix: str = "auto",
    voxel_size_angstrom: float | None = None,
    scratch: Path | None = None,
    run: RunPieces = in_this_process,
) -> Inputs:
    """Find the newest iteration's particles and class maps in a job folder."""
    job = recognise_job(folder)
    source = open_particles(
        job.particle_files, passthrough=job.passthrough_files, class_prefix=class_prefix, scratch=scratch, run=run
    )
    ids = sorted(job.volume_files)
    series = find_volumes(
        [job.volume_files[class_id] for class_id in ids],
        voxel_size_angstrom=voxel_size_angstrom,
        fallback_voxel_size_angstrom=job.voxel_size_angstrom or source.voxel_size_angstrom,
        class_ids=ids,
        names=[job.class_names.get(class_id, f"class_{class_id:02d}") for class_id in ids],
    )
    source = _in_units_of_maps(source, series)
    series = series._replace(references=tuple(_with_halves(reference, job) for reference in series.references))
    given = {
        "job": storage.resolved(folder),
        "particles": [storage.absolute(path) for path in job.particle_files],
        "passthrough": [storage.absolute(path) for path in job.passthrough_files],
        "volumes": [reference.path for reference in series.references],
        "class_ids": ids,
        "names": [reference.name for reference in series.references],
        "mask": None if mask is None else storage.resolved(mask),
        "voxel_size_angstrom": series.voxel_size_angstrom,
        "model": None if job.model_star is None else storage.absolute(job.model_star),
    }
    return Inputs(
        series,
        source,
        None if mask is None else find_mask(mask, series=series),
        {} if job.model_star is None else read_model_ssnr(job.model_star),
        (*job.lines, *source.lines),
        given,
    )


def inputs_of_files(
    volumes: str | Path | Sequence[str | Path] | VolumeSeries,
    particles: str | Path | Sequence[str | Path] | ParticleSource | None,
    *,
    passthrough: str | Path | Sequence[str | Path] = (),
    mask: str | Path | None = None,
    class_prefix: str = "auto",
    voxel_size_angstrom: float | None = None,
    class_ids: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    model: str | None = None,
    scratch: Path | None = None,
    run: RunPieces = in_this_process,
) -> Inputs:
    """Take maps and particles as they were named."""
    passthrough = (passthrough,) if storage.is_path(passthrough) else tuple(passthrough)
    source = particles
    if source is not None and not isinstance(source, ParticleSource):
        source = open_particles(source, passthrough=passthrough, class_prefix=class_prefix, scratch=scratch, run=run)
    if isinstance(volumes, VolumeSeries):
        series = volumes
    else:
        series = find_volumes(
            volumes,
            voxel_size_angstrom=voxel_size_angstrom,
            fallback_voxel_size_angstrom=None if source is None else source.voxel_size_angstrom,
            class_ids=class_ids,
            names=names,
        )
    source = None if source is None else _in_units_of_maps(source, series)
    references = series.references
    lines = [f"{len(references)} class maps of box {series.box}, {series.voxel_size_angstrom:.4g} A per voxel"]
    if source is not None:
        lines.append(f"{source.count_rows()} particles in {len(source.files)} file(s), kind {source.kind}")
        lines.extend(source.lines)
    given = {
        "job": None,
        "particles": [] if source is None else [path for path in source.files if path not in source.passthrough_files],
        "passthrough": [] if source is None else list(source.passthrough_files),
        "volumes": list(dict.fromkeys(reference.path for reference in references)),
        "class_ids": [reference.class_id for reference in references],
        "names": [reference.name for reference in references],
        "mask": None if mask is None else storage.resolved(mask),
        "voxel_size_angstrom": series.voxel_size_angstrom,
        "model": None if model is None else storage.absolute(model),
    }
    ssnr = {} if model is None else read_model_ssnr(model)
    return Inputs(series, source, None if mask is None else find_mask(mask, series=series), ssnr, tuple(lines), given)


def inputs_of_record(
    record: dict[str, Any], class_prefix: str, scratch: Path | None = None, run: RunPieces = in_this_process
) -> Inputs:
    """Find the inputs of an earlier run again.

    Raises
    ------
    InputError
        A file has moved or changed since.
    """
    given = record["inputs"]
    for known in record.get("fingerprints", []):
        if not storage.exists(known["path"]):
            raise InputError(
                f"{known['path']}, an input of that run, does not exist any more: put it back, or say with --job FOLDER or "
                "--inputs OLD=NEW where the files are now."
            )
        if not has_content(known["path"], known):
            raise InputError(f"{known['path']} has changed since that run: run anew instead.")
    return inputs_of_files(
        given["volumes"],
        given["particles"] or None,
        passthrough=given["passthrough"],
        mask=given["mask"],
        class_prefix=class_prefix,
        voxel_size_angstrom=given["voxel_size_angstrom"],
        class_ids=given["class_ids"],
        names=given["names"],
        model=given["model"],
        scratch=scratch,
        run=run,
    )


def fingerprints(inputs: Inputs) -> list[dict[str, Any]]:
    """Content of every input file, for resuming and for the record."""
    source = inputs.source
    files = [reference.path for reference in inputs.series.references]
    files += [] if source is None else list(source.files)
    files += [] if inputs.mask is None else [inputs.mask.path]
    return [fingerprint(path) for path in dict.fromkeys(files)]


def check_inputs(inputs: Inputs, excluded: Sequence[int]) -> None:
    """Refuse particles that name a class without a map; warn of what does not fit together."""
    if inputs.source is None:
        return
    pixel, voxel = inputs.source.voxel_size_angstrom, inputs.series.voxel_size_angstrom
    if pixel is not None and abs(pixel - voxel) > 0.01 * voxel:
        warnings.warn(
            f"The maps have {voxel:.4g} A per voxel and the particles' shifts are in pixels of {pixel:.4g} A: if the "
            "header of a map is wrong, give --voxel-size.",
            RegroupWarning,
            stacklevel=2,
        )
    known = {reference.class_id for reference in inputs.series.references}
    missing = sorted(set(inputs.source.class_ids) - known - set(excluded))
    if missing:
        raise InputError(
            f"The particles in {inputs.source.files[0]} name class {missing[0]}, which has no map (the maps are of "
            f"classes {', '.join(map(str, sorted(known)))}): give its map too, or leave it out with --exclude-classes "
            f"{','.join(map(str, missing))}."
        )
    silent = sorted(known - set(inputs.source.class_ids))
    if silent and not inputs.source.hard:
        warnings.warn(
            f"No particle has a posterior for class {', '.join(map(str, silent))}: it counts as empty.",
            RegroupWarning,
            stacklevel=2,
        )


def _in_units_of_maps(source: ParticleSource, series: VolumeSeries) -> ParticleSource:
    """CryoDRGN's translations are fractions of the maps' width, whatever voxel size is given for the maps."""
    return source.with_voxel_size(series.voxel_size_angstrom) if isinstance(source, LabelParticles) else source


def _with_halves(reference: VolumeReference, job: Job) -> VolumeReference:
    import dataclasses

    halves = job.half_map_files.get(reference.class_id)
    return reference if halves is None else dataclasses.replace(
        reference, half_map_paths=(storage.absolute(halves[0]), storage.absolute(halves[1]))
    )
