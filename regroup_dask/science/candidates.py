"""Candidates for the pose of a pair: from the rotation functions of complex coefficients and of amplitudes."""

from __future__ import annotations

import numpy as np

from regroup_dask.science.alignment_plan import OVERSAMPLING, AlignmentPlan, particle_coefficients, shift_bank
from regroup_dask.science.pair_problem import PairProblem
from regroup_dask.science.poses import CandidatePoses, join_poses
from regroup_dask.science.rotation_function import (
    RotationGrid,
    best_rotations,
    correlate_rotations,
    rotation_grid,
    separated_peaks,
)
from regroup_dask.science.rotations import quaternion_to_matrix
from regroup_dask.science.translation import best_shifts

UNCERTAIN_DEGREES = 10.0
"""How far from a maximum the rotations of candidates may lie: shifts between maps may then be that much longer."""

SHIFT_SHELL = 5
"""Shells up to this one decide on the shift of a rotation."""


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
    best, which = best_rotations(problem.fixed.coarse_bank, moving, grid, both_hands=both)
    shifts = shift_bank(plan.bank_spacing, plan.bank_radius)
    parts = []
    for side in range(len(best)):
        peaks = separated_peaks(best[side], grid.quaternions, count, 18.0)
        rotation = quaternion_to_matrix(grid.quaternions[peaks])
        parts.append(
            CandidatePoses(
                rotation,
                shifts[which[side].reshape(-1)[peaks]],
                np.full(len(peaks), 1.0 - 2.0 * side),
                best[side].reshape(-1)[peaks].astype(np.float64),
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
        plan.maximum_shift_voxels + problem.shift_uncertainty(UNCERTAIN_DEGREES),
    )
    return poses._replace(shift=shift)
