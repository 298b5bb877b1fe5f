"""The fast rotation function is the slow one: sums over the sphere of a function and a turned one."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from regroup_dask.science.rotation_function import (
    best_rotations,
    correlate_rotations,
    euler_quaternions,
    rotation_grid,
    separated_peaks,
)
from regroup_dask.science.spherical_harmonics import (
    analysis_matrix,
    sphere_grid,
    wigner_d,
    wigner_matrix,
)


def _random_coefficients(rng, degree, shells, *, even=False):
    """Coefficients of random real functions: a_l,-m = (-1)^m conj(a_lm)."""
    out = np.zeros(((degree + 1) ** 2, shells), complex)
    for order in range(0, degree + 1, 2 if even else 1):
        for m in range(order + 1):
            value = rng.normal(size=shells) + (1j * rng.normal(size=shells) if m else 0)
            out[order * (order + 1) + m] = value
            out[order * (order + 1) - m] = (-1) ** m * np.conj(value)
    return out


def _synthesize(coefficients, points):
    theta, phi = np.arccos(np.clip(points[:, 2], -1, 1)), np.arctan2(points[:, 1], points[:, 0])
    degree = int(np.sqrt(len(coefficients))) - 1
    return sum(
        coefficients[order * (order + 1) + m] * sph_harm_y(order, m, theta, phi)
        for order in range(degree + 1)
        for m in range(-order, order + 1)
    )


@pytest.mark.parametrize("even", [False, True])
def test_correlation_equals_brute_force(even):
    rng = np.random.default_rng(1)
    degree, shells, bank = 6, 3, 2
    weight = rng.uniform(0.5, 2, shells)
    fixed = np.stack([_random_coefficients(rng, degree, shells, even=even) for _ in range(bank)], axis=-1)
    moving = _random_coefficients(rng, degree, shells, even=even)
    grid = rotation_grid(degree, even_only=even, n_azimuth=2 * degree + 2, n_beta=5)
    got = correlate_rotations(fixed.astype(np.complex64), (moving * weight).astype(np.complex64), grid)[0]
    points, weights = sphere_grid(degree)
    matrices = Rotation.from_quat(grid.quaternions).as_matrix().reshape(*got.shape[:3], 3, 3)
    for j, a, g in [(0, 0, 0), (1, 3, 5), (4, 9, 2), (2, 13, 13)]:
        turned = points @ matrices[j, a, g]  # R^T u
        for k in range(bank):
            slow = sum(
                weight[s]
                * np.sum(
                    weights
                    * _synthesize(fixed[:, s, k], points).real
                    * _synthesize(moving[:, s], turned).real
                )
                for s in range(shells)
            )
            np.testing.assert_allclose(got[j, a, g, k], slow, rtol=2e-4, atol=2e-4)


def test_other_hand_negates_odd_degrees():
    rng = np.random.default_rng(2)
    fixed, moving = _random_coefficients(rng, 5, 2)[:, :, None], _random_coefficients(rng, 5, 2)
    odd = np.array([order % 2 for order in range(6) for _ in range(2 * order + 1)])
    grid = rotation_grid(5, even_only=False, n_azimuth=12, n_beta=6)
    fixed = fixed.astype(np.complex64)
    both = correlate_rotations(fixed, moving.astype(np.complex64), grid, both_hands=True)
    mirrored = (moving * np.where(odd, -1, 1)[:, None]).astype(np.complex64)
    np.testing.assert_allclose(
        both[0], correlate_rotations(fixed, moving.astype(np.complex64), grid)[0], atol=1e-4
    )
    np.testing.assert_allclose(both[1], correlate_rotations(fixed, mirrored, grid)[0], atol=1e-4)


@pytest.mark.parametrize("even", [False, True])
def test_a_bank_of_one_is_correlated_like_a_larger_one(even):
    rng = np.random.default_rng(8)
    fixed = np.stack([_random_coefficients(rng, 6, 3, even=even) for _ in range(2)], axis=-1).astype(np.complex64)
    moving = _random_coefficients(rng, 6, 3, even=even).astype(np.complex64)
    grid = rotation_grid(6, even_only=even, n_azimuth=14, n_beta=5)
    both = correlate_rotations(fixed, moving, grid, first_degree=2)
    for k in range(2):
        one = correlate_rotations(fixed[..., k : k + 1], moving, grid, first_degree=2)
        np.testing.assert_allclose(one[..., 0], both[..., k], atol=1e-4)


def test_best_rotations_are_the_highest_of_all_shifts():
    rng = np.random.default_rng(9)
    grid = rotation_grid(9, even_only=False, n_azimuth=20, n_beta=12)
    for bank in (15, 3):
        fixed = np.stack([_random_coefficients(rng, 9, 2) for _ in range(bank)], axis=-1).astype(np.complex64)
        moving = _random_coefficients(rng, 9, 2).astype(np.complex64)
        values = correlate_rotations(fixed, moving, grid, both_hands=True)
        best, which = best_rotations(fixed, moving, grid, both_hands=True)
        np.testing.assert_allclose(best, values.max(axis=-1), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(np.take_along_axis(values, which[..., None], -1)[..., 0], best, rtol=1e-5, atol=1e-4)


def test_analysis_inverts_synthesis():
    rng = np.random.default_rng(3)
    coefficients = _random_coefficients(rng, 7, 1)[:, 0]
    values = _synthesize(coefficients, sphere_grid(7)[0])
    np.testing.assert_allclose(analysis_matrix(7) @ values, coefficients, atol=1e-10)


def test_sphere_weights_sum_to_the_sphere():
    assert sphere_grid(9)[1].sum() == pytest.approx(4 * np.pi)


@pytest.mark.parametrize("degree", [0, 1, 2, 7, 18])
def test_wigner_matrices_are_unitary_and_compose(degree):
    first = wigner_matrix(degree, 0.3, 0.0, 0.4)
    second = wigner_matrix(degree, 0.0, 0.9, 0.5)
    np.testing.assert_allclose(first @ second, wigner_matrix(degree, 0.7, 0.9, 0.5), atol=1e-10)
    full = wigner_matrix(degree, 0.2, 1.1, -0.7)
    np.testing.assert_allclose(full @ full.conj().T, np.eye(2 * degree + 1), atol=1e-10)


def test_wigner_d_of_degree_one_is_the_closed_form():
    beta = np.array([0.0, 0.4, 2.0])
    got = wigner_d(1, beta)
    c, s = np.cos(beta), np.sin(beta)
    np.testing.assert_allclose(got[:, 1, 1], c, atol=1e-12)
    np.testing.assert_allclose(got[:, 2, 2], (1 + c) / 2, atol=1e-12)
    np.testing.assert_allclose(got[:, 2, 0], (1 - c) / 2, atol=1e-12)
    np.testing.assert_allclose(got[:, 2, 1], -s / np.sqrt(2), atol=1e-12)


def test_euler_quaternions_are_zyz():
    angles = np.random.default_rng(4).uniform(-3, 3, (5, 3))
    expected = Rotation.from_euler("ZYZ", angles).as_matrix()
    got = Rotation.from_quat(euler_quaternions(*angles.T)).as_matrix()
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_peaks_are_separated_and_the_highest_comes_first():
    rng = np.random.default_rng(5)
    grid = rotation_grid(6, even_only=False, n_azimuth=14, n_beta=9)
    values = rng.normal(size=(9, 14, 14)).astype(np.float32)
    peaks = separated_peaks(values, grid.quaternions, 12, 30.0)
    assert peaks[0] == np.argmax(values)
    assert (np.diff(values.ravel()[peaks]) <= 0).all()
    overlap = np.abs(grid.quaternions[peaks] @ grid.quaternions[peaks].T) - np.eye(len(peaks))
    assert overlap.max() <= np.cos(np.radians(15.0)) + 1e-6
