"""Gradients agree with finite differences, interpolation with direct sums, shifts with the shift theorem."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from regroup_dask.science import align
from regroup_dask.science.alignment_plan import OVERSAMPLING, particle_coefficients, shift_bank
from regroup_dask.science.fourier import sampled_spectrum
from regroup_dask.science.fourier_interpolation import interpolate_rotated, shift_values
from regroup_dask.science.pair_problem import pair_problem, refine_over, within_limit
from regroup_dask.science.poses import CandidatePoses
from regroup_dask.science.prepared_map import cut_particle, particle_derivatives
from regroup_dask.science.refinement import correlate_at, factor_positive, solve_factored
from regroup_dask.science.translation import best_shifts
from tests.science.particles import blobs, random_rotation, random_shift, render


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    centres, masses = blobs(rng, radius=10.0, count=40)
    plan = align.plan_alignment(
        box=40,
        voxel_size_angstrom=1.0,
        particle_radius_angstrom=13.0,
        maximum_shift_angstrom=10.0,
        hand="off",
    )
    rotation, shift = random_rotation(rng), random_shift(rng, 3.0)
    fixed = render(centres, masses, box=40, rotation=rotation, shift=shift)
    moving = render(centres, masses, box=40)
    return (
        pair_problem(align.prepare_map(fixed, plan), align.prepare_map(moving, plan), plan),
        rotation,
        shift,
    )


def _correlate(problem, rotation, shift, hand=1.0):
    frequency, _, ends = particle_coefficients(problem.plan.finest_shell)
    gradient = np.empty(6)
    value = correlate_at(
        problem.cube,
        problem.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        problem.fixed.coefficients,
        problem.weight,
        int(ends[6]),
        float(problem.plan.particle_box),
        rotation,
        shift,
        hand,
        np.empty((2, int(ends[6])), np.float32),
        gradient,
    )
    return value, gradient


def test_gradient_equals_finite_differences(problem):
    pair, rotation, shift = problem
    centred = shift - pair.centre_term(rotation, 1.0) + np.array([0.5, -0.3, 0.4])
    rotation = Rotation.from_rotvec([0.08, 0.1, -0.07]).as_matrix() @ rotation
    value, gradient = _correlate(pair, rotation, centred)
    assert value > 0
    scale = np.array([0.05, 0.05, 0.05, 0.02, 0.02, 0.02])
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = scale[axis]
        ends = []
        for sign in (1.0, -1.0):
            turn = Rotation.from_rotvec(sign * step[:3]).as_matrix()
            ends.append(_correlate(pair, turn @ rotation, turn @ centred + sign * step[3:])[0])
        size = np.abs(gradient[:3] if axis < 3 else gradient[3:]).max()
        # rotations are interpolated on the moving side, and exact on the fixed side, where the gradient is
        tolerance = 0.08 * size if axis < 3 else 2e-3 * size
        assert (ends[0] - ends[1]) / (2 * scale[axis]) == pytest.approx(gradient[axis], abs=tolerance)


def test_rotational_derivatives_equal_those_of_direct_sums():
    rng = np.random.default_rng(11)
    plan = align.plan_alignment(
        box=20, voxel_size_angstrom=1.0, particle_radius_angstrom=6.0, maximum_shift_angstrom=4.0, hand="off"
    )
    particle, _ = cut_particle(rng.normal(size=(20, 20, 20)).astype(np.float32), np.zeros(3), plan)
    coefficients, curvature, power = particle_derivatives(particle, plan)
    size = plan.particle_box
    axis = np.arange(size) - size // 2
    frequency, shells, _ = particle_coefficients(plan.finest_shell)

    def direct(k):
        phase = k[2] * axis[:, None, None] + k[1] * axis[None, :, None] + k[0] * axis[None, None, :]
        return (particle * np.exp(-2j * np.pi * phase / size)).sum()

    for i in rng.choice(len(shells), 10, replace=False):
        k = frequency[:, i].astype(float)
        assert coefficients[0, i] + 1j * coefficients[1, i] == pytest.approx(direct(k), abs=1e-3)
        for turn in range(3):
            vector = np.zeros(3)
            vector[turn] = 1e-4
            turned = Rotation.from_rotvec(vector).as_matrix()
            difference = direct(turned @ k) - direct(turned.T @ k)
            got = coefficients[2 + 2 * turn, i] + 1j * coefficients[3 + 2 * turn, i]
            assert got == pytest.approx(difference / 2e-4, abs=2e-3 * float(np.abs(coefficients).max()))
    here = shells == 2
    turned = coefficients[2::2, here] + 1j * coefficients[3::2, here]
    np.testing.assert_allclose(curvature[2, :3, :3], (turned.conj() @ turned.T).real, rtol=1e-4, atol=1e-2)
    assert power[2] == pytest.approx(np.mean(np.sum(coefficients[:2, here] ** 2, axis=0)), rel=1e-5)


def test_steps_stretch_where_the_curvature_is_overestimated(problem):
    """As between faint maps, whose noise adds to the fixed map's curvature but not to that of their correlation."""
    pair, rotation, shift = problem
    stiff = pair._replace(curvature=8.0 * pair.curvature)
    start = Rotation.from_rotvec([0.1, -0.08, 0.05]).as_matrix() @ rotation
    centred = shift - pair.centre_term(rotation, 1.0) + 0.5
    poses = CandidatePoses(start[None], centred[None], np.ones(1), np.zeros(1))
    far = float(np.sum((start - rotation) ** 2))
    poses = refine_over(stiff, poses, 6, 8, 1e-4)
    near = float(np.sum((poses.rotation[0] - rotation) ** 2))
    assert near < 0.01 * far  # plain steps leave a third of the way


def test_steps_lead_home(problem):
    pair, rotation, shift = problem
    start = Rotation.from_rotvec([0.2, -0.15, 0.1]).as_matrix() @ rotation
    centred = shift - pair.centre_term(rotation, 1.0) + 1.0
    poses = CandidatePoses(start[None], centred[None], np.ones(1), np.zeros(1))
    poses = refine_over(pair, refine_over(pair, poses, 5, 20, 1e-3), 99, 20, 1e-4)
    np.testing.assert_allclose(poses.rotation[0], rotation, atol=3e-3)
    assert poses.score[0] > 0.98


def test_interpolation_is_near_the_direct_sum():
    rng = np.random.default_rng(5)
    size, reach, fine = 20, 16, 2.0
    volume = render(*blobs(rng, radius=5.0, count=12), box=size)
    cube = sampled_spectrum(volume, spacing=1 / (fine * size), reach=reach)
    frequency = rng.integers(-4, 5, size=(3, 50)).astype(np.float32)
    rotation = random_rotation(rng)
    axis = np.arange(size) - size // 2
    for hand in (1.0, -1.0):
        values = np.empty((2, 50), np.float32)
        interpolate_rotated(
            cube.reshape(-1).view(np.float32), reach, frequency, 0, 50, rotation, fine, hand, values
        )
        for i in range(50):
            k = rotation.T @ frequency[:, i]
            phase = k[2] * axis[:, None, None] + k[1] * axis[None, :, None] + k[0] * axis[None, None, :]
            exact = (volume * np.exp(-2j * np.pi * phase / size)).sum()
            exact = exact if hand > 0 else exact.conj()
            assert abs(values[0, i] + 1j * values[1, i] - exact) < 0.01 * volume.sum()


@pytest.mark.parametrize(("first", "last"), [(0, 700), (5, 130), (3, 4)])
def test_interpolation_is_trilinear(first, last):
    """Against scipy's, over more values than the kernel takes at a time."""
    rng = np.random.default_rng(15)
    reach, fine, number = 12, 2.0, 700
    cube = (rng.normal(size=(2 * reach + 1, 2 * reach + 1, reach + 1)) * (1 + 2j)).astype(np.complex64)
    cube.imag += rng.normal(size=cube.shape).astype(np.float32)
    frequency = rng.integers(-3, 4, size=(3, number)).astype(np.float32)
    rotation = random_rotation(rng)
    values = np.full((2, number), np.nan, np.float32)
    interpolate_rotated(cube.reshape(-1).view(np.float32), reach, frequency, first, last, rotation, fine, -1.0, values)
    x, y, z = fine * rotation.T @ frequency.astype(float)
    side = np.where(x >= 0, 1.0, -1.0)
    places = [z * side + reach, y * side + reach, x * side]
    real, imag = (map_coordinates(part.astype(float), places, order=1) for part in (cube.real, cube.imag))
    np.testing.assert_allclose(values[0, first:last], real[first:last], atol=1e-4)
    np.testing.assert_allclose(values[1, first:last], -side[first:last] * imag[first:last], atol=1e-4)
    assert np.isnan(values[:, :first]).all()
    assert np.isnan(values[:, last:]).all()


def test_shift_is_a_phase():
    rng = np.random.default_rng(6)
    frequency = rng.integers(-20, 21, size=(3, 300)).astype(np.float32)
    values = rng.normal(size=(2, 300)).astype(np.float32)
    shift = np.array([7.3, -15.2, 3.9])
    expected = (values[0] + 1j * values[1]) * np.exp(-2j * np.pi * (shift @ frequency) / 48)
    shift_values(values, frequency, 0, 300, shift, 48.0)
    np.testing.assert_allclose(values[0] + 1j * values[1], expected, atol=1e-5)


def test_best_shift_is_found_for_a_known_rotation(problem):
    pair, rotation, shift = problem
    frequency, _, ends = particle_coefficients(pair.plan.finest_shell)
    term = pair.centre_term(rotation, 1.0)
    found, _ = best_shifts(
        pair.cube,
        pair.moving.cube.shape[2] - 1,
        float(OVERSAMPLING),
        frequency,
        pair.fixed.coefficients,
        pair.weight,
        int(ends[5]),
        float(pair.plan.particle_box),
        rotation[None],
        np.ones(1),
        term[None],
        10.0,
    )
    np.testing.assert_allclose(found[0] + term, shift, atol=0.5)


def test_an_uncertain_rotation_does_not_put_a_pose_beyond_the_limit(problem):
    """A particle off the centre is carried along by a rotation: the shift between the maps pays for its error."""
    pair, *_ = problem
    pair = pair._replace(
        fixed=pair.fixed._replace(centre_voxels=np.array([-4.0, -7.0, 0.0])),
        moving=pair.moving._replace(centre_voxels=np.array([8.0, 0.0, 0.0])),
        plan=pair.plan._replace(maximum_shift_voxels=13.5),
    )
    turns = Rotation.from_euler("z", [[0.0], [15.0], [30.0]], degrees=True).as_matrix()
    poses = CandidatePoses(turns, np.array([[0.0, 0, 0], [0, 0, 0], [-8, -4, 0]]), np.ones(3), np.zeros(3))
    assert within_limit(pair, poses).tolist() == [True, False, False]
    assert within_limit(pair, poses, 20.0).tolist() == [True, True, False]


def test_solver_solves():
    rng = np.random.default_rng(7)
    root = rng.normal(size=(6, 6))
    matrix, vector = root @ root.T + np.eye(6), rng.normal(size=6)
    lower, found = np.zeros((6, 6)), np.empty(6)
    for damping in (0.0, 0.7):
        factor_positive(matrix, damping, lower)
        solve_factored(lower, vector, found)
        np.testing.assert_allclose(
            found, np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), vector), rtol=1e-9
        )


def test_particle_is_cut_about_its_centre_even_beyond_the_box():
    plan = align.plan_alignment(
        box=32, voxel_size_angstrom=1.0, particle_radius_angstrom=8.0, maximum_shift_angstrom=8.0, hand="off"
    )
    volume = render(np.array([[10.0, -9.0, 3.0]]), np.ones(1), box=32)
    particle, mask = cut_particle(volume, np.array([10.0, -9.0, 3.0]), plan)
    middle = plan.particle_box // 2
    assert np.unravel_index(np.argmax(particle), particle.shape) == (middle,) * 3
    assert mask[0, middle, middle] < 0.1


def test_shift_bank_covers_its_ball():
    bank = shift_bank(4.0, 10.0)
    np.testing.assert_array_equal(bank[0], 0)
    points = np.random.default_rng(8).normal(size=(300, 3))
    points *= (7.0 * np.random.default_rng(9).uniform(size=300) ** (1 / 3) / np.linalg.norm(points, axis=1))[
        :, None
    ]
    nearest = np.sqrt(((points[:, None] - bank[None]) ** 2).sum(-1)).min(axis=1)
    assert nearest.max() <= 4.0 * np.sqrt(5) / 4 + 1e-9
