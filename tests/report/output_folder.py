"""A small output folder as a run leaves it, made from balls of density, for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.formats.pairs_store import pairs_dataset, write_pairs
from regroup_dask.formats.result_tables import write_table
from regroup_dask.formats.run_folder import write_run
from regroup_dask.steps.tables import CLASS_SCHEMA, SUPERCLASS_SCHEMA

VOXEL_SIZE_ANGSTROM = 4.0
BALLS = ((0, 0, 0, 5.0), (4, 3, -3, 3.0), (-5, 0, 2, 3.0), (0, -6, 0, 2.5), (3, -3, 5, 2.0))
"""Centre (z, y, x) in voxels and radius of each ball; superclass k has all but ball k + 1."""


def ball_map(superclass: int, *, box: int = 24, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Balls with soft edges, one of them left out, and white noise."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((box,) * 3)
    for number, (cz, cy, cx, radius) in enumerate(BALLS):
        if number and number - 1 == superclass % (len(BALLS) - 1):
            continue
        distance = np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
        volume = np.maximum(volume, np.clip(radius + 0.5 - distance, 0, 1))
    rng = np.random.default_rng(seed)
    return (volume + noise * rng.standard_normal(volume.shape)).astype(np.float32)


def write_output(
    folder: Path,
    *,
    labels: tuple[int, ...] = (0, 1, 0, 1, 0, 1),
    status: tuple[str, ...] | None = None,
    align: bool = True,
    particles: bool = True,
    pairs: bool = True,
    maps: bool = True,
    volumes: bool = True,
    box: int = 24,
    rows_per_class: int = 50,
    names: tuple[str, ...] | None = None,
    warnings: tuple[str, ...] = (),
) -> Path:
    """Write an output folder; classes of label -1 were not grouped."""
    folder.mkdir(parents=True)
    n_classes = len(labels)
    count = max(labels) + 1
    superclass = np.array(labels)
    sizes = rows_per_class + 3 * np.arange(n_classes)[::-1]
    status = status or tuple("grouped" if label >= 0 else "too_small" for label in labels)
    names = names or tuple(f"class_{index:02d}" for index in range(n_classes))
    turns = Rotation.from_rotvec(np.zeros((n_classes, 3)))
    quaternion = turns.as_quat(canonical=True)
    reference = [int(np.flatnonzero(superclass == label)[0]) for label in range(count)]
    write_table(
        pa.table(
            {
                "class_id": list(range(n_classes)),
                "name": list(names),
                "volume": [f"/maps/{name}.mrc" for name in names],
                "n_particles": sizes.tolist() if particles else [None] * n_classes,
                "status": list(status),
                "superclass": list(labels),
                "mirrored": [False] * n_classes,
                "rotation_quaternion": quaternion.tolist(),
                "shift_angstrom": [[0.0] * 3] * n_classes,
                "similarity_to_superclass": [0.98 if label >= 0 else None for label in labels],
                "stability": [0.97 if label >= 0 else None for label in labels],
                "note": [""] * n_classes,
            },
            schema=CLASS_SCHEMA,
        ),
        folder,
        "classes",
    )
    totals = [int(sizes[superclass == label].sum()) for label in range(count)]
    write_table(
        pa.table(
            {
                "superclass": list(range(count)),
                "n_classes": [int((superclass == label).sum()) for label in range(count)],
                "n_particles": totals if particles else [None] * count,
                "reference_class": reference,
                "stability": [1.0] * count,
                "volume": [f"volumes/superclass_{label:03d}.mrc" for label in range(count)],
            },
            schema=SUPERCLASS_SCHEMA,
        ),
        folder,
        "superclasses",
    )
    grouped = np.flatnonzero(superclass >= 0)
    if pairs:
        write_pairs(_pairs(grouped, superclass[grouped], sizes[grouped], names, align), folder / "pairs.zarr")
    if maps:
        _class_maps(superclass, box).to_zarr(folder / "classes.zarr", consolidated=False)
    if volumes:
        density = np.stack([ball_map(label, box=box) for label in range(count)])
        xr.Dataset(
            {"volume": (("superclass", "z", "y", "x"), density)}, attrs={"voxel_size_angstrom": VOXEL_SIZE_ANGSTROM}
        ).to_zarr(folder / "volumes.zarr", consolidated=False)
    if particles:
        _write_particles(folder, superclass, sizes, count)
    remaining = int(sizes[superclass < 0].sum())
    write_run(folder, _record(count, n_classes, int(sizes.sum()), remaining, align, particles, warnings))
    return folder


def _pairs(class_ids: np.ndarray, labels: np.ndarray, sizes: np.ndarray, names: tuple[str, ...], align: bool) -> xr.Dataset:
    count = len(class_ids)
    rng = np.random.default_rng(1)
    same = labels[:, None] == labels[None, :]
    apart = np.abs(labels[:, None] - labels[None, :])
    noise = rng.normal(0, 0.004, (count, count))
    similarity = np.where(same, 0.985, 0.85 - 0.02 * apart) + (noise + noise.T) / 2
    np.fill_diagonal(similarity, 1.0)
    variables = {
        "correlation": similarity - 0.2 * (1 - np.eye(count)),
        "similarity": similarity,
        "distance": 1 - similarity,
        "distance_sigma": 0.01 * (1 - np.eye(count)),
        "rotation_quaternion": np.tile([0.0, 0.0, 0.0, 1.0], (count, count, 1)),
        "shift_angstrom": np.zeros((count, count, 3)),
        "mirrored": np.zeros((count, count), bool),
        "confidence": np.full((count, count), 12.0),
        "corrected": np.isin(np.arange(count * count), [1, count]).reshape(count, count),  # the first two classes
    }
    return pairs_dataset(
        class_ids,
        names=[names[index] for index in class_ids],
        n_particles=sizes,
        variables=variables,
        attributes={"align": int(align), "box": 24, "voxel_size_angstrom": VOXEL_SIZE_ANGSTROM},
    )


def _class_maps(labels: np.ndarray, box: int) -> xr.Dataset:
    maps = np.stack([ball_map(max(label, 0), box=box, noise=0.1, seed=index) for index, label in enumerate(labels)])
    shells = box // 2 + 1
    powers = np.ones((len(labels), shells))
    return xr.Dataset(
        {
            "density": (("class_id", "z", "y", "x"), maps),
            "map_power": (("class_id", "shell"), 10 * powers),
            "solvent_power": (("class_id", "shell"), powers),
            "resolution_angstrom": ("class_id", np.full(len(labels), 9.0)),
            "particle_radius_angstrom": ("class_id", np.full(len(labels), 36.0)),
        },
        coords={"class_id": np.arange(len(labels))},
        attrs={"voxel_size_angstrom": VOXEL_SIZE_ANGSTROM},
    )


def _write_particles(folder: Path, labels: np.ndarray, sizes: np.ndarray, count: int) -> None:
    for destination in range(-1, count):
        place = folder / ("remaining" if destination < 0 else f"particles/superclass={destination}")
        place.mkdir(parents=True)
        members = np.flatnonzero(labels == destination)
        assigned = np.repeat(members, sizes[members]).astype(np.int32)
        posterior = np.full((len(assigned), count), 0.1 / max(count - 1, 1), np.float32)
        posterior[:, max(destination, 0)] = 0.9
        values = pa.FixedSizeListArray.from_arrays(pa.array(posterior.ravel()), count)
        pq.write_table(pa.table({"assigned_class_id": assigned, "superclass_posterior": values}), place / "frag00000-0.parquet")


def _record(
    count: int, n_classes: int, total: int, remaining: int, align: bool, particles: bool, warnings: tuple[str, ...]
) -> dict:
    return {
        "status": "complete",
        "command": "regroup-dask run job -k 2 -o OUT",
        "settings": {
            "n_superclasses": count,
            "minimum_class_size": 40,
            "exclude_classes": [],
            "align": align,
            "maximum_shift_angstrom": 20.0,
            "posteriors": "argmax",
            "hand": "detect",
            "frame": "superclass",
            "similarity": "structure",
            "seed": 0,
        },
        "inputs": {"job": "/projects/P1/J10", "volumes": ["/maps/class_00.mrc"]},
        "found": ["CryoSPARC job J10"],
        "fingerprints": [{"path": "/maps/class_00.mrc", "bytes": 55296, "sha256": "0" * 64}],
        "versions": {"python": "3.11.0", "regroup-dask": "0.1.0"},
        "n_classes": n_classes,
        "n_superclasses": count,
        "n_particles": total if particles else None,
        "n_particles_remaining": remaining if particles else None,
        "n_particles_rules_differ": 3 if particles else None,
        "grouping": {"n_superclasses": count},
        "warnings": list(warnings),
        "seconds": {"Reading maps": 1.5, "Aligning pairs": 4.25, "Writing the report": 0.75},
    }
