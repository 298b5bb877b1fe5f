"""Two prepared maps as a problem to solve: how their shells are weighed, and how poses are refined."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from regroup_dask.science.alignment_plan import OVERSAMPLING, AlignmentPlan, particle_coefficients
from regroup_dask.science.poses import CandidatePoses, join_poses
from regroup_dask.science.prepared_map import PreparedMap
from regroup_dask.science.refinement import refine_poses, shell_products
from regroup_dask.science.rotations import rotation_angle_degrees

SHARED_STRUCTURE = 0.9
"""Correlation that two noise-free class maps are taken to have; it keeps strong shells from drowning the others."""

LARGEST_CORRELATION = 0.995
"""Correlation per shell beyond which the last refinement trusts no shell more."""


CERTAIN_DEVIATIONS = 8.0
"""Shells tell their correlation, and so their weights, only at a pose this far above chance."""

FEW_COEFFICIENTS, CERTAIN_OF_FEW = 2000, 12.0
"""Up to so many coefficients, which tell little of weights and take little time, a pose is certain only this far above chance."""

ALIKE = 0.8
"""Or the score is as high as this: maps with little noise, whatever it was taken to be, correlate in all their shells."""

MOST_ROUNDS, SETTLED_DEGREES = 3, 1.0
"""So many times more such maps are weighed anew, as long as the pose that follows is another one."""

FLAT_DEVIATIONS = 14.0
"""A pose no further above chance has a flat maximum, which takes many steps."""

TOLERATED_LOSS = 0.1
"""Standard deviations of chance that the last refinement may then take from the score of the search."""

INFORMATION = 0.99
"""Part of what the shells can tell of a pair that the search looks at: finer shells cost time and are noise."""


class PairProblem(NamedTuple):
    """Two prepared maps with the weights that fit them both.

    Attributes
    ----------
    fixed, moving : PreparedMap
    plan : AlignmentPlan
    last_shell : int
        the finest shell that the search uses.
    shell_weight : numpy.ndarray
        float64 (finest + 1,) per coefficient.
    weight : numpy.ndarray
        float32 (c,).
    cube : numpy.ndarray
        float32, flat view of the moving spectrum.
    energies : numpy.ndarray
        float64 (4, finest + 1), sums over shells up to each of w P_fixed, w P_moving, w^2 P_fixed P_moving and
        w times the signal that both have.
    curvature : numpy.ndarray
        float64 (finest + 1, 6, 6), weighted curvature summed over shells up to each.
    """

    fixed: PreparedMap
    moving: PreparedMap
    plan: AlignmentPlan
    last_shell: int
    shell_weight: np.ndarray
    weight: np.ndarray
    cube: np.ndarray
    energies: np.ndarray
    curvature: np.ndarray

    def centre_term(self, rotation: np.ndarray, hand: float) -> np.ndarray:
        """Return what to add to a centred shift to get the shift between the maps."""
        return self.fixed.centre_voxels - hand * (rotation @ self.moving.centre_voxels)

    def map_shift(self, rotation: np.ndarray, shift: np.ndarray, hand: float) -> np.ndarray:
        """Return the shift between the maps, in voxels."""
        return shift + self.centre_term(rotation, hand)

    def shift_uncertainty(self, degrees: float) -> float:
        """Return by how much, in voxels, the shift between maps of particles off the centre changes with the rotation."""
        return math.radians(degrees) * float(np.sqrt((self.moving.centre_voxels**2).sum()))

    def chance(self, shell: int) -> float:
        """Return the standard deviation of the score of unrelated maps over shells up to one."""
        fixed, moving, product, _ = self.energies[:, min(shell, self.last_shell)]
        return math.sqrt(0.5 * product) / max(math.sqrt(fixed * moving), 1e-300)

    @property
    def is_coarse(self) -> bool:
        """Whether the search uses so few coefficients that poses may well be refined to the end."""
        return int(particle_coefficients(self.plan.finest_shell)[2][self.last_shell]) <= FEW_COEFFICIENTS

    def expected_deviations(self, shell: int) -> float:
        """Return how far above chance, in its standard deviations, two maps of one structure should score."""
        _, _, product, signal = self.energies[:, min(shell, self.last_shell)]
        return float(signal / max(math.sqrt(0.5 * product), 1e-300))


def pair_problem(fixed: PreparedMap, moving: PreparedMap, plan: AlignmentPlan) -> PairProblem:
    """Weigh the shells of a pair by the signal that both maps have there.

    For two Gaussian variables of correlation rho the likelihood ratio against independence weighs their
    product by rho / (1 - rho^2) after scaling both to unit power; rho is the geometric mean of the
    reliabilities.
    """
    rho = SHARED_STRUCTURE * np.sqrt(fixed.reliability * moving.reliability)
    power = np.sqrt(fixed.power * moving.power)
    weight = np.where(power > 0, rho / (1.0 - rho**2) / np.maximum(power, 1e-300), 0.0)
    weight[0] = 0.0
    if not weight.any():
        weight = np.where(power > 0, 1.0 / np.maximum(power, 1e-300), 0.0)
        weight[0] = 0.0
    return _weighted(fixed, moving, plan, weight, _last_shell(rho, plan.finest_shell))


def _last_shell(rho: np.ndarray, finest_shell: int) -> int:
    """Return the shell up to which practically all information lies; shells below the error of rho tell nothing."""
    count = np.maximum(np.diff(particle_coefficients(finest_shell)[2], prepend=0), 1)
    information = np.cumsum(np.where(rho**2 * count > 1.0, rho**2 * count, 0.0))
    if information[-1] <= 0:
        return finest_shell
    return max(4, min(finest_shell, int(np.searchsorted(information, INFORMATION * information[-1]))))


def _weighted(
    fixed: PreparedMap, moving: PreparedMap, plan: AlignmentPlan, weight: np.ndarray, last_shell: int
) -> PairProblem:
    """Put a pair together with weights per shell and everything that follows from them."""
    _, shells, ends = particle_coefficients(plan.finest_shell)
    count = np.diff(ends, prepend=0)
    both = np.sqrt(fixed.power * moving.power)
    signal = both * np.sqrt(fixed.reliability * moving.reliability)
    terms = np.stack([weight * fixed.power, weight * moving.power, (weight * both) ** 2, weight * signal])
    return PairProblem(
        fixed,
        moving,
        plan,
        last_shell,
        weight,
        weight.astype(np.float32)[shells],
        moving.cube.reshape(-1).view(np.float32),
        np.cumsum(count * terms, axis=1),
        np.cumsum(weight[:, None, None] * fixed.curvature, axis=0),
    )


def refine_over(
    problem: PairProblem, poses: CandidatePoses, shell: int, iterations: int, tolerance: float
) -> CandidatePoses:
    """Refine poses over the shells up to one, with at most so many evaluations each.

    ``tolerance`` is the length of the last step, in voxels at the rim of the particle.
    """
    frequency, _, ends = particle_coefficients(problem.plan.finest_shell)
    shell = min(shell, problem.last_shell)
    fixed_energy, moving_energy = problem.energies[:2, shell]
    rotation, shift = poses.rotation.copy(), poses.shift.copy()
    score = refine_poses(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        problem.weight,
        int(ends[shell]),
        float(problem.plan.particle_box),
        problem.curvature[shell],
        float(fixed_energy),
        float(moving_energy),
        rotation,
        shift,
        poses.hand,
        iterations,
        tolerance,
    )
    return CandidatePoses(rotation, shift, poses.hand, score)


def reweighed(problem: PairProblem, poses: CandidatePoses, index: int) -> PairProblem:
    """Return the problem with weights from the correlation per shell that the maps have at one pose.

    What noise was estimated and what structure was taken to be shared gives way to what is found: the weights
    become those of the likelihood, whatever sets the two maps apart.
    """
    frequency, _, ends = particle_coefficients(problem.plan.finest_shell)
    cross, fixed, moving = shell_products(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        ends,
        float(problem.plan.particle_box),
        poses.rotation[index],
        poses.shift[index],
        float(poses.hand[index]),
    )
    count = np.maximum(np.diff(ends, prepend=0), 1)
    rho = cross / np.sqrt(np.maximum(fixed * moving, 1e-300))
    smooth = rho.copy()
    smooth[2:-1] = 0.25 * rho[1:-2] + 0.5 * rho[2:-1] + 0.25 * rho[3:]
    rho = np.clip(np.where(smooth > 1.0 / np.sqrt(count), smooth, 0.0), 0.0, LARGEST_CORRELATION)
    power = np.sqrt(problem.fixed.power * problem.moving.power)
    weight = np.where(power > 0, rho / (1.0 - rho**2) / np.maximum(power, 1e-300), 0.0)
    weight[0] = 0.0
    if not weight.any():
        return problem._replace(last_shell=problem.plan.finest_shell)
    return _weighted(problem.fixed, problem.moving, problem.plan, weight, problem.plan.finest_shell)


def polish_best(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine the first pose once more, over all shells, with the weights that fit what was found.

    Of faint maps those weights are mostly noise: the pose stays, as it does where they take it downhill by the search's
    own score.
    """
    finest = problem.plan.finest_shell
    best = poses.take(np.array([0]))
    before, chance = float(best.score[0]), problem.chance(finest)
    if before <= FLAT_DEVIATIONS * chance:
        best = refine_over(problem, best, finest, 24 if problem.is_coarse else 12, 0.001)
        before = float(best.score[0])
        poses = join_poses([best, poses.take(np.arange(1, len(poses.score)))])
    if before <= (CERTAIN_OF_FEW if problem.is_coarse else CERTAIN_DEVIATIONS) * chance and before < ALIKE:
        return poses
    better = refine_over(reweighed(problem, best, 0), best, finest, 5, 0.001)
    for _ in range(MOST_ROUNDS if before >= ALIKE else 0):
        if rotation_angle_degrees(better.rotation[0], best.rotation[0]) < SETTLED_DEGREES:
            break
        best = better
        better = refine_over(reweighed(problem, best, 0), best, finest, 5, 0.001)
    after = float(refine_over(problem, better, finest, 1, 0.001).score[0])
    if after < before - TOLERATED_LOSS * chance:
        return poses
    rotation, shift = poses.rotation.copy(), poses.shift.copy()
    rotation[0], shift[0] = better.rotation[0], better.shift[0]
    return poses._replace(rotation=rotation, shift=shift)


def refine_candidates(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over middle and then all shells."""
    poses = refine_over(problem, poses, 8, 6, 0.02)
    return polish_best(problem, refine_over(problem, poses, problem.plan.finest_shell, 6, 0.005))


def confined(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Shorten shifts between the maps that are beyond the limit and a voxel to the limit."""
    terms = problem.fixed.centre_voxels - poses.hand[:, None] * (
        poses.rotation @ problem.moving.centre_voxels
    )
    length = np.sqrt(((poses.shift + terms) ** 2).sum(axis=1))
    limit = problem.plan.maximum_shift_voxels
    part = np.where(length > limit + 1.0, limit / np.maximum(length, 1e-9), 1.0)[:, None]
    return poses._replace(shift=np.where(part < 1.0, part * (poses.shift + terms) - terms, poses.shift))


def within_limit(problem: PairProblem, poses: CandidatePoses, uncertainty_degrees: float = 0.0) -> np.ndarray:
    """Return which poses shift the maps by no more than the limit and a voxel; bool (p,).

    Of poses whose rotation is uncertain it may be longer by `PairProblem.shift_uncertainty`.
    """
    terms = problem.fixed.centre_voxels - poses.hand[:, None] * (
        poses.rotation @ problem.moving.centre_voxels
    )
    length = np.sqrt(((poses.shift + terms) ** 2).sum(axis=1))
    return length <= problem.plan.maximum_shift_voxels + 1.0 + problem.shift_uncertainty(uncertainty_degrees)
