"""What a file or folder is, as the program understands it, in lines for a person."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats import storage

Rows = list[tuple[str, str]]

MODES = {
    0: "8-bit integers",
    1: "16-bit integers",
    2: "32-bit floats",
    6: "unsigned 16-bit integers",
    12: "16-bit floats",
}
NUMPY_MAGIC = b"\x93NUMPY"
COLUMNAR_MAGICS = (b"\x94CSDAT", b"\x95CSDAT")
LARGEST_HEADER = 2**24


def describe_file(path: str | Path) -> Rows:
    """Say what a file or folder is.

    Parameters
    ----------
    path : str or Path
        A map, a zarr store, a particle table (.cs, .star, parquet), a CryoSPARC group (.csg), a job folder,
        or the output folder of a run.

    Returns
    -------
    list of (field, value)

    Raises
    ------
    InputError
        There is no such file, or it is none of these.
    """
    path = storage.given(path)
    if not storage.exists(path):
        raise InputError(f"{path} does not exist.")
    if storage.is_folder(path):
        return _folder(path)
    suffix = os.path.splitext(path)[1].lower()
    by_suffix = {".cs": _dataset, ".csg": _group, ".star": _star, ".parquet": _parquet, ".pq": _parquet}
    return by_suffix.get(suffix, _map)(path)


def _folder(path: str) -> Rows:
    from regroup_dask.formats.zarr_volumes import is_zarr_store

    if is_zarr_store(path):
        return _store(path)
    if storage.is_file(os.path.join(path, "run.json")):
        return _output(path)
    if _has_parquet(path):
        return _parquet(path)
    from regroup_dask.formats.job_folder import recognise_job

    job = recognise_job(path)
    return [("what it is", job.lines[0])] + [_split(line) for line in job.lines[1:]]


def _map(path: str) -> Rows:
    from regroup_dask.formats import mrc

    header = mrc.read_header(path)
    z, y, x = header.shape
    voxel_size = header.voxel_size_angstrom
    if voxel_size is None:
        said = "not known; give it with --voxel-size"
    else:
        said = f"{voxel_size:g} A, so the box is {voxel_size * x:.4g} A wide"
    rows = [
        ("what it is", "MRC map" + (f", packed with {header.compression}" if header.compression else "")),
        ("box", f"{x} x {y} x {z} voxels (x, y, z)"),
        ("voxel size", said),
        ("values", f"{MODES[header.mode]} (mode {header.mode})"),
    ]
    try:
        mrc.check_class_map(header)
        rows += _statistics(mrc.read_checked(mrc.open_data(header), path))
        rows.append(("as a class map", "can be used"))
    except InputError as error:
        rows.append(("as a class map", f"refused: {error}"))
    rows += [("note", note) for note in header.notes]
    return rows + [("label", label) for label in header.labels]


def _statistics(density: np.ndarray) -> Rows:
    mean = density.mean(dtype=np.float64)
    deviation = density.std(dtype=np.float64)
    return [
        (
            "density",
            f"{density.min():.4g} to {density.max():.4g}, mean {mean:.4g}, standard deviation "
            f"{deviation:.4g}",
        )
    ]


def _store(path: str) -> Rows:
    import zarr

    opened: Any = zarr.open(path, mode="r")
    alone = isinstance(opened, zarr.Array)
    arrays = [(os.path.basename(path), opened)] if alone else sorted(opened.arrays())
    rows: Rows = [("what it is", f"zarr store, format {opened.metadata.zarr_format}")]
    for name, array in arrays:
        names = getattr(array.metadata, "dimension_names", None) or ()
        dimensions = f" ({', '.join(str(one) for one in names)})" if names else ""
        rows.append((name, f"{array.dtype} {array.shape}{dimensions}, chunks {array.chunks}"))
    if any(array.ndim == 4 for _, array in arrays):
        from regroup_dask.formats.volume_search import find_volumes

        try:
            series = find_volumes(path)
        except InputError as error:
            rows.append(("as class maps", f"refused: {error}"))
        else:
            count = len(series.references)
            voxel_size = series.voxel_size_angstrom
            rows.append(("as class maps", f"{count} maps, box {series.box}, voxel size {voxel_size:g} A"))
    return rows


def _output(path: str) -> Rows:
    try:
        run: dict[str, Any] = json.loads(storage.read_bytes(os.path.join(path, "run.json")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}/run.json cannot be read: {error}.") from error
    rows = [("what it is", "output folder of regroup-dask"), ("status", str(run.get("status", "not said")))]
    if storage.is_file(os.path.join(path, "superclasses.parquet")):
        from regroup_dask.formats.result_tables import read_table

        for row in read_table(storage.location(path), "superclasses").to_pylist():
            rows.append(
                (
                    f"superclass {row['superclass']}",
                    f"{row['n_particles']} particles of {row['n_classes']} classes, frame of class "
                    f"{row['reference_class']}",
                )
            )
    return rows


def _particles(path: str) -> Rows:
    from regroup_dask.formats.particles import open_particles

    source = open_particles(path)
    kinds = {
        "cryosparc": "CryoSPARC particles",
        "relion": "RELION particles",
        "parquet": "particles in parquet",
    }
    classes = source.class_ids
    contiguous = tuple(classes) == tuple(range(classes[0], classes[-1] + 1)) if classes else False
    named = f"{classes[0]} to {classes[-1]}" if contiguous else ", ".join(str(one) for one in classes)
    certainty = "one class per particle, no posteriors" if source.hard else "posteriors"
    rows = [
        ("what it is", kinds.get(source.kind, source.kind)),
        ("particles", str(source.n_rows)),
        ("classes", f"{len(classes)} (class ids {named}), {certainty}"),
    ]
    if source.voxel_size_angstrom is not None:
        rows.append(("pixel of the poses", f"{source.voxel_size_angstrom:g} A"))
    rows += [("note", line) for line in getattr(source, "lines", ())]
    return [*rows, ("columns", _listed(source.schema.names))]


def _parquet(path: str) -> Rows:
    """Parquet: particles where it has classes, else whatever table it is."""
    try:
        return _particles(path)
    except InputError as error:
        reason = str(error)
    import pyarrow as pa
    import pyarrow.dataset

    fs, inside = storage.filesystem(path) if storage.is_remote(path) else (None, path)
    try:
        dataset = pyarrow.dataset.dataset(inside, format="parquet", partitioning="hive", filesystem=fs)
        rows = [("what it is", "parquet table"), ("rows", str(dataset.count_rows()))]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet: {error}.") from error
    return [*rows, ("as particles", f"refused: {reason}"), ("columns", _listed(dataset.schema.names))]


def _dataset(path: str) -> Rows:
    """A .cs file: particles where it has classes, else whatever table it is."""
    try:
        return _particles(path)
    except InputError as error:
        reason = str(error)
    with storage.open_reading(path) as stream:
        magic = stream.read(6)
        if magic == NUMPY_MAGIC:
            stream.seek(0)
            encoding, names, count = "NumPy encoding", *_numpy_header(stream, path)
        elif magic in COLUMNAR_MAGICS:
            encoding, names, count = "columnar encoding", *_columnar(path)
        else:
            raise InputError(f"{path} is no CryoSPARC dataset: it begins with {magic!r}.")
    rows = [("what it is", f"CryoSPARC dataset, {encoding}"), ("rows", str(count))]
    return [
        *rows,
        ("slots", _listed(_slots(names))),
        ("as particles", f"refused: {reason}"),
        ("columns", _listed(names)),
    ]


def _numpy_header(stream: Any, path: str) -> tuple[list[str], int]:
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream, max_header_size=LARGEST_HEADER)
    except ValueError as error:
        raise InputError(f"{path} has no readable NumPy header: {error}.") from error
    return list(dtype.names or ()), int(shape[0]) if shape else 0


def _columnar(path: str) -> tuple[list[str], int]:
    from cryosparc.dataset import Dataset

    try:
        with storage.on_this_machine(path) as local:
            dataset = Dataset.load(str(local))
    except Exception as error:
        raise InputError(f"{path} cannot be read as a CryoSPARC dataset: {error}.") from error
    return list(dataset.fields()), len(dataset)


def _slots(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in names if "/" in name))


def _group(path: str) -> Rows:
    import yaml

    try:
        content = yaml.safe_load(storage.read_bytes(path).decode("utf-8"))
        group, results = content["group"], content["results"]
        rows = [
            ("what it is", f"CryoSPARC group {group.get('name', '')} of type {group.get('type', 'not said')}")
        ]
        for slot, result in results.items():
            file = str(result.get("metafile", "")).removeprefix(">")
            beside = storage.is_file(os.path.join(os.path.dirname(path), file))
            rows.append(
                (slot, f"{result.get('num_items', '?')} items in {file}" + ("" if beside else " (missing)"))
            )
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no CryoSPARC group: it needs group and results ({error}).") from error
    return rows


def _star(path: str) -> Rows:
    """A .star file: particles where it has classes, a model.star, else its blocks."""
    try:
        return _particles(path)
    except InputError as error:
        reason = str(error)
    from regroup_dask.formats.model_star import read_model_classes, read_model_ssnr

    try:
        model = read_model_classes(path)
    except InputError:
        return [*_blocks(path), ("as particles", f"refused: {reason}")]
    rows: Rows = [
        ("what it is", "RELION model of a classification"),
        ("classes", str(len(model.reference_images))),
        ("signal-to-noise", f"tables of {len(read_model_ssnr(path))} classes"),
    ]
    if model.voxel_size_angstrom:
        rows.append(("voxel size", f"{model.voxel_size_angstrom:g} A"))
    for class_id, image in enumerate(model.reference_images):
        share, resolution = model.distribution[class_id], model.resolution_angstrom[class_id]
        # of a class without particles RELION writes no finite number
        said = f"{resolution:.3g} A" if math.isfinite(resolution) else "resolution unknown"
        rows.append((f"class id {class_id}", f"{image}, {share:.1%} of the particles, {said}"))
    return rows


def _blocks(path: str) -> Rows:
    names = []
    with storage.open_reading(path) as stream:
        names = [line.decode("utf-8", "replace").strip() for line in stream if line.startswith(b"data_")]
    if not names:
        raise InputError(f"{path} has no data block; it is no STAR file.")
    return [("what it is", "STAR file"), ("blocks", _listed(names))]


def _listed(names: Sequence[str], limit: int = 60) -> str:
    shown = ", ".join(names[:limit])
    return f"{len(names)}: {shown}" + (", ..." if len(names) > limit else "")


def _has_parquet(path: str) -> bool:
    return any(name.endswith(".parquet") for name in storage.files_below(path))


def _split(line: str) -> tuple[str, str]:
    field, found, value = line.partition(": ")
    return (field, value) if found else ("note", line)
