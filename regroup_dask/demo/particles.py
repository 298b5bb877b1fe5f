"""Particle tables as CryoSPARC 4.5 and later: posteriors and poses over all classes, and a passthrough."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

IMAGE_BOX = 256
MICROGRAPH_SHAPE = (4092, 5760)
MICROGRAPH_PIXEL_ANGSTROM = 0.83
WRONG_STATE_SHARE = 0.03
ANGLE_ERROR_DEGREES = 1.5
SHIFT_ERROR_ANGSTROM = 0.8

_BASE_FIELDS: list[tuple] = [
    ("uid", "<u8"),
    ("blob/path", "S64"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("blob/sign", "<f4"),
    ("blob/import_sig", "<u8"),
    ("ctf/type", "S9"),
    ("ctf/exp_group_id", "<u4"),
    ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"),
    ("ctf/df1_A", "<f4"),
    ("ctf/df2_A", "<f4"),
    ("ctf/df_angle_rad", "<f4"),
    ("ctf/phase_shift_rad", "<f4"),
    ("ctf/scale", "<f4"),
    ("ctf/scale_const", "<f4"),
    ("ctf/shift_A", "<f4", (2,)),
    ("ctf/tilt_A", "<f4", (2,)),
    ("ctf/trefoil_A", "<f4", (2,)),
    ("ctf/tetra_A", "<f4", (4,)),
    ("ctf/anisomag", "<f4", (4,)),
    ("ctf/bfactor", "<f4"),
]
_LOCATION_FIELDS: list[tuple] = [
    ("uid", "<u8"),
    ("location/micrograph_uid", "<u8"),
    ("location/exp_group_id", "<u4"),
    ("location/micrograph_path", "S64"),
    ("location/micrograph_shape", "<u4", (2,)),
    ("location/center_x_frac", "<f4"),
    ("location/center_y_frac", "<f4"),
    ("location/micrograph_psize_A", "<f4"),
]


class Assigned(NamedTuple):
    """Which class each particle was given, and what it truly is.

    Attributes
    ----------
    class_id : int64[n]
    state : int64[n]
        -1 for junk.
    posterior : float32[n, n_classes]
    """

    class_id: np.ndarray
    state: np.ndarray
    posterior: np.ndarray


class ClassPoses(NamedTuple):
    """Poses that take the common frame into each class map: y = R x + t."""

    rotation: np.ndarray
    shift_angstrom: np.ndarray


def assign_particles(
    n_particles: int, shares: np.ndarray, state_of_class: np.ndarray, rng: np.random.Generator
) -> Assigned:
    """Draw each particle's class, its true state, and posteriors that go with both.

    A particle's classes of its own state share its posterior with the class it was given, as they do in real
    jobs; a few particles sit in a class of another state.
    """
    n_classes = len(shares)
    class_id = rng.choice(n_classes, n_particles, p=shares / shares.sum())
    state = state_of_class[class_id].copy()
    wrong = (rng.random(n_particles) < WRONG_STATE_SHARE) & (state >= 0)
    n_states = int(state_of_class.max()) + 1
    state[wrong] = (state[wrong] + rng.integers(1, n_states, wrong.sum())) % n_states
    logits = rng.normal(0, 1.0, (n_particles, n_classes)) + 2.0 * (state_of_class == state[:, None])
    rows = np.arange(n_particles)
    logits[rows, class_id] = logits.max(axis=1) + rng.gamma(1.2, 1.2, n_particles) + 0.05
    posterior = np.exp(logits - logits.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return Assigned(class_id, state, posterior.astype(np.float32))


def particle_table(
    assigned: Assigned,
    poses: ClassPoses,
    uid: np.ndarray,
    micrograph: np.ndarray,
    *,
    voxel_size_angstrom: float,
    box: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Primary table: images, CTF, and pose, shift and posterior for every class.

    A particle of pose P (its frame to the common one) has, against a class map that lies at y = R x + t, the
    pose R P and a shift larger by (P'^T t)_xy, in pixels of the class maps.

    Returns
    -------
    structured array [n]
    """
    n_particles, n_classes = assigned.posterior.shape
    common = Rotation.random(n_particles, random_state=rng)
    centre = rng.normal(0, 3.0, (n_particles, 2))
    posed = np.empty((n_particles, n_classes, 3), dtype=np.float32)
    shifts = np.empty((n_particles, n_classes, 2), dtype=np.float32)
    for number in range(n_classes):
        wobble = Rotation.from_rotvec(
            np.deg2rad(ANGLE_ERROR_DEGREES / np.sqrt(3)) * rng.normal(size=(n_particles, 3))
        )
        moved = Rotation.from_matrix(poses.rotation[number]) * common * wobble
        in_image = moved.inv().apply(poses.shift_angstrom[number])[:, :2]
        shift = centre + in_image + rng.normal(0, SHIFT_ERROR_ANGSTROM, (n_particles, 2))
        posed[:, number] = moved.as_rotvec()
        shifts[:, number] = shift / voxel_size_angstrom
    slot: list[tuple] = [
        ("alignments3D_multi/split", "<u4"),
        ("alignments3D_multi/shift", "<f4", (n_classes, 2)),
        ("alignments3D_multi/pose", "<f4", (n_classes, 3)),
        ("alignments3D_multi/psize_A", "<f4"),
        ("alignments3D_multi/class_posterior", "<f4", (n_classes,)),
        ("alignments3D_multi/class", "<u4", (n_classes,)),
    ]
    table = np.zeros(n_particles, dtype=_BASE_FIELDS + slot)
    _fill_images(table, uid, micrograph, pixel_angstrom=box * voxel_size_angstrom / IMAGE_BOX)
    _fill_ctf(table, micrograph, rng)
    table["alignments3D_multi/split"] = rng.integers(0, 2, n_particles)
    table["alignments3D_multi/shift"] = shifts
    table["alignments3D_multi/pose"] = posed
    table["alignments3D_multi/psize_A"] = voxel_size_angstrom
    table["alignments3D_multi/class_posterior"] = assigned.posterior
    table["alignments3D_multi/class"] = np.arange(n_classes)
    return table


def passthrough_table(uid: np.ndarray, micrograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where each particle lies in its micrograph; rows in another order than the primary table's."""
    table = np.zeros(len(uid), dtype=_LOCATION_FIELDS)
    micrograph_uid = rng.integers(1, 2**63 - 1, micrograph.max() + 1, dtype=np.uint64)
    table["uid"] = uid
    table["location/micrograph_uid"] = micrograph_uid[micrograph]
    table["location/exp_group_id"] = 1
    table["location/micrograph_path"] = [
        f"J3/motioncorrected/demo_{number:04d}_doseweighted.mrc".encode() for number in micrograph
    ]
    table["location/micrograph_shape"] = MICROGRAPH_SHAPE
    table["location/center_x_frac"] = rng.uniform(0.03, 0.97, len(uid))
    table["location/center_y_frac"] = rng.uniform(0.03, 0.97, len(uid))
    table["location/micrograph_psize_A"] = MICROGRAPH_PIXEL_ANGSTROM
    return table[rng.permutation(len(uid))]


def write_table(path: Path, table: np.ndarray) -> None:
    """Write a table with CryoSPARC's own library."""
    from cryosparc.dataset import Dataset

    Dataset(table).save(str(path))


def _fill_images(
    table: np.ndarray, uid: np.ndarray, micrograph: np.ndarray, *, pixel_angstrom: float
) -> None:
    first_of_micrograph = np.searchsorted(micrograph, micrograph)
    table["uid"] = uid
    table["blob/path"] = [f"J9/extract/demo_{number:04d}_particles.mrc".encode() for number in micrograph]
    table["blob/idx"] = np.arange(len(uid)) - first_of_micrograph
    table["blob/shape"] = IMAGE_BOX
    table["blob/psize_A"] = pixel_angstrom
    table["blob/sign"] = -1


def _fill_ctf(table: np.ndarray, micrograph: np.ndarray, rng: np.random.Generator) -> None:
    count = micrograph.max() + 1
    defocus = rng.uniform(8000, 22000, count)[micrograph] + rng.normal(0, 80, len(table))
    table["ctf/type"] = b"spline"
    table["ctf/exp_group_id"] = 1
    table["ctf/accel_kv"] = 300.0
    table["ctf/cs_mm"] = 2.7
    table["ctf/amp_contrast"] = 0.1
    table["ctf/df1_A"] = defocus
    table["ctf/df2_A"] = defocus - rng.uniform(20, 400, count)[micrograph]
    table["ctf/df_angle_rad"] = rng.uniform(0, np.pi, count)[micrograph]
    table["ctf/scale"] = 1.0
