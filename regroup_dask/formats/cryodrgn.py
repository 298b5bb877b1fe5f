"""cryoDRGN's analysis folders: k-means labels of particles, a map for each, and the poses it was trained with.

A folder is ``analyze.E/kmeansN`` or ``landscape.E/kmeansN`` in the folder of a training, whose ``config.yaml`` names the
poses. Maps are numbered from 0 up to version 3.2 and from 1 later. Labels count from 0, except that
``analyze_landscape`` writes them as the maps are numbered.

cryoDRGN's rotation of a particle is RELION's matrix A, volume to image, and its translation a fraction of the box with
the sign of both programs' shifts (its own readers of .star and .cs make them so).
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regroup_dask.errors import InputError, RegroupWarning
from regroup_dask.formats import storage, storing
from regroup_dask.formats.job import Job
from regroup_dask.formats.mrc_header import read_header
from regroup_dask.formats.parquet_particles import ParquetParticles, open_parquet_particles
from regroup_dask.formats.particle_source import ParticleSource
from regroup_dask.formats.pickled_arrays import read_array, read_arrays

LABELS = "labels.pkl"
MAP_NAME = re.compile(r"vol_(\d{1,6})\.mrc")
KMEANS_FOLDER = re.compile(r"kmeans\d+")
ANALYSIS_FOLDER = re.compile(r"(?:analyze|landscape)\.(\d+)")
ROTATION, TRANSLATION = "cryodrgn_rotation", "cryodrgn_translation"
MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class LabelParticles(ParquetParticles):
    """Particles known by their label, and by the pose of their row where there are poses.

    Attributes
    ----------
    extent_angstrom : float
        Width of the maps, of which translations are fractions.
    """

    extent_angstrom: float = 1.0

    def particle_poses(self, table: pa.Table, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation f64[n, 3, 3], particle to volume, and shift f64[n, 2] in angstrom of each row, or None."""
        if ROTATION not in self.schema.names:
            return None
        n = table.num_rows
        rotation = _floats(table, ROTATION).reshape(n, 3, 3).transpose(0, 2, 1)
        return rotation.copy(), _floats(table, TRANSLATION).reshape(n, 2) * self.extent_angstrom

    def with_voxel_size(self, voxel_size_angstrom: float) -> LabelParticles:
        """Take the maps to have another voxel size than their headers say."""
        if self.voxel_size_angstrom is None:
            return self
        extent = self.extent_angstrom * voxel_size_angstrom / self.voxel_size_angstrom
        return dataclasses.replace(self, extent_angstrom=extent, voxel_size_angstrom=voxel_size_angstrom)


def find_kmeans_folder(folder: str | Path) -> Path | None:
    """Find the folder with labels and maps: this one, or the one kmeansN within it.

    Raises
    ------
    InputError
        There are several.
    """
    folder = storage.location(folder)
    if _is_kmeans(folder):
        return folder
    inside = sorted(path for path in folder.iterdir() if KMEANS_FOLDER.fullmatch(path.name) and _is_kmeans(path))
    if len(inside) > 1:
        raise InputError(f"{folder} has {', '.join(path.name for path in inside)}: give one of these folders.")
    return inside[0] if inside else None


def read_labels(folder: str | Path) -> tuple[np.ndarray, dict[int, str]]:
    """Read the labels of a folder and find its maps.

    Returns
    -------
    labels : i64[n]
        Class of each particle, from 0.
    maps : dict of int to str
        Path of the map of each class.

    Raises
    ------
    InputError
        There are no labels or maps, or the two do not fit together.
    """
    folder = storage.location(folder)
    numbers = {int(match[1]): str(path) for path in sorted(folder.iterdir()) if (match := MAP_NAME.fullmatch(path.name))}
    if len(numbers) < 2:
        raise InputError(f"{folder} has {len(numbers)} maps vol_NNN.mrc: at least 2 are needed.")
    base = min(numbers)
    if base not in (0, 1) or sorted(numbers) != list(range(base, base + len(numbers))):
        raise InputError(f"{folder}: its maps vol_NNN.mrc are not numbered without gaps from 0 or 1.")
    labels = _labels_from_zero(folder / LABELS, len(numbers), base)
    return labels, {number - base: path for number, path in numbers.items()}


def recognise_cryodrgn_job(folder: str, file_names: Sequence[str]) -> Job | None:
    """Recognise an analysis folder by its labels and maps, there or in the only kmeansN within it."""
    found = find_kmeans_folder(folder)
    if found is None:
        return None
    labels, maps = read_labels(found)
    poses, where = _find_poses(found, len(labels))
    first = int(MAP_NAME.fullmatch(Path(maps[0]).name)[1])  # type: ignore[index]
    return Job(
        kind="cryodrgn",
        folder=str(found),
        iteration=None,
        particle_files=tuple(str(path) for path in (found / LABELS, *poses)),
        passthrough_files=(),
        volume_files=maps,
        class_names={class_id: Path(path).stem for class_id, path in maps.items()},
        lines=(
            f"cryoDRGN analysis in {found}",
            f"particles: {len(labels)} labels, known by their row in what cryoDRGN was given",
            where,
            f"class maps: {len(maps)}, numbered from {first} (class id 0)",
        ),
    )


def open_labels(paths: Sequence[str], *, fragment_rows: int | None, scratch: str | None) -> ParticleSource:
    """Open labels, and poses if given, as particles; a copy in parquet is read.

    ``uid`` is the row, ``class_id`` the label, ``cryodrgn_rotation`` (3 x 3, row by row) and ``cryodrgn_translation``
    are the pose as it is in the file.

    Parameters
    ----------
    paths : sequence of str
        labels.pkl, then the poses, and the indices of the particles among them if only some were used.

    Raises
    ------
    InputError
        A file holds something else, or the files do not fit together.
    """
    labels_path, *more = paths
    folder = storage.location(labels_path).parent
    numbers = [int(match[1]) for path in folder.iterdir() if (match := MAP_NAME.fullmatch(path.name))]
    labels = _labels_from_zero(storage.location(labels_path), len(numbers) or None, min(numbers, default=0))
    columns: dict[str, Any] = {"uid": np.arange(len(labels)), "class_id": labels}
    if more:
        rotation, translation = read_poses(more[0], len(labels), indices=more[1] if len(more) > 1 else None)
        columns[ROTATION] = pa.FixedSizeListArray.from_arrays(pa.array(rotation.reshape(-1)), 9)
        columns[TRANSLATION] = pa.FixedSizeListArray.from_arrays(pa.array(translation.reshape(-1)), 2)
    if len(more) > 2:
        raise InputError(f"cryoDRGN's labels come with poses and indices at most, but {more[2]} was given too")
    if scratch is not None and storage.is_remote(scratch):
        own = f"{scratch}/labels-{uuid.uuid4().hex[:12]}"
    else:
        if scratch is not None:
            os.makedirs(scratch, exist_ok=True)
        own = tempfile.mkdtemp(prefix="labels-", dir=scratch)
        if scratch is None:
            atexit.register(shutil.rmtree, own, ignore_errors=True)
    copy = os.path.join(own, "labels.parquet")
    with storing.opened_writing(copy) as stream:
        pq.write_table(pa.table(columns), stream, row_group_size=2**20)
    source = open_parquet_particles([copy], fragment_rows=fragment_rows)
    common = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if more:
        header = read_header(str(folder / f"vol_{min(numbers, default=0):03d}.mrc"))
        voxel = header.voxel_size_angstrom or 1.0
        common |= {"voxel_size_angstrom": voxel, "extent_angstrom": voxel * header.shape[0]}
    return LabelParticles(**{**common, "files": tuple(paths)})


def read_poses(path: str | Path, n: int, *, indices: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read cryoDRGN's poses, a pickle of rotations or of rotations and translations.

    Returns
    -------
    rotation f32[n, 3, 3], translation f32[n, 2]
        Volume to image, and as a fraction of the box.

    Raises
    ------
    InputError
        The file holds something else, or other than n poses.
    """
    rotation, *rest = read_arrays(path)
    translation = rest[0] if rest else np.zeros((len(rotation), 2))
    if len(rest) > 1 or rotation.shape[1:] != (3, 3) or translation.shape != (len(rotation), 2):
        shapes = ", ".join(str(array.shape) for array in (rotation, *rest))
        raise InputError(f"{path} holds arrays of {shapes}: rotations (n, 3, 3) and translations (n, 2) are expected.")
    if indices is not None and len(rotation) != n:
        chosen = read_array(indices)
        if chosen.dtype.kind not in "iu" or not len(chosen) or chosen.min() < 0 or chosen.max() >= len(rotation):
            raise InputError(f"{indices} are no indices of the {len(rotation)} poses in {path}.")
        rotation, translation = rotation[chosen], translation[chosen]
    if len(rotation) != n:
        raise InputError(f"{path} has {len(rotation)} poses for {n} particles: give the poses of these particles.")
    if not (np.isfinite(rotation).all() and np.isfinite(translation).all() and (np.abs(translation) <= 1).all()):
        raise InputError(f"{path}: translations are fractions of the box, between -1 and 1; some here are not.")
    identity = np.einsum("nij,nkj->nik", rotation, rotation) - np.eye(3)
    if np.abs(identity).max() > 1e-3 or (np.linalg.det(rotation) < 0).any():
        raise InputError(f"{path} holds matrices that are no rotations.")
    return rotation.astype(np.float32), translation.astype(np.float32)


def _is_kmeans(folder: Path) -> bool:
    return (folder / LABELS).is_file() and any(MAP_NAME.fullmatch(path.name) for path in folder.iterdir())


def _labels_from_zero(path: Path, n_maps: int | None, base: int) -> np.ndarray:
    """Labels counted from 0, whatever their file counts from."""
    labels = read_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise InputError(f"{path} has shape {labels.shape} and type {labels.dtype}, and is no labels.")
    first, last = int(labels.min()), int(labels.max())
    labels = labels.astype(np.int64)
    if n_maps is None:
        return labels
    if first < 0 or last >= n_maps + base or (last == n_maps and first == 0):
        raise InputError(f"{path.parent}: {path.name} names class {first if first < 0 else last}, but there are {n_maps} maps.")
    if last == n_maps:
        return labels - 1
    if base == 1 and first > 0:
        warnings.warn(
            f"{path}: no particle has the label 0 or {n_maps}, so that nothing says where labels count from: 0 was assumed.",
            RegroupWarning,
            stacklevel=2,
        )
    return labels


def _find_poses(folder: Path, n: int) -> tuple[list[Path], str]:
    """Find the poses that cryoDRGN was trained with, and the indices it was given; and a sentence of what was found."""
    training = folder.parent.parent
    epoch = ANALYSIS_FOLDER.fullmatch(folder.parent.name)
    refined = [training / f"pose.{epoch[1]}.pkl"] if epoch else []
    given = _dataset_arguments(training / "config.yaml")
    named = [_place(given[key], training) if isinstance(given.get(key), str) else None for key in ("poses", "ind")]
    poses = next((path for path in [*refined, named[0]] if path is not None and path.is_file()), None)
    if poses is None:
        told = f": {named[0]} is not there" if named[0] is not None else ""
        return [], f"poses: none{told}"
    found = [poses, *([named[1]] if named[1] is not None and named[1].is_file() else [])]
    try:
        read_poses(poses, n, indices=found[1] if len(found) > 1 else None)
    except InputError as error:
        warnings.warn(f"The particles' poses are not used: {error}", RegroupWarning, stacklevel=2)
        return [], "poses: none that fit"
    return found, f"poses: {poses}"


def _place(path: str, training: Path) -> Path:
    return Path(path) if os.path.isabs(path) else training / path


def _dataset_arguments(config: Path) -> dict[str, Any]:
    import yaml

    try:
        if config.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    arguments = content.get("dataset_args") if isinstance(content, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _floats(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name).combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float64)
