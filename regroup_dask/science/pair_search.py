"""The search for the pose of a pair: candidates from rotation functions, refined from coarse to fine shells."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from regroup_dask.science.alignment_plan import (
    OVERSAMPLING,
    AlignmentPlan,
    particle_coefficients,
    shift_bank,
)
from regroup_dask.science.pair_problem import PairProblem, confined, polish_best, refine_over, within_limit
from regroup_dask.science.poses import (
    CandidatePoses,
    distinct_poses,
    join_poses,
    neighbour_poses,
    promising_poses,
    same_best,
)
from regroup_dask.science.rotation_function import (
    RotationGrid,
    best_over_bank,
    correlate_rotations,
    rotation_grid,
    separated_peaks,
)
from regroup_dask.science.rotations import quaternion_to_matrix
from regroup_dask.science.translation import best_shifts

CLEAR_DEVIATIONS = 6.0
CLEAR_RATIO = 0.6
"""A best pose this far above the next, in standard deviations of chance and as a ratio, ends the search."""

STRONG_DEVIATIONS = 20.0
"""A best pose this far above chance cannot be one of many by chance: what rivals it is the map's own symmetry."""

HIGHEST_BY_CHANCE = 5.0
"""Where no other pose was followed, the next is taken to be as high as the best of unrelated poses commonly is."""

FAINT_DEVIATIONS = 11.0
"""Maps that would score less than this above chance if they were one structure are searched as faint ones."""

EITHER_HAND = 0.5
"""When both hands are tried, each gets this part of the candidates that a single one gets."""

SHIFT_SHELL = 5
"""Shells up to this one decide on the shift of a rotation."""

MIDDLE_SHELL = 9
"""Poses are ranked over shells up to this one, in cycles per particle box, before all shells decide."""

COARSE_LAG, MIDDLE_LAG = 2.5, 1.5
"""How far, in standard deviations of chance, the pose that wins in the end lags over shells up to 4 and up to 6: less in
97 of 100 pairs of faint maps. Poses further behind are not followed."""

FEW_COEFFICIENTS = 2000
"""Up to so many coefficients a step costs so little that poses are refined to the end."""

DIFFERENT_DEGREES = 10.0
"""Poses further apart than this are different poses."""

SEPARATE_DEGREES, NEAR_DEGREES = 5.0, 4.0
"""Of faint maps even poses this far apart may lead to maxima of their own."""

FURTHER_DEGREES, NEARER_DEGREES = 14.0, 9.0
"""How far around the best poses of faint maps new ones are tried."""

SURE_LEAD = 1.0
"""A best pose of faint maps this far above the next, in standard deviations of chance, is not looked for once more."""


class Step(NamedTuple):
    """One step of a refinement from coarse to fine: so many poses of a hand, evaluated so often over shells up to one."""

    shell: int
    evaluations: int
    width: int


WIDE_MARCH = (Step(6, 3, 32), Step(7, 2, 16), Step(8, 2, 12), Step(MIDDLE_SHELL, 2, 8))
NARROW_MARCH = (Step(6, 3, 16), Step(7, 2, 10), Step(8, 2, 8), Step(MIDDLE_SHELL, 2, 6))
AROUND = (Step(6, 3, 24), Step(8, 2, 12), Step(MIDDLE_SHELL, 2, 6))
"""Steps of the poses of the first search, of those of the amplitudes, and of those around a pose."""


def _grid(plan: AlignmentPlan, *, amplitudes: bool) -> RotationGrid:
    degree = plan.amplitude_degree if amplitudes else plan.coarse_degree
    return rotation_grid(degree, even_only=amplitudes, n_azimuth=2 * degree + 2, n_beta=degree + 3)


def coarse_poses(problem: PairProblem, count: int) -> CandidatePoses:
    """Return poses from the correlation of complex coefficients over rotations and a bank of shifts, best first."""
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
        best_over_bank(flat, best, which)
        peaks = separated_peaks(best.reshape(values.shape[1:4]), grid.quaternions, count, 18.0)
        rotation = quaternion_to_matrix(grid.quaternions[peaks])
        parts.append(
            CandidatePoses(
                rotation,
                shifts[which[peaks]].copy(),
                np.full(len(peaks), 1.0 - 2.0 * side),
                best[peaks].astype(np.float64),
            )
        )
    return join_poses(parts)


def amplitude_poses(problem: PairProblem, count: int) -> CandidatePoses:
    """Return poses from the rotation function of amplitudes, best first, whose shifts are not known yet."""
    plan = problem.plan
    grid = _grid(plan, amplitudes=True)
    radius = 1.5 + 0.5 * np.arange(plan.amplitude_shells)
    weight = np.interp(radius, np.arange(plan.finest_shell + 1), problem.shell_weight) * radius**2
    moving = problem.moving.amplitudes * weight.astype(np.float32)
    values = correlate_rotations(problem.fixed.amplitudes[:, :, None], moving, grid, first_degree=2)
    peaks = separated_peaks(np.ascontiguousarray(values[0, ..., 0]), grid.quaternions, count, 12.0)
    rotation = quaternion_to_matrix(grid.quaternions[peaks])
    hand, score = np.ones(len(peaks)), values.reshape(-1)[peaks].astype(np.float64)
    if plan.hand == "detect":
        rotation, hand = np.concatenate([rotation, rotation]), np.concatenate([hand, -hand])
        score = np.concatenate([score, score])
    return CandidatePoses(rotation, np.zeros((len(hand), 3)), hand, score)


def with_best_shifts(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Give each pose the best shift for its rotation."""
    plan = problem.plan
    frequency, _, ends = particle_coefficients(plan.finest_shell)
    terms = problem.fixed.centre_voxels - poses.hand[:, None] * (poses.rotation @ problem.moving.centre_voxels)
    shift, _ = best_shifts(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        problem.weight,
        int(ends[min(SHIFT_SHELL, plan.finest_shell)]),
        float(plan.particle_box),
        poses.rotation,
        poses.hand,
        terms,
        plan.maximum_shift_voxels,
    )
    return poses._replace(shift=shift)


def _first(poses: CandidatePoses, count: int) -> tuple[CandidatePoses, CandidatePoses]:
    """Split a list, best first per hand, after so many poses of each hand."""
    rank = np.where(poses.hand > 0, np.cumsum(poses.hand > 0), np.cumsum(poses.hand < 0))
    return poses.take(np.flatnonzero(rank <= count)), poses.take(np.flatnonzero(rank > count))


def _begin(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over the coarsest shells, and keep those whose shift is allowed."""
    poses = refine_over(problem, poses, 4, 4, 0.5)
    inside = within_limit(problem, poses)
    return poses.take(np.flatnonzero(inside)) if inside.any() else confined(problem, poses)


def _funnel(problem: PairProblem, poses: CandidatePoses, *, width: int, apart: float) -> CandidatePoses:
    """Refine begun poses more and more, and fewer and fewer, up to the middle shells; those nearer than `apart` are one."""
    poses = promising_poses(distinct_poses(poses, 0.8 * apart, 2 * width), COARSE_LAG * problem.chance(4), 2 * width)
    poses = refine_over(problem, poses, 6, 5, 0.2)
    poses = promising_poses(distinct_poses(poses, apart, width), MIDDLE_LAG * problem.chance(6), width)
    return distinct_poses(refine_over(problem, poses, MIDDLE_SHELL, 5, 0.05), apart, width)


def _is_clear(problem: PairProblem, poses: CandidatePoses) -> bool:
    """Tell whether the best pose stands so far above the rest that no other search can find a better one."""
    second = float(poses.score[1]) if len(poses.score) > 1 else 0.0
    ahead = poses.score[0] - second
    return bool(
        ahead > CLEAR_DEVIATIONS * problem.chance(MIDDLE_SHELL) and second < CLEAR_RATIO * poses.score[0]
    )


def find_poses(problem: PairProblem) -> CandidatePoses:
    """Search all rotations, shifts within the limit and, if planned, both hands; best pose first.

    The complex coefficients of the coarse shells come first. When their best pose does not stand clear of the
    next, the rotation function of amplitudes adds its candidates, each with its best shift; and when those
    two independent searches disagree, both follow up more peaks. Where chance is as high as anything found, the
    peaks are followed in more and shorter steps instead (`_faint_poses`).
    """
    plan = problem.plan
    part, further = (1.0, 3) if plan.hand == "off" else (EITHER_HAND, 2)
    n_coarse, n_amplitude = round(part * plan.coarse_candidates), round(part * plan.amplitude_candidates)
    coarse, more_coarse = _first(coarse_poses(problem, further * n_coarse), n_coarse)
    coarse = _begin(problem, coarse)
    if problem.expected_deviations(MIDDLE_SHELL) <= FAINT_DEVIATIONS:
        return _faint_poses(problem, join_poses([coarse, _begin(problem, more_coarse)]))
    poses = _funnel(problem, coarse, width=6, apart=DIFFERENT_DEGREES)
    if _is_clear(problem, poses):
        return poses
    chance = problem.chance(MIDDLE_SHELL)
    if poses.score[0] <= STRONG_DEVIATIONS * chance and _lead(problem, poses, MIDDLE_SHELL) <= 3.0:
        return _faint_poses(problem, join_poses([coarse, _begin(problem, more_coarse)]))
    amplitudes, more_amplitudes = _first(amplitude_poses(problem, further * n_amplitude), n_amplitude)
    amplitudes = _begin(problem, with_best_shifts(problem, amplitudes))
    others = _funnel(problem, amplitudes, width=6, apart=DIFFERENT_DEGREES)
    both = distinct_poses(join_poses([poses, others]), DIFFERENT_DEGREES, 8)
    strong = both.score[0] > STRONG_DEVIATIONS * chance
    sure = strong or _lead(problem, both, MIDDLE_SHELL) > 3.0
    if _is_clear(problem, both) or (sure and same_best(poses, others, 0.3 * chance if strong else 0.0)):
        return both
    more = _begin(problem, join_poses([more_coarse, with_best_shifts(problem, more_amplitudes)]))
    wide = _funnel(problem, more, width=round(16 * part), apart=SEPARATE_DEGREES)
    both = distinct_poses(join_poses([both, wide]), SEPARATE_DEGREES, 8)
    return _with_those_around(problem, both, _highest(both, 2), FURTHER_DEGREES)


def _faint_poses(problem: PairProblem, coarse: CandidatePoses) -> CandidatePoses:
    """Follow begun poses of maps in which a true pose need not stand above chance; best pose first.

    From one shell to the next the maxima of such maps move and part: steps are short, and what lies around the best
    poses is tried again, from the best of shell 6 too, which between finer shells may fall behind before it has moved
    to its new place. Only where another pose stays near the best do the candidates of the amplitudes follow, which
    find what the shifts of the first search do not reach, and seldom anything else.
    """
    poses, early = _follow(problem, coarse, WIDE_MARCH)
    poses = _with_those_around(problem, poses, early, FURTHER_DEGREES)
    poses = _with_those_around(problem, poses, _highest(poses, 2), FURTHER_DEGREES)
    poses = _with_those_around(problem, poses, _highest(poses, 1), NEARER_DEGREES)
    if _lead(problem, distinct_poses(poses, DIFFERENT_DEGREES, 8), MIDDLE_SHELL) > SURE_LEAD:
        return poses
    part = 1.0 if problem.plan.hand == "off" else EITHER_HAND
    amplitudes = amplitude_poses(problem, round(2 * part * problem.plan.amplitude_candidates))
    amplitudes = _begin(problem, with_best_shifts(problem, amplitudes))
    others, _ = _follow(problem, amplitudes, NARROW_MARCH)
    poses = distinct_poses(join_poses([poses, others]), NEAR_DEGREES, 8)
    return _with_those_around(problem, poses, _highest(poses, 1), NEARER_DEGREES)


def _with_those_around(
    problem: PairProblem, poses: CandidatePoses, centres: CandidatePoses, degrees: float
) -> CandidatePoses:
    """Add to poses what is found from an angle around some of them."""
    around = _march(problem, neighbour_poses(centres, degrees), AROUND)
    return distinct_poses(join_poses([poses, around]), NEAR_DEGREES, 8)


def _follow(
    problem: PairProblem, poses: CandidatePoses, steps: tuple[Step, ...]
) -> tuple[CandidatePoses, CandidatePoses]:
    """Follow begun poses through steps; return the distinct ones at the end and the best after the first step."""
    part = 1.0 if problem.plan.hand == "off" else EITHER_HAND
    first = steps[0]._replace(width=round(part * steps[0].width))
    poses = promising_poses(distinct_poses(poses, NEAR_DEGREES, first.width), COARSE_LAG * problem.chance(4), first.width)
    poses = _march(problem, poses, (first,))
    early = _highest(poses, 1)
    for before, step in pairwise(steps):
        width = max(3, round(part * step.width))
        poses = distinct_poses(poses, SEPARATE_DEGREES, width)
        poses = promising_poses(poses, MIDDLE_LAG * problem.chance(before.shell), width)
        poses = _march(problem, poses, (step,))
    return distinct_poses(poses, SEPARATE_DEGREES, 8), early


def _march(problem: PairProblem, poses: CandidatePoses, steps: tuple[Step, ...]) -> CandidatePoses:
    """Refine poses over more and more shells; only as many as a step is wide, and as could still be the best, go on."""
    for number, step in enumerate(steps):
        if number:
            poses = distinct_poses(poses, NEAR_DEGREES, step.width)
            poses = promising_poses(poses, MIDDLE_LAG * problem.chance(steps[number - 1].shell), step.width)
        poses = refine_over(problem, poses, step.shell, step.evaluations, 0.05)
    return poses


def _highest(poses: CandidatePoses, count: int) -> CandidatePoses:
    return poses.take(np.argsort(-poses.score, kind="stable")[:count])


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
    confidence = _lead(problem, distinct_poses(poses, DIFFERENT_DEGREES, 8), MIDDLE_SHELL)
    poses = promising_poses(poses, 4.0 * problem.chance(MIDDLE_SHELL), 4)
    _, first_of_hand = np.unique(poses.hand, return_index=True)
    close = poses.score >= min(poses.score[0] - 3.0 * problem.chance(MIDDLE_SHELL), 0.85 * poses.score[0])
    close[first_of_hand] = True
    poses = _settle(problem, poses.take(np.flatnonzero(close)))
    poses = confined(problem, polish_best(problem, distinct_poses(poses, DIFFERENT_DEGREES, 4)))
    if np.count_nonzero(poses.hand == poses.hand[0]) > 1:
        confidence = _lead(problem, poses, problem.plan.finest_shell)
    other = np.flatnonzero(poses.hand != poses.hand[0])
    return poses, (int(other[0]) if other.size else None), confidence


def _settle(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over all shells; where several could still win, or shells are few, until they move no more."""
    finest = problem.plan.finest_shell
    count = int(particle_coefficients(finest)[2][problem.last_shell])
    poses = refine_over(problem, poses, finest, 3 if count > FEW_COEFFICIENTS else 12, 0.01)
    close = poses.score > poses.score.max() - problem.chance(finest)
    if count <= FEW_COEFFICIENTS or np.count_nonzero(close) < 2:
        return poses
    further = refine_over(problem, poses.take(np.flatnonzero(close)), finest, 8, 0.01)
    return join_poses([further, poses.take(np.flatnonzero(~close))])


def _lead(problem: PairProblem, poses: CandidatePoses, shell: int) -> float:
    """Return how far the best pose stands above the next of its hand, both scored over shells up to one."""
    same = np.flatnonzero(poses.hand == poses.hand[0])
    chance = max(problem.chance(shell), 1e-12)
    second = float(poses.score[same[1]]) if same.size > 1 else HIGHEST_BY_CHANCE * chance
    return float((poses.score[0] - second) / chance)
