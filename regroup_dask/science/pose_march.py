"""Poses followed from coarse to fine shells, in one compiled piece: refine, keep those that could still win, refine further."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from regroup_dask.science.alignment_plan import OVERSAMPLING, particle_coefficients
from regroup_dask.science.pair_problem import PairProblem
from regroup_dask.science.poses import CandidatePoses, select_distinct, select_promising
from regroup_dask.science.refinement import refine_poses

STEP_TOLERANCE = 0.05
"""Poses whose last movement was shorter, in voxels at the rim of the particle, are not moved further in a step."""


class Step(NamedTuple):
    """One step of a refinement from coarse to fine.

    Attributes
    ----------
    shell : int
        poses are refined over shells up to this one.
    evaluations : int
        at most so many times.
    width : int
        the best so many poses of a hand take part.
    degrees : float
        poses nearer to better ones than this do not.
    lag : float
        nor those this far behind the best, in standard deviations of chance over the shells before.
    """

    shell: int
    evaluations: int
    width: int
    degrees: float
    lag: float


@njit(cache=True, nogil=True)
def _march(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    box: float,
    curvature: np.ndarray,
    energies: np.ndarray,
    ends: np.ndarray,
    shells: np.ndarray,
    limits: np.ndarray,
    rotations: np.ndarray,
    shifts: np.ndarray,
    hands: np.ndarray,
    scores: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Run the steps: rows of shells are shell, evaluations and width, of limits the least trace and the largest lag."""
    for number in range(shells.shape[0]):
        shell, evaluations, width = shells[number, 0], shells[number, 1], shells[number, 2]
        order = np.argsort(-scores, kind="mergesort")
        kept = np.empty(len(order), dtype=np.int64)
        order = kept[: select_distinct(rotations, hands, order, limits[number, 0], width, kept)].copy()
        kept = kept[: select_promising(scores, hands, order, limits[number, 1], width, kept)]
        rotations, shifts, hands = rotations[kept], shifts[kept], hands[kept]
        scores = refine_poses(
            cube,
            reach,
            oversampling,
            frequency,
            coefficients,
            weight,
            ends[shell],
            box,
            curvature[shell],
            energies[0, shell],
            energies[1, shell],
            rotations,
            shifts,
            hands,
            evaluations,
            tolerance,
        )
    return rotations, shifts, hands, scores


def march(
    problem: PairProblem, poses: CandidatePoses, steps: tuple[Step, ...], *, scored_to: int = 4, part: float = 1.0
) -> CandidatePoses:
    """Refine poses step by step; only as many as a step is wide, and as could still be the best, go on.

    Parameters
    ----------
    problem : PairProblem
    poses : CandidatePoses
        at least one.
    steps : tuple of Step
    scored_to : int
        the shell up to which the given poses were scored.
    part : float
        of each step's width, three poses at least.

    Returns
    -------
    CandidatePoses
        those of the last step, in no order.
    """
    shells = np.array(
        [(min(step.shell, problem.last_shell), step.evaluations, max(3, round(part * step.width))) for step in steps]
    )
    before = (scored_to, *(step.shell for step in steps[:-1]))
    limits = np.array(
        [
            (1.0 + 2.0 * math.cos(math.radians(step.degrees)), step.lag * problem.chance(shell))
            for step, shell in zip(steps, before, strict=True)
        ]
    )
    frequency, _, ends = particle_coefficients(problem.plan.finest_shell)
    found = _march(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        problem.weight,
        float(problem.plan.particle_box),
        problem.curvature,
        problem.energies,
        ends,
        shells,
        limits,
        poses.rotation,
        poses.shift,
        poses.hand,
        poses.score,
        STEP_TOLERANCE,
    )
    return CandidatePoses(*found)
