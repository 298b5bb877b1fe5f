"""The search for the pose of a pair: candidates from rotation functions, refined from coarse to fine shells."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from regroup_dask.science.alignment_plan import (
    OVERSAMPLING,
    AlignmentPlan,
    particle_coefficients,
    shift_bank,
)
from regroup_dask.science.prepared_map import PreparedMap
from regroup_dask.science.refinement import refine_poses, shell_products
from regroup_dask.science.rotation_function import (
    RotationGrid,
    _best_over_bank,
    correlate_rotations,
    rotation_grid,
    separated_peaks,
)
from regroup_dask.science.rotations import quaternion_to_matrix, rotation_vector_to_matrix
from regroup_dask.science.translation import best_shifts

SHARED_STRUCTURE = 0.9
"""Correlation that two noise-free class maps are taken to have; it keeps strong shells from drowning the others."""

CLEAR_DEVIATIONS = 6.0
CLEAR_RATIO = 0.6
"""A best pose this far above the next, in standard deviations of chance and as a ratio, ends the search."""

MIDDLE_SHELL = 9
"""Poses are ranked over shells up to this one, in cycles per particle box, before all shells decide."""

LARGEST_CORRELATION = 0.995
"""Correlation per shell beyond which the last refinement trusts no shell more."""

DIFFERENT_DEGREES = 10.0
"""Poses further apart than this are different poses."""


class CandidatePoses(NamedTuple):
    """Poses of the centred maps.

    Attributes
    ----------
    rotation : numpy.ndarray
        float64 (p, 3, 3).
    shift : numpy.ndarray
        float64 (p, 3) in voxels, between the particle boxes.
    hand : numpy.ndarray
        float64 (p,), -1 for mirrored.
    score : numpy.ndarray
        float64 (p,), weighted correlation coefficient.
    """

    rotation: np.ndarray
    shift: np.ndarray
    hand: np.ndarray
    score: np.ndarray

    def take(self, index: np.ndarray) -> CandidatePoses:
        """Return the poses at some indices."""
        return CandidatePoses(*(field[index] for field in self))


class PairProblem(NamedTuple):
    """Two prepared maps with the weights that fit them both.

    Attributes
    ----------
    fixed, moving : PreparedMap
    plan : AlignmentPlan
    shell_weight : numpy.ndarray
        float64 (finest + 1,) per coefficient.
    weight : numpy.ndarray
        float32 (c,).
    cube : numpy.ndarray
        float32, flat view of the moving spectrum.
    """

    fixed: PreparedMap
    moving: PreparedMap
    plan: AlignmentPlan
    shell_weight: np.ndarray
    weight: np.ndarray
    cube: np.ndarray

    def centre_term(self, rotation: np.ndarray, hand: float) -> np.ndarray:
        """Return what to add to a centred shift to get the shift between the maps."""
        return self.fixed.centre_voxels - hand * (rotation @ self.moving.centre_voxels)

    def map_shift(self, rotation: np.ndarray, shift: np.ndarray, hand: float) -> np.ndarray:
        """Return the shift between the maps, in voxels."""
        return shift + self.centre_term(rotation, hand)

    def chance(self, shell: int) -> float:
        """Return the standard deviation of the score of unrelated maps over shells up to one."""
        ends = particle_coefficients(self.plan.finest_shell)[2]
        count = np.diff(ends, prepend=0)[: shell + 1]
        w, a, b = (x[: shell + 1] for x in (self.shell_weight, self.fixed.power, self.moving.power))
        norm = math.sqrt(float((count * w * a).sum() * (count * w * b).sum()))
        return math.sqrt(0.5 * float((count * w**2 * a * b).sum())) / max(norm, 1e-300)


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
    _, shells, _ = particle_coefficients(plan.finest_shell)
    cube = moving.cube.reshape(-1).view(np.float32)
    return PairProblem(fixed, moving, plan, weight, weight.astype(np.float32)[shells], cube)


def refine_over(
    problem: PairProblem, poses: CandidatePoses, shell: int, iterations: int, tolerance: float
) -> CandidatePoses:
    frequency, _, ends = particle_coefficients(problem.plan.finest_shell)
    shell = min(shell, problem.plan.finest_shell)
    count = np.diff(ends, prepend=0)[: shell + 1]
    w = problem.shell_weight[: shell + 1]
    hessian = np.tensordot(w, problem.fixed.curvature[: shell + 1], axes=1)
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
        hessian,
        float((w * count * problem.fixed.power[: shell + 1]).sum()),
        float((w * count * problem.moving.power[: shell + 1]).sum()),
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
    frequency, shells, ends = particle_coefficients(problem.plan.finest_shell)
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
        return problem
    return problem._replace(shell_weight=weight, weight=weight.astype(np.float32)[shells])


def polish_best(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine the first pose once more, over all shells, with the weights that fit what was found."""
    best = poses.take(np.array([0]))
    better = refine_over(reweighed(problem, best, 0), best, problem.plan.finest_shell, 6, 0.001)
    rotation, shift = poses.rotation.copy(), poses.shift.copy()
    rotation[0], shift[0] = better.rotation[0], better.shift[0]
    return poses._replace(rotation=rotation, shift=shift)


def refine_candidates(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over middle and then all shells."""
    poses = refine_over(problem, poses, 8, 6, 0.02)
    return polish_best(problem, refine_over(problem, poses, problem.plan.finest_shell, 6, 0.005))


def _grid(plan: AlignmentPlan, *, amplitudes: bool) -> RotationGrid:
    degree = plan.amplitude_degree if amplitudes else plan.coarse_degree
    return rotation_grid(degree, even_only=amplitudes, n_azimuth=2 * degree + 2, n_beta=degree + 3)


def coarse_poses(problem: PairProblem, count: int) -> CandidatePoses:
    """Return poses from the correlation of complex coefficients over rotations and a bank of shifts."""
    plan = problem.plan
    grid = _grid(plan, amplitudes=False)
    shells = np.arange(1, plan.coarse_shells + 1)
    weight = problem.shell_weight[shells] * shells**2
    moving = problem.moving.coarse_bank[:, :, 0] * weight.astype(np.float32)
    both = plan.hand == "detect"
    values = correlate_rotations(problem.fixed.coarse_bank, moving, grid, both_hands=both)
    shifts = shift_bank(plan.bank_spacing, plan.bank_radius)
    parts = []
    for side in range(values.shape[0]):
        flat = values[side].reshape(-1, values.shape[-1])
        best = np.empty(flat.shape[0], dtype=np.float32)
        which = np.empty(flat.shape[0], dtype=np.int64)
        _best_over_bank(flat, best, which)
        peaks = separated_peaks(best.reshape(values.shape[1:4]), grid.quaternions, count, 18.0)
        rotation = quaternion_to_matrix(grid.quaternions[peaks])
        parts.append(
            CandidatePoses(
                rotation,
                shifts[which[peaks]].copy(),
                np.full(len(peaks), 1.0 - 2.0 * side),
                np.zeros(len(peaks)),
            )
        )
    return _join(parts)


def amplitude_poses(problem: PairProblem, count: int) -> CandidatePoses:
    """Return poses from the rotation function of amplitudes, each with its best shift."""
    plan = problem.plan
    grid = _grid(plan, amplitudes=True)
    radius = 1.5 + 0.5 * np.arange(plan.amplitude_shells)
    weight = np.interp(radius, np.arange(plan.finest_shell + 1), problem.shell_weight) * radius**2
    moving = problem.moving.amplitudes * weight.astype(np.float32)
    values = correlate_rotations(problem.fixed.amplitudes[:, :, None], moving, grid, first_degree=2)
    peaks = separated_peaks(np.ascontiguousarray(values[0, ..., 0]), grid.quaternions, count, 12.0)
    rotation = quaternion_to_matrix(grid.quaternions[peaks])
    hand = np.ones(len(peaks))
    if plan.hand == "detect":
        rotation, hand = np.concatenate([rotation, rotation]), np.concatenate([hand, -hand])
    frequency, _, ends = particle_coefficients(plan.finest_shell)
    terms = problem.fixed.centre_voxels - hand[:, None] * (rotation @ problem.moving.centre_voxels)
    shift, _ = best_shifts(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        problem.weight,
        int(ends[min(7, plan.finest_shell)]),
        float(plan.particle_box),
        rotation,
        hand,
        terms,
        plan.maximum_shift_voxels,
    )
    return CandidatePoses(rotation, shift, hand, np.zeros(len(hand)))


def _join(parts: list[CandidatePoses]) -> CandidatePoses:
    return CandidatePoses(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _within_limit(problem: PairProblem, poses: CandidatePoses) -> np.ndarray:
    terms = problem.fixed.centre_voxels - poses.hand[:, None] * (
        poses.rotation @ problem.moving.centre_voxels
    )
    length = np.sqrt(((poses.shift + terms) ** 2).sum(axis=1))
    return length <= problem.plan.maximum_shift_voxels + 1.0


def _distinct(poses: CandidatePoses, degrees: float, count: int) -> CandidatePoses:
    """Keep the best-scored poses that differ from better ones by an angle or hand, at most `count` per hand."""
    cosine = 1.0 + 2.0 * math.cos(math.radians(degrees))
    kept: list[int] = []
    taken = {1.0: 0, -1.0: 0}
    for i in np.argsort(-poses.score, kind="stable"):
        hand = float(poses.hand[i])
        if taken[hand] >= count:
            continue
        same = [k for k in kept if poses.hand[k] == hand]
        if same and (np.einsum("kab,ab->k", poses.rotation[same], poses.rotation[i]) > cosine).any():
            continue
        kept.append(int(i))
        taken[hand] += 1
    return poses.take(np.array(kept, dtype=np.int64))


def _promising(poses: CandidatePoses, deviation: float, most: int) -> CandidatePoses:
    """Keep the poses, best first, whose score could still turn out to be the best: 2 to `most` per hand.

    Scores over more shells and after more steps can rise: by a few standard deviations of chance agreement, or by
    a fifth of the best score where the map is what makes poses alike (pseudosymmetry).
    """
    kept: list[int] = []
    for hand in (1.0, -1.0):
        here = np.flatnonzero(poses.hand == hand)
        here = here[np.argsort(-poses.score[here], kind="stable")][:most]
        if here.size:
            top = float(poses.score[here[0]])
            good = poses.score[here] >= min(top - 4.0 * deviation, 0.8 * top)
            good[:2] = True
            kept.extend(here[good])
    order = np.array(kept, dtype=np.int64)
    return poses.take(order[np.argsort(-poses.score[order], kind="stable")])


def _funnel(problem: PairProblem, poses: CandidatePoses, *, width: int) -> CandidatePoses:
    """Refine many poses a little and few of them more, up to the middle shells; `width` scales how many."""
    poses = refine_over(problem, poses, 4, 4, 0.5)
    inside = _within_limit(problem, poses)
    if inside.any():
        poses = poses.take(np.flatnonzero(inside))
    poses = _promising(_distinct(poses, 8.0, 2 * width), 2.0 * problem.chance(4), 2 * width)
    poses = refine_over(problem, poses, 6, 5, 0.2)
    poses = _promising(_distinct(poses, DIFFERENT_DEGREES, width), problem.chance(6), width)
    poses = refine_over(problem, poses, MIDDLE_SHELL, 5, 0.05)
    return _distinct(poses, DIFFERENT_DEGREES, width)


def _is_clear(problem: PairProblem, poses: CandidatePoses) -> bool:
    """Tell whether the best pose stands so far above the rest that no other search can find a better one."""
    second = float(poses.score[1]) if len(poses.score) > 1 else 0.0
    ahead = poses.score[0] - second
    return bool(ahead > CLEAR_DEVIATIONS * problem.chance(MIDDLE_SHELL) and second < CLEAR_RATIO * poses.score[0])


def _same_best(first: CandidatePoses, second: CandidatePoses) -> bool:
    """Tell whether two searches ended at one pose."""
    return bool(
        first.hand[0] == second.hand[0]
        and np.sum(first.rotation[0] * second.rotation[0]) > 1.0 + 2.0 * math.cos(math.radians(5.0))
    )


def _neighbours(poses: CandidatePoses, degrees: float) -> CandidatePoses:
    """Return poses turned from given ones by an angle about the twelve vertices of an icosahedron."""
    golden = 0.5 * (1.0 + math.sqrt(5.0))
    axes = [(0.0, a, b * golden) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    vertices = np.array([np.roll(axis, turn) for turn in range(3) for axis in axes])
    vertices *= math.radians(degrees) / math.sqrt(1.0 + golden**2)
    turns = np.array([rotation_vector_to_matrix(vertex) for vertex in vertices])
    return CandidatePoses(
        np.einsum("vab,pbc->pvac", turns, poses.rotation).reshape(-1, 3, 3),
        np.einsum("vab,pb->pva", turns, poses.shift).reshape(-1, 3),
        np.repeat(poses.hand, len(turns)),
        np.repeat(poses.score, len(turns)),
    )


def find_poses(problem: PairProblem) -> CandidatePoses:
    """Search all rotations, shifts within the limit and, if planned, both hands; best pose first.

    The complex coefficients of the coarse shells come first. When their best pose does not stand clear of the next,
    the rotation function of amplitudes adds its candidates, each with its best shift; and when those two
    independent searches disagree, both follow up more peaks.
    """
    plan = problem.plan
    poses = _funnel(problem, coarse_poses(problem, plan.coarse_candidates), width=6)
    if _is_clear(problem, poses):
        return poses
    others = _funnel(problem, amplitude_poses(problem, plan.amplitude_candidates), width=6)
    both = _distinct(_join([poses, others]), DIFFERENT_DEGREES, 8)
    chance = problem.chance(MIDDLE_SHELL)
    sure = _lead(problem, both) > 3.0 or both.score[0] > 20.0 * chance
    if _is_clear(problem, both) or (sure and _same_best(poses, others)):
        return both
    wide = _join(
        [
            coarse_poses(problem, 3 * plan.coarse_candidates),
            amplitude_poses(problem, 3 * plan.amplitude_candidates),
        ]
    )
    both = _distinct(_join([both, _funnel(problem, wide, width=16)]), DIFFERENT_DEGREES, 8)
    around = refine_over(problem, _neighbours(both.take(np.arange(min(2, len(both.score)))), 14.0), 6, 5, 0.2)
    around = refine_over(problem, _distinct(around, 6.0, 6), MIDDLE_SHELL, 5, 0.05)
    both = _join([both, around])
    both = _distinct(both, 4.0, 8)
    return _distinct(refine_over(problem, both, problem.plan.finest_shell, 4, 0.01), DIFFERENT_DEGREES, 8)


def search_pair(problem: PairProblem) -> tuple[CandidatePoses, int | None, float]:
    """Find the pose of a pair, and what came next.

    Returns
    -------
    poses : CandidatePoses
        refined over all shells, best first.
    other_hand : int or None
        index of the best pose of the other hand.
    confidence : float
        lead of the best pose over the next of its hand, in standard deviations of chance agreement.
    """
    poses = find_poses(problem)
    confidence = _lead(problem, poses)
    poses = _promising(poses, problem.chance(MIDDLE_SHELL), 4)
    hands, first_of_hand = np.unique(poses.hand, return_index=True)
    close = poses.score >= min(poses.score[0] - 3.0 * problem.chance(MIDDLE_SHELL), 0.85 * poses.score[0])
    close[first_of_hand] = True
    poses = refine_over(problem, poses.take(np.flatnonzero(close)), problem.plan.finest_shell, 4, 0.01)
    poses = polish_best(problem, _distinct(poses, DIFFERENT_DEGREES, 4))
    if np.count_nonzero(poses.hand == poses.hand[0]) > 1:
        confidence = _lead(problem, poses)
    other = np.flatnonzero(poses.hand != poses.hand[0])
    return poses, (int(other[0]) if other.size else None), confidence


def _lead(problem: PairProblem, poses: CandidatePoses) -> float:
    same = np.flatnonzero(poses.hand == poses.hand[0])
    second = float(poses.score[same[1]]) if same.size > 1 else 0.0
    shell = MIDDLE_SHELL if same.size > 1 else problem.plan.finest_shell
    return float((poses.score[0] - second) / max(problem.chance(shell), 1e-12))
