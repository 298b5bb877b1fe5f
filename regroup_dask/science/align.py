"""Pairwise alignment of prepared maps over all rotations, shifts within a limit and, if asked, both hands.

    amplitudes, complex coefficients    coarse poses           refined poses            powers per shell
    of both maps      ->  SO(3) FFT  ->  candidates  ->  Gauss-Newton, coarse to fine  ->  PairAlignment

The search works on particle boxes, whose weights per shell come from signal and noise of both maps; the
reported powers and correlation are those of the whole working maps.
"""

from __future__ import annotations

import math

import numpy as np

from regroup_dask.science.alignment_plan import AlignmentPlan, plan_alignment
from regroup_dask.science.pair_problem import PairProblem, pair_problem, refine_candidates
from regroup_dask.science.pair_result import PairAlignment
from regroup_dask.science.pair_search import search_pair
from regroup_dask.science.poses import CandidatePoses
from regroup_dask.science.prepared_map import PreparedMap, prepare_map, prepared_shapes
from regroup_dask.science.shell_statistics import cross_power_at

__all__ = [
    "AlignmentPlan",
    "PairAlignment",
    "PreparedMap",
    "align_pair",
    "measure_pair",
    "plan_alignment",
    "prepare_map",
    "prepared_shapes",
    "refine_pair",
]


def _correlation(cross: np.ndarray, fixed: np.ndarray, moving: np.ndarray) -> float:
    norm = np.sqrt(fixed[1:].sum() * moving[1:].sum())
    return float(cross[1:].sum() / norm) if norm > 0 else 0.0


def measure_pair(
    fixed: PreparedMap,
    moving: PreparedMap,
    plan: AlignmentPlan,
    *,
    rotation: np.ndarray | None = None,
    shift_angstrom: np.ndarray | None = None,
    mirrored: bool = False,
) -> PairAlignment:
    """Compare two maps at a given pose, without searching.

    Parameters
    ----------
    fixed, moving : PreparedMap
    plan : AlignmentPlan
    rotation : numpy.ndarray, optional
        float64 (3, 3); the identity by default, at which nothing is interpolated.
    shift_angstrom : numpy.ndarray, optional
        float64 (3,), (x, y, z).
    mirrored : bool

    Returns
    -------
    PairAlignment
        with ``confidence`` and ``correlation_other_hand`` NaN.
    """
    rotation = np.eye(3) if rotation is None else np.asarray(rotation, dtype=np.float64)
    shift = np.zeros(3) if shift_angstrom is None else np.asarray(shift_angstrom, dtype=np.float64)
    cross, power = cross_power_at(
        fixed.spectrum,
        moving.spectrum,
        moving.padded,
        moving.shell_power,
        box=plan.box,
        rotation=rotation,
        shift_voxels=shift / plan.voxel_size_angstrom,
        mirrored=mirrored,
    )
    return PairAlignment(
        rotation,
        shift,
        bool(mirrored),
        _correlation(cross, fixed.shell_power, power),
        float("nan"),
        float("nan"),
        cross,
        np.array(fixed.shell_power),
        power,
    )


def _result(
    problem: PairProblem, candidates: CandidatePoses, best: int, other_hand: int | None, confidence: float
) -> PairAlignment:
    plan = problem.plan
    shift = problem.map_shift(candidates.rotation[best], candidates.shift[best], candidates.hand[best])
    found = measure_pair(
        problem.fixed,
        problem.moving,
        plan,
        rotation=candidates.rotation[best],
        shift_angstrom=shift * plan.voxel_size_angstrom,
        mirrored=candidates.hand[best] < 0,
    )
    if other_hand is None:
        return found._replace(confidence=confidence)
    chance = max(problem.chance(plan.finest_shell), 1e-12)
    expected = max(problem.expected_deviations(plan.finest_shell) * chance, 1e-12)
    first, second = float(candidates.score[best]), float(candidates.score[other_hand])
    return found._replace(
        correlation_other_hand=_correlation_other_hand(problem, candidates, other_hand, found),
        lead_over_other_hand=(first - second) / chance,
        score=first / expected,
        score_other_hand=second / expected,
        confidence=confidence,
    )


def _correlation_other_hand(
    problem: PairProblem, candidates: CandidatePoses, index: int, found: PairAlignment
) -> float:
    """Return the correlation at a pose of the other hand, in which shells beyond the pair's information count as found.

    Those are most of the coefficients, and the hands do not differ there by more than noise.
    """
    plan = problem.plan
    last = min(plan.box // 2, math.ceil((problem.last_shell + 1) * plan.box / plan.particle_box))
    cross, _ = cross_power_at(
        problem.fixed.spectrum,
        problem.moving.spectrum,
        problem.moving.padded,
        problem.moving.shell_power,
        box=plan.box,
        rotation=candidates.rotation[index],
        shift_voxels=problem.map_shift(candidates.rotation[index], candidates.shift[index], candidates.hand[index]),
        mirrored=candidates.hand[index] < 0,
        last_shell=last,
    )
    whole = np.concatenate([cross, found.cross_power[last + 1 :]])
    return _correlation(whole, found.power_fixed, found.power_moving)


def align_pair(fixed: PreparedMap, moving: PreparedMap, plan: AlignmentPlan) -> PairAlignment:
    """Find the pose that superposes the moving map onto the fixed one.

    Parameters
    ----------
    fixed, moving : PreparedMap
        prepared with this plan.
    plan : AlignmentPlan

    Returns
    -------
    PairAlignment
        ``x_fixed = R x_moving + t``, with x -> -x first when ``mirrored``. ``confidence`` is how far the best
        pose stands above the best pose that differs from it, in standard deviations of chance agreement.
    """
    problem = pair_problem(fixed, moving, plan)
    candidates, other_hand, confidence = search_pair(problem)
    return _result(problem, candidates, 0, other_hand, confidence)


def refine_pair(
    fixed: PreparedMap,
    moving: PreparedMap,
    plan: AlignmentPlan,
    *,
    rotation: np.ndarray,
    shift_angstrom: np.ndarray,
    mirrored: bool = False,
) -> PairAlignment:
    """Refine a pose near a given one; parameters and result as for `measure_pair`."""
    problem = pair_problem(fixed, moving, plan)
    hand = -1.0 if mirrored else 1.0
    rotation = np.asarray(rotation, dtype=np.float64)
    centred = np.asarray(shift_angstrom, dtype=np.float64) / plan.voxel_size_angstrom - problem.centre_term(
        rotation, hand
    )
    start = CandidatePoses(rotation[None].copy(), centred[None].copy(), np.array([hand]), np.zeros(1))
    candidates = refine_candidates(problem, start)
    return _result(problem, candidates, 0, None, float("nan"))
