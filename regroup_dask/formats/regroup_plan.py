"""What became of the classes, and where each particle goes: what the writers of particle files are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np


class ClassPose(NamedTuple):
    """How a class map moves into its superclass frame: ``x -> -x`` if mirrored, then ``R x + t``."""

    rotation: np.ndarray
    """f64[3, 3]"""
    shift_angstrom: np.ndarray
    """f64[3], (x, y, z)"""
    mirrored: bool = False


class MovePoses(Protocol):
    """The law by which poses follow their class map: `science.particle_poses.move_poses`."""

    def __call__(
        self,
        rotation: np.ndarray,
        shift_angstrom: np.ndarray,
        class_rotation: np.ndarray,
        class_shift_angstrom: np.ndarray,
        mirrored: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move ``rotation`` f64[n,3,3] (particle to volume) and ``shift_angstrom`` f64[n,2|3], row by row.

        ``class_rotation`` f64[n, 3, 3], ``class_shift_angstrom`` f64[n, 3] and ``mirrored`` bool[n] are the
        pose of the class of each row. The image moves by +shift to centre it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RegroupPlan:
    """What became of the classes: everything a task needs to write its fragment of particles.

    Attributes
    ----------
    n_superclasses : int
        K.
    class_ids : tuple of int
        Classes of the source, in the order of `ParticleSource.class_ids`.
    superclass_of_class : mapping of int to int
        -1 where the class was excluded or too small.
    pose_of_class : mapping of int to ClassPose
        Pose of each grouped class into its superclass frame; a class that is missing stays where it is.
    update_poses : bool
        Poses of particles follow their class; otherwise every pose is written as it was read.
    move_poses : callable
        The law of the update. Formats know files and not geometry, so it is handed in.
    """

    n_superclasses: int
    class_ids: tuple[int, ...]
    superclass_of_class: Mapping[int, int]
    pose_of_class: Mapping[int, ClassPose] = field(default_factory=dict)
    update_poses: bool = False
    move_poses: MovePoses | None = None

    def __post_init__(self) -> None:
        if self.update_poses and self.move_poses is None:
            raise ValueError("update_poses needs move_poses, the law by which poses follow their class")

    def class_pose_arrays(self, class_index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spread the class poses over rows.

        Parameters
        ----------
        class_index : int[...]
            Index into `class_ids` for each row; negative means no class, and the identity.

        Returns
        -------
        rotation f64[..., 3, 3], shift_angstrom f64[..., 3], mirrored bool[...]
        """
        n = len(self.class_ids)
        rotation = np.broadcast_to(np.eye(3), (n + 1, 3, 3)).copy()
        shift = np.zeros((n + 1, 3))
        mirrored = np.zeros(n + 1, dtype=bool)
        for index, class_id in enumerate(self.class_ids):
            pose = self.pose_of_class.get(class_id)
            if pose is not None and self.superclass_of_class.get(class_id, -1) >= 0:
                rotation[index], shift[index], mirrored[index] = pose
        row = np.where(np.asarray(class_index) < 0, n, class_index)
        return rotation[row], shift[row], mirrored[row]

    def moves(self, class_index: np.ndarray) -> np.ndarray:
        """Tell for each row whether its class moves at all: rows that do not keep their bits. bool[...]."""
        classes = np.arange(-1, len(self.class_ids))
        rotation, shift, mirrored = self.class_pose_arrays(classes)
        still = (rotation == np.eye(3)).all(axis=(-2, -1)) & (shift == 0).all(axis=-1) & ~mirrored
        return (~still & self.update_poses)[np.maximum(class_index, -1) + 1]


class Assignment(NamedTuple):
    """Where each row of a fragment goes.

    A row of the remaining ones (superclass -1) has class_id -1 when its posteriors say nothing (NaN or all
    zero).
    """

    class_id: np.ndarray
    """i32[n], the best class of all, by id; -1 when the posteriors say nothing"""
    superclass: np.ndarray
    """i32[n], -1 for remaining"""
    superclass_posterior: np.ndarray
    """f32[n, K], soft: the summed posteriors of the classes of each superclass"""
    best_class_in_superclass: np.ndarray
    """i32[n, K], index into ``class_ids`` of the best class within each superclass, -1 when there is none"""

    def class_index(self, plan: RegroupPlan) -> np.ndarray:
        """Index into ``plan.class_ids`` of the class whose pose each row keeps, -1 for remaining. i32[n].

        With posteriors summed over a superclass the best class of all may lie elsewhere; the pose that
        follows is that of the best class within the superclass chosen.
        """
        n = len(self.superclass)
        chosen = np.full(n, -1, dtype=np.int32)
        inside = np.flatnonzero(self.superclass >= 0)
        chosen[inside] = self.best_class_in_superclass[inside, self.superclass[inside]]
        if plan.n_superclasses and (chosen >= len(plan.class_ids)).any():
            raise ValueError("best_class_in_superclass must hold indices into class_ids")
        return chosen


class OutputFiles(Protocol):
    """What `create_outputs` tells the tasks; each side has its own, small and picklable."""

    @property
    def folder(self) -> str:
        """The side's own folder."""
        ...


class SuperclassMaps(NamedTuple):
    """The maps that a side refers to in its groups and models; absolute paths inside the output folder."""

    paths: tuple[str, ...]
    """superclass maps, in order"""
    box: int
    voxel_size_angstrom: float
    series_zip: str | None = None
    mask: str | None = None
    resolution_angstrom: tuple[float, ...] | None = None
    folder_for_relion: str | None = None
    """where RELION shall look for the folder ``relion``: it looks from the folder it runs in, its project, so
    absolute, or relative to the project where that is known; by default maps are named relative to model.star"""
    ssnr: tuple[np.ndarray, ...] | None = None
    """spectral signal-to-noise ratio of each superclass by shell, f64[n_shells]; empty where it is not known"""


def assigned_order(superclass: np.ndarray, n_superclasses: int) -> list[np.ndarray]:
    """Return the rows of each superclass in input order, and of the remaining ones last: K + 1 arrays."""
    groups = [np.flatnonzero(superclass == k) for k in range(n_superclasses)]
    return [*groups, np.flatnonzero(superclass < 0)]
