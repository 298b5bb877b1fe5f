"""Poses are followed as one would by hand: choose, refine, choose, refine."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from regroup_dask.science import align
from regroup_dask.science.pair_problem import pair_problem, refine_over
from regroup_dask.science.pose_march import STEP_TOLERANCE, Step, march
from regroup_dask.science.poses import CandidatePoses, distinct_poses, neighbour_poses, promising_poses
from tests.science.particles import blobs, random_rotation, random_shift, render


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(6)
    centres, masses = blobs(rng, radius=9.0, count=30)
    plan = align.plan_alignment(
        box=32, voxel_size_angstrom=1.0, particle_radius_angstrom=11.0, maximum_shift_angstrom=8.0, hand="detect"
    )
    maps = [
        render(centres, masses, box=32, rotation=random_rotation(rng), shift=random_shift(rng, 2.0))
        + 0.5 * rng.normal(size=(32,) * 3)
        for _ in range(2)
    ]
    return pair_problem(*(align.prepare_map(volume.astype(np.float32), plan) for volume in maps), plan)


def _starts(count):
    rng = np.random.default_rng(7)
    return CandidatePoses(
        Rotation.random(count, rng=rng).as_matrix(),
        rng.normal(size=(count, 3)),
        np.where(np.arange(count) % 3, 1.0, -1.0),
        rng.normal(size=count),
    )


def test_a_march_is_its_steps_one_by_one(problem):
    steps = (Step(4, 3, 8, 5.0, math.inf), Step(6, 2, 4, 4.0, 1.5), Step(8, 2, 3, 4.0, 1.5))
    poses, lags = _starts(30), (math.inf, 1.5 * problem.chance(4), 1.5 * problem.chance(6))
    found = march(problem, poses, steps)
    for step, lag in zip(steps, lags, strict=True):
        poses = promising_poses(distinct_poses(poses, step.degrees, step.width), lag, step.width)
        poses = refine_over(problem, poses, step.shell, step.evaluations, STEP_TOLERANCE)
    for got, expected in zip(found, poses, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-9)
    assert len(found.score) <= 6


def test_part_of_the_width_takes_part_of_the_poses(problem):
    poses, step = _starts(30), Step(4, 1, 8, 0.0, math.inf)
    of_hand = [np.count_nonzero(march(problem, poses, (step,), part=part).hand > 0) for part in (1.0, 0.5, 0.1)]
    assert of_hand == [8, 4, 3]


def test_what_starts_around_a_pose_comes_back_to_it(problem):
    centre = march(problem, _starts(200), (Step(4, 6, 100, 0.0, math.inf), Step(8, 30, 1, 5.0, math.inf)))
    centre = centre.take(np.array([np.argmax(centre.score)]))
    around = march(problem, neighbour_poses(centre, 3.0), (Step(8, 30, 12, 0.0, math.inf),))
    assert len(around.score) == 12
    assert np.median(around.score) == pytest.approx(centre.score[0], abs=0.02)
