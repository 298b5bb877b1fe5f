"""Small jobs made of Gaussian balls, whose maps, projections and poses are known exactly, in every particle format.

A structure is a set of balls. The map of a class is its structure, perhaps inverted through the origin, moved by
``y = R x + t``. A particle sees its structure as image coordinates ``u = (A x)_xy - shift``; a pose is right exactly
when the balls of the frame it is against project onto the same coordinates. Nothing of the package is used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

from tests.formats.cryosparc.making import BASE, LOCATION, random_records, save, slot_fields

SIGMA_ANGSTROM = 6.0
PREFIX = {"class3D": "alignments_class3D_", "class": "alignments_class_"}


class SmallJob(NamedTuple):
    """The truth of a job: K structures, N classes, n particles."""

    box: int
    voxel_size: float
    structures: list[np.ndarray]
    structure_of_class: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    mirrored: np.ndarray
    maps: np.ndarray
    posteriors: np.ndarray
    class_of_particle: np.ndarray
    view: np.ndarray
    centre: np.ndarray
    pose: np.ndarray
    pose_shift: np.ndarray

    def balls(self, class_id: int) -> np.ndarray:
        """Positions of the balls of one class in its own frame, (m, 3) in x, y, z."""
        sign = -1 if self.mirrored[class_id] else 1
        structure = self.structures[self.structure_of_class[class_id]]
        return sign * structure @ self.rotation[class_id].T + self.shift[class_id]

    def seen(self, particle: int) -> np.ndarray:
        """Image coordinates of the balls of one particle's class, (m, 2)."""
        structure = self.structures[self.structure_of_class[self.class_of_particle[particle]]]
        return (structure @ self.view[particle].T)[:, :2] - self.centre[particle]


def image_coordinates(balls: np.ndarray, view: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Where balls (m, 3) appear for a view A (volume to image) and the shift that centres the image."""
    return (balls @ view.T)[:, :2] - shift[:2]


def density(balls: np.ndarray, box: int, voxel_size: float) -> np.ndarray:
    """Map [z, y, x] of Gaussian balls around the origin voxel ``box // 2``."""
    axis = (np.arange(box) - box // 2) * voxel_size
    profiles = np.exp(-((axis[None, None] - balls.T[:, :, None]) ** 2) / (2 * SIGMA_ANGSTROM**2))
    weight = np.linspace(1.0, 1.6, len(balls))
    return np.einsum("m,mz,my,mx->zyx", weight, profiles[2], profiles[1], profiles[0], optimize=True)


def make_job(
    *,
    structures: int = 2,
    members: int = 2,
    box: int = 24,
    voxel_size: float = 5.0,
    n_particles: int = 60,
    noise: float = 0.02,
    moved: bool = True,
    mirrored: tuple[int, ...] = (),
    empty: tuple[int, ...] = (),
    maximum_shift: float = 8.0,
    n_balls: int = 14,
    seed: int = 0,
) -> SmallJob:
    """Make classes ``k`` of structure ``k % structures``; classes `empty` are chosen by no particle."""
    random = np.random.default_rng(seed)
    radius = 0.27 * box * voxel_size
    directions = random.normal(size=(structures, n_balls, 3))
    balls = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    balls *= radius * random.uniform(0.15, 1, (structures, n_balls, 1)) ** (1 / 3)
    n_classes = structures * members
    structure_of_class = np.arange(n_classes) % structures
    rotation = Rotation.random(n_classes, random_state=seed).as_matrix() if moved else np.tile(np.eye(3), (n_classes, 1, 1))
    shift = random.uniform(-1, 1, (n_classes, 3)) / np.sqrt(3) * (maximum_shift if moved else 0)
    hand = np.isin(np.arange(n_classes), mirrored)
    chosen = np.setdiff1d(np.arange(n_classes), empty)
    weight = np.linspace(1.5, 1, len(chosen))
    class_of_particle = random.choice(chosen, n_particles, p=weight / weight.sum())
    class_of_particle[: len(chosen)] = chosen
    logits = random.normal(size=(n_particles, n_classes))
    logits[:, list(empty)] = -9
    logits[np.arange(n_particles), class_of_particle] = logits.max(1) + random.uniform(0.1, 3, n_particles)
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    view = Rotation.random(n_particles, random_state=seed + 1).as_matrix()
    centre = random.normal(0, 4, (n_particles, 2))
    # An inversion of the map is a view from behind: A_m = -diag(1, 1, -1) A.
    seen_from = np.where(hand[None, :, None, None], -np.diag([1.0, 1, -1]) @ view[:, None], view[:, None])
    pose = np.einsum("nkab,kcb->nkac", seen_from, rotation)
    pose_shift = centre[:, None] + np.einsum("nkab,kb->nka", pose, shift)[..., :2]
    job = SmallJob(
        box, voxel_size, list(balls), structure_of_class, rotation, shift, hand, np.empty(0), posteriors.astype("f4"),
        class_of_particle, view, centre, pose, pose_shift,
    )  # fmt: skip
    maps = np.stack([density(job.balls(k), box, voxel_size) for k in range(n_classes)])
    maps += noise * maps.std() * random.uniform(0.5, 2, (n_classes, 1, 1, 1)) * random.normal(size=maps.shape)
    return job._replace(maps=maps.astype(np.float32))


def write_map(path: Path, volume: np.ndarray, voxel_size: float) -> Path:
    """Write one map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as stream:
        stream.set_data(volume)
        stream.set_volume()
        stream.voxel_size = voxel_size
    return path


def records_of(job: SmallJob, generation: str) -> np.ndarray:
    """The particles as a CryoSPARC table of one generation: ``multi``, ``class3D`` or ``class``."""
    count, n_classes = job.posteriors.shape
    random = np.random.default_rng(5)
    vectors = Rotation.from_matrix(np.swapaxes(job.pose, -1, -2).reshape(-1, 3, 3)).as_rotvec().reshape(count, n_classes, 3)
    shifts = job.pose_shift / job.voxel_size
    fields = list(BASE)
    if generation == "multi":
        fields += slot_fields("alignments3D_multi", n_classes=n_classes)
    elif generation == "class":
        for class_id in range(n_classes):
            fields += slot_fields(f"alignments_class_{class_id}")
    else:
        fields += slot_fields("alignments3D")
        for class_id in range(n_classes):
            fields += slot_fields(f"alignments_class3D_{class_id}", only=("class_posterior", "class"))
    records = random_records(count, fields, random)
    for name in records.dtype.names:
        if name.endswith("/psize_A"):
            records[name] = job.voxel_size
    if generation == "multi":
        records["alignments3D_multi/class_posterior"] = job.posteriors
        records["alignments3D_multi/class"] = np.arange(n_classes)
        records["alignments3D_multi/pose"], records["alignments3D_multi/shift"] = vectors, shifts
        return records
    rows = np.arange(count)
    for class_id in range(n_classes):
        records[f"{PREFIX[generation]}{class_id}/class_posterior"] = job.posteriors[:, class_id]
        records[f"{PREFIX[generation]}{class_id}/class"] = class_id
        if generation == "class":
            records[f"alignments_class_{class_id}/pose"] = vectors[:, class_id]
            records[f"alignments_class_{class_id}/shift"] = shifts[:, class_id]
    if generation == "class3D":
        # 3D Classification keeps one pose; here it is the pose against the particle's own class.
        records["alignments3D/pose"] = vectors[rows, job.class_of_particle]
        records["alignments3D/shift"] = shifts[rows, job.class_of_particle]
    return records


def write_cryosparc(job: SmallJob, folder: Path, *, generation: str = "multi") -> Path:
    """Write a CryoSPARC job folder with a passthrough file in another row order; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for class_id, volume in enumerate(job.maps):
        write_map(folder / f"cryosparc_P1_J10_class_{class_id:02d}_00042_volume.mrc", volume, job.voxel_size)
    records = records_of(job, generation)
    save(folder / "cryosparc_P1_J10_00042_particles.cs", records)
    location = random_records(len(records), LOCATION, np.random.default_rng(6))
    location["uid"] = records["uid"]
    save(folder / "P1_J10_passthrough_particles.cs", location[np.random.default_rng(7).permutation(len(records))])
    return folder


def write_relion(job: SmallJob, folder: Path, *, style: str = "3.1") -> Path:
    """Write a RELION Class3D job folder, of RELION 3.0 or of 3.1 and later; returns the folder."""
    import pandas as pd
    import starfile

    folder.mkdir(parents=True, exist_ok=True)
    count, n_classes = job.posteriors.shape
    for class_id, volume in enumerate(job.maps):
        write_map(folder / f"run_it025_class{class_id + 1:03d}.mrc", volume, job.voxel_size)
    rows = np.arange(count)
    angles = Rotation.from_matrix(np.swapaxes(job.pose[rows, job.class_of_particle], 1, 2)).as_euler("ZYZ", degrees=True)
    origin = job.pose_shift[rows, job.class_of_particle]
    old = style == "3.0"
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@Extract/job010/stack.mrcs" for row in rows],
            "rlnCoordinateX": np.random.default_rng(3).uniform(0, 4000, count),
            "rlnClassNumber": job.class_of_particle + 1,
            **dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True)),
        }
    )
    if old:
        table["rlnOriginX"], table["rlnOriginY"] = (origin / job.voxel_size).T
        table["rlnMagnification"], table["rlnDetectorPixelSize"] = 10000.0, job.voxel_size
        blocks: dict[str, pd.DataFrame] = {"": table}
    else:
        table["rlnOriginXAngst"], table["rlnOriginYAngst"] = origin.T
        table["rlnOpticsGroup"] = 1
        optics = pd.DataFrame(
            {
                "rlnOpticsGroup": [1],
                "rlnOpticsGroupName": ["opticsGroup1"],
                "rlnImagePixelSize": [job.voxel_size],
                "rlnImageSize": [job.box],
            }
        )
        blocks = {"optics": optics, "particles": table}
    starfile.write(blocks, folder / "run_it025_data.star", overwrite=True, float_format="%.6f")
    general = {"rlnReferenceDimensionality": 3, "rlnPixelSize": job.voxel_size, "rlnNrClasses": n_classes}
    classes = pd.DataFrame(
        {
            "rlnReferenceImage": [f"Class3D/{folder.name}/run_it025_class{k + 1:03d}.mrc" for k in range(n_classes)],
            "rlnClassDistribution": np.bincount(job.class_of_particle, minlength=n_classes) / count,
            "rlnEstimatedResolution": 10.0,
        }
    )
    starfile.write(
        {"model_general": general, "model_classes": classes}, folder / "run_it025_model.star", overwrite=True
    )
    return folder


def write_parquet(job: SmallJob, path: Path, *, posteriors: bool = True) -> Path:
    """Write particles as parquet, with `class_posterior` or with `class_id`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, n_classes = job.posteriors.shape
    columns = {"uid": pa.array(np.arange(count, dtype=np.uint64) + 1000), "quality": pa.array(np.arange(count) / 7)}
    if posteriors:
        columns["class_posterior"] = pa.FixedSizeListArray.from_arrays(pa.array(job.posteriors.ravel()), n_classes)
    else:
        columns["class_id"] = pa.array(job.class_of_particle.astype(np.int32))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path
