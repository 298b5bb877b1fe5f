"""The search for the pose of a pair: candidates from rotation functions, refined from coarse to fine shells."""

from __future__ import annotations

import math

import numpy as np

from regroup_dask.science.candidates import amplitude_poses, coarse_poses, with_best_shifts
from regroup_dask.science.pair_problem import PairProblem, confined, polish_best, refine_over, within_limit
from regroup_dask.science.pose_march import Step, march
from regroup_dask.science.poses import (
    CandidatePoses,
    distinct_poses,
    join_poses,
    neighbour_poses,
    promising_poses,
    same_best,
)

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

MIDDLE_SHELL = 9
"""Poses are ranked over shells up to this one, in cycles per particle box, before all shells decide."""

COARSE_LAG, MIDDLE_LAG = 2.5, 1.5
"""How far, in standard deviations of chance, the pose that wins in the end lags over shells up to 4 and up to 6: less in
97 of 100 pairs of faint maps. Poses further behind are not followed."""

DIFFERENT_DEGREES = 10.0
"""Poses further apart than this are different poses."""

SEPARATE_DEGREES, NEAR_DEGREES = 5.0, 4.0
"""Of faint maps even poses this far apart may lead to maxima of their own."""

FURTHER_DEGREES, NEARER_DEGREES = 14.0, 9.0
"""How far around the best poses of faint maps new ones are tried."""

SURE_LEAD = 1.0
"""A best pose of faint maps this far above the next, in standard deviations of chance, is not looked for once more."""

EARLY, EARLY_AMPLITUDES = 6, 4
"""Around so many poses of a hand new ones are tried after the first step, for either search."""

UNSURE_DEVIATIONS = 14.0
"""Around poses of middle shells no further above chance new ones are tried over all shells."""

NEARBY_LAG, NEARBY_CENTRES, NEARBY_DEGREES, NEARBY_APART = 1.5, 2, 8.0, 2.0
"""How far behind the best they may be, how many they are, how far around them; and how near two maxima of all shells are
to be one."""

UNCERTAIN_DEGREES = 20.0
"""How far from a maximum poses of the coarsest shells may lie."""

FAINT_AMPLITUDES = 2
"""Of faint maps so many times the usual number of candidates of the amplitudes are followed."""

SETTLING = ((1.0, 3), (0.5, 6))
"""Poses this far behind the best over all shells, in standard deviations of chance, are evaluated so many times more."""

ALL = math.inf
"""Lag of poses of which none is left out."""

WIDE_MARCH = (
    Step(6, 3, 24, NEAR_DEGREES, COARSE_LAG),
    Step(7, 2, 12, SEPARATE_DEGREES, MIDDLE_LAG),
    Step(8, 2, 8, SEPARATE_DEGREES, MIDDLE_LAG),
    Step(MIDDLE_SHELL, 2, 6, SEPARATE_DEGREES, MIDDLE_LAG),
)
NARROW_MARCH = (
    Step(6, 3, 16, NEAR_DEGREES, COARSE_LAG),
    Step(7, 2, 10, SEPARATE_DEGREES, MIDDLE_LAG),
    Step(8, 2, 8, SEPARATE_DEGREES, MIDDLE_LAG),
    Step(MIDDLE_SHELL, 2, 6, SEPARATE_DEGREES, MIDDLE_LAG),
)
AROUND = (
    Step(6, 3, 24, 0.0, ALL),
    Step(8, 2, 8, NEAR_DEGREES, MIDDLE_LAG),
    Step(MIDDLE_SHELL, 2, 4, NEAR_DEGREES, MIDDLE_LAG),
)
NEARBY = (
    Step(12, 2, 12 * NEARBY_CENTRES, 0.0, ALL),
    Step(12, 2, 8, NEARBY_APART, COARSE_LAG),
    Step(15, 3, 6, NEARBY_APART, COARSE_LAG),
)
CLOSEST, CLOSEST_DEGREES = (Step(15, 8, 12, 0.0, ALL),), 3.0
"""Steps of the poses of the first search, of those of the amplitudes, of those around a pose; and, over all shells, of those
around the best, and of those closest to it."""


def _first(poses: CandidatePoses, count: int) -> tuple[CandidatePoses, CandidatePoses]:
    """Split a list, best first per hand, after so many poses of each hand."""
    rank = np.where(poses.hand > 0, np.cumsum(poses.hand > 0), np.cumsum(poses.hand < 0))
    return poses.take(np.flatnonzero(rank <= count)), poses.take(np.flatnonzero(rank > count))


def _begin(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over the coarsest shells, and keep those whose shift is allowed."""
    poses = refine_over(problem, poses, 4, 4, 0.5)
    inside = within_limit(problem, poses, UNCERTAIN_DEGREES)
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
    poses is tried again, of shell 6 too, for coarser shells draw together what finer ones part. Only where another pose
    stays near the best do the candidates of the amplitudes follow, which find what the shifts of the first search do
    not reach, and seldom anything else.
    """
    part = 1.0 if problem.plan.hand == "off" else EITHER_HAND
    poses = _followed(problem, coarse, WIDE_MARCH, EARLY)
    poses = _with_those_around(problem, poses, _highest(poses, 2), FURTHER_DEGREES)
    poses = _with_those_around(problem, poses, _highest(poses, 1), NEARER_DEGREES)
    if _lead(problem, distinct_poses(poses, DIFFERENT_DEGREES, 8), MIDDLE_SHELL) > SURE_LEAD:
        return poses
    amplitudes = amplitude_poses(problem, round(FAINT_AMPLITUDES * part * problem.plan.amplitude_candidates))
    amplitudes = _begin(problem, with_best_shifts(problem, amplitudes))
    others = _followed(problem, amplitudes, NARROW_MARCH, EARLY_AMPLITUDES)
    poses = distinct_poses(join_poses([poses, others]), NEAR_DEGREES, 8)
    return _with_those_around(problem, poses, _highest(poses, 1), NEARER_DEGREES)


def _with_those_around(
    problem: PairProblem, poses: CandidatePoses, centres: CandidatePoses, degrees: float
) -> CandidatePoses:
    """Add to poses what is found from an angle around some of them."""
    around = march(problem, neighbour_poses(centres, degrees), AROUND)
    return distinct_poses(join_poses([poses, around]), NEAR_DEGREES, 8)


def _followed(
    problem: PairProblem, poses: CandidatePoses, steps: tuple[Step, ...], centres: int
) -> CandidatePoses:
    """Follow begun poses through steps, after the first of which what lies around the best joins them; the distinct ones."""
    part = 1.0 if problem.plan.hand == "off" else EITHER_HAND
    poses = march(problem, poses, steps[:1], scored_to=4, part=part)
    best = _highest(distinct_poses(poses, DIFFERENT_DEGREES, centres), centres)
    every = steps[0]._replace(width=12 * centres, degrees=0.0, lag=ALL)
    around = march(problem, neighbour_poses(best, FURTHER_DEGREES), (every,))
    poses = march(problem, join_poses([poses, around]), steps[1:], scored_to=steps[0].shell, part=part)
    return distinct_poses(poses, SEPARATE_DEGREES, 8)


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
    candidates = find_poses(problem)
    confidence = _lead(problem, distinct_poses(candidates, DIFFERENT_DEGREES, 8), MIDDLE_SHELL)
    poses = promising_poses(candidates, 4.0 * problem.chance(MIDDLE_SHELL), 4)
    _, first_of_hand = np.unique(poses.hand, return_index=True)
    close = poses.score >= min(poses.score[0] - 3.0 * problem.chance(MIDDLE_SHELL), 0.85 * poses.score[0])
    close[first_of_hand] = True
    unsure = poses.score[0] < UNSURE_DEVIATIONS * problem.chance(MIDDLE_SHELL)
    poses = refine_over(problem, poses.take(np.flatnonzero(close)), problem.plan.finest_shell, 3, 0.01)
    if unsure:
        poses = join_poses([poses, _nearby(problem, _highest(candidates, NEARBY_CENTRES))])
    poses = _settle(problem, poses)
    if unsure:
        poses = _with_closest(problem, poses)
    allowed = within_limit(problem, poses)
    if allowed.any():
        poses = poses.take(np.flatnonzero(allowed))
    poses = confined(problem, polish_best(problem, distinct_poses(poses, DIFFERENT_DEGREES, 4)))
    if np.count_nonzero(poses.hand == poses.hand[0]) > 1:
        confidence = _lead(problem, poses, problem.plan.finest_shell)
    other = np.flatnonzero(poses.hand != poses.hand[0])
    return poses, (int(other[0]) if other.size else None), confidence


def _nearby(problem: PairProblem, centres: CandidatePoses) -> CandidatePoses:
    """Return the best poses over all shells around poses of middle shells: between fine shells one maximum becomes many."""
    centres = centres.take(np.flatnonzero(centres.score > centres.score.max() - NEARBY_LAG * problem.chance(MIDDLE_SHELL)))
    poses = march(problem, neighbour_poses(centres, NEARBY_DEGREES), NEARBY)
    return _highest(distinct_poses(poses, NEARBY_APART, 4), 4)


def _with_closest(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Add what is found closest around the best pose where shells are few: flat maxima, on which interpolation makes steps."""
    if not problem.is_coarse:
        return poses
    return join_poses([poses, march(problem, neighbour_poses(_highest(poses, 1), CLOSEST_DEGREES), CLOSEST)])


def _settle(problem: PairProblem, poses: CandidatePoses) -> CandidatePoses:
    """Refine poses over all shells further where several could still win, or shells are few, until they hardly move."""
    finest = problem.plan.finest_shell
    poses = distinct_poses(poses, NEARBY_APART, 8)
    for lag, evaluations in SETTLING:
        close = poses.score > poses.score.max() - lag * problem.chance(finest)
        if np.count_nonzero(close) < 2 and not problem.is_coarse:
            break
        further = refine_over(problem, poses.take(np.flatnonzero(close)), finest, evaluations, 0.01)
        poses = join_poses([further, poses.take(np.flatnonzero(~close))])
    return poses


def _lead(problem: PairProblem, poses: CandidatePoses, shell: int) -> float:
    """Return how far the best pose stands above the next of its hand, both scored over shells up to one."""
    same = np.flatnonzero(poses.hand == poses.hand[0])
    chance = max(problem.chance(shell), 1e-12)
    second = float(poses.score[same[1]]) if same.size > 1 else HIGHEST_BY_CHANCE * chance
    return float((poses.score[0] - second) / chance)
