"""Local refinement of a pose in Fourier space, by Gauss-Newton steps with the gradient on the fixed side.

The score of a pose is the weighted correlation ``C = sum over k of w Re conj(f_k) m_k`` with
``m_k = exp(-2 pi i k.t / m) F_moving(R^T k)``, read from an oversampled spectrum by trilinear interpolation.
A small movement applied to the moving map is the opposite movement of the fixed one, whose derivatives are
known exactly and are the same in every step (the inverse compositional scheme of Baker and Matthews 2004,
Int. J. Comput. Vis. 56, 221): a step costs one interpolated value and eight multiplications per coefficient,
no interpolated gradient.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from regroup_dask.science.fourier_interpolation import interpolate_rotated, shift_values

LONGEST_STRETCH = 4.0
"""How many times the step that the fixed map's curvature asks for is taken where the score bends less than that."""


@njit(cache=True, fastmath=True, nogil=True)
def correlate_at(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    count: int,
    box: float,
    rotation: np.ndarray,
    shift: np.ndarray,
    hand: float,
    values: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the weighted correlation at a pose and fill its gradient.

    Parameters
    ----------
    cube : numpy.ndarray
        float32, flat: nodes of the moving spectrum, as for `interpolate_rotated`.
    reach, oversampling : int, float
        nodes from the middle of the cube to its face, and per unit of frequency.
    frequency : numpy.ndarray
        float32 (3, c), kx, ky, kz.
    coefficients : numpy.ndarray
        float32 (8, c): real and imaginary parts of f and of k x grad f.
    weight : numpy.ndarray
        float32 (c,).
    count : int
        how many coefficients to use (they are sorted by shell).
    box : float
        m, voxels.
    rotation, shift : numpy.ndarray
        float64 (3, 3) and (3,) in voxels.
    hand : float
        1, or -1 for the mirrored moving map.
    values : numpy.ndarray
        float32 (2, c), scratch.
    gradient : numpy.ndarray
        float64 (6,), out: derivatives for a rotation vector (radians) and a shift (voxels) applied after the
        pose.
    """
    interpolate_rotated(cube, reach, frequency, 0, count, rotation, oversampling, hand, values)
    shift_values(values, frequency, 0, count, shift, box)
    total = np.float32(0.0)
    g0 = np.float32(0.0)
    g1 = np.float32(0.0)
    g2 = np.float32(0.0)
    g3 = np.float32(0.0)
    g4 = np.float32(0.0)
    g5 = np.float32(0.0)
    for i in range(count):
        real = weight[i] * values[0, i]
        imag = weight[i] * values[1, i]
        total += coefficients[0, i] * real + coefficients[1, i] * imag
        cross = coefficients[0, i] * imag - coefficients[1, i] * real
        g0 += coefficients[2, i] * real + coefficients[3, i] * imag
        g1 += coefficients[4, i] * real + coefficients[5, i] * imag
        g2 += coefficients[6, i] * real + coefficients[7, i] * imag
        g3 += frequency[0, i] * cross
        g4 += frequency[1, i] * cross
        g5 += frequency[2, i] * cross
    unit = 2.0 * math.pi / box
    gradient[0] = g0
    gradient[1] = g1
    gradient[2] = g2
    gradient[3] = unit * g3
    gradient[4] = unit * g4
    gradient[5] = unit * g5
    return float(total)


@njit(cache=True, fastmath=True, nogil=True)
def shell_products(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    ends: np.ndarray,
    box: float,
    rotation: np.ndarray,
    shift: np.ndarray,
    hand: float,
) -> np.ndarray:
    """Return per shell the sums of Re conj(f) m, ``|f|^2`` and ``|m|^2`` at a pose, float64 (3, shells)."""
    count = ends[-1]
    values = np.empty((2, count), dtype=np.float32)
    interpolate_rotated(cube, reach, frequency, 0, count, rotation, oversampling, hand, values)
    shift_values(values, frequency, 0, count, shift, box)
    sums = np.zeros((3, ends.shape[0]))
    start = 0
    for shell in range(ends.shape[0]):
        for i in range(start, ends[shell]):
            sums[0, shell] += coefficients[0, i] * values[0, i] + coefficients[1, i] * values[1, i]
            sums[1, shell] += coefficients[0, i] ** 2 + coefficients[1, i] ** 2
            sums[2, shell] += values[0, i] ** 2 + values[1, i] ** 2
        start = ends[shell]
    return sums


@njit(cache=True, nogil=True)
def factor_positive(matrix: np.ndarray, damping: float, lower: np.ndarray) -> None:
    """Fill Cholesky's factor of a symmetric positive matrix, its diagonal enlarged by a factor 1 + damping."""
    n = matrix.shape[0]
    for i in range(n):
        for j in range(i + 1):
            value = matrix[i, j]
            if i == j:
                value += damping * matrix[i, i] + 1e-30
            for k in range(j):
                value -= lower[i, k] * lower[j, k]
            if i == j:
                lower[i, i] = math.sqrt(max(value, 1e-12 * abs(matrix[i, i]) + 1e-30))
            else:
                lower[i, j] = value / lower[j, j]


@njit(cache=True, nogil=True)
def solve_factored(lower: np.ndarray, vector: np.ndarray, result: np.ndarray) -> None:
    """Fill the solution of a system whose matrix is ``lower lower^T``."""
    n = lower.shape[0]
    for i in range(n):
        value = vector[i]
        for k in range(i):
            value -= lower[i, k] * result[k]
        result[i] = value / lower[i, i]
    for i in range(n - 1, -1, -1):
        value = result[i]
        for k in range(i + 1, n):
            value -= lower[k, i] * result[k]
        result[i] = value / lower[i, i]


@njit(cache=True, nogil=True)
def rotation_from_vector(vector: np.ndarray, out: np.ndarray) -> None:
    """Fill out, float64 (3, 3), with exp([v]x)."""
    angle = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    a = 1.0 if angle < 1e-9 else math.sin(angle) / angle
    b = 0.5 if angle < 1e-5 else (1.0 - math.cos(angle)) / angle**2
    x, y, z = vector[0], vector[1], vector[2]
    out[0, 0] = 1.0 - b * (y * y + z * z)
    out[0, 1] = b * x * y - a * z
    out[0, 2] = b * x * z + a * y
    out[1, 0] = b * x * y + a * z
    out[1, 1] = 1.0 - b * (x * x + z * z)
    out[1, 2] = b * y * z - a * x
    out[2, 0] = b * x * z - a * y
    out[2, 1] = b * y * z + a * x
    out[2, 2] = 1.0 - b * (x * x + y * y)


@njit(cache=True, nogil=True)
def _move(
    step: np.ndarray,
    turned: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
    new_rotation: np.ndarray,
    new_shift: np.ndarray,
) -> None:
    """Fill the pose that a step of rotation vector and shift leads to; products of 3 x 3 without a library's call."""
    rotation_from_vector(step, turned)
    for i in range(3):
        new_shift[i] = step[3 + i]
        for k in range(3):
            new_shift[i] += turned[i, k] * shift[k]
        for j in range(3):
            value = 0.0
            for k in range(3):
                value += turned[i, k] * rotation[k, j]
            new_rotation[i, j] = value


@njit(cache=True, nogil=True)
def _stretched(stretch: float, step: np.ndarray, gradient: np.ndarray, new_gradient: np.ndarray) -> float:
    """Return the factor for the next step, from how much of the gradient along the last step it left.

    The score of two faint maps bends less than the fixed map's own curvature, noise and all, says: plain steps creep.
    """
    before, after = 0.0, 0.0
    for i in range(6):
        before += gradient[i] * step[i]
        after += new_gradient[i] * step[i]
    bend = before - after
    return min(max(stretch * before / bend, 1.0), LONGEST_STRETCH) if bend > 0.0 else LONGEST_STRETCH


@njit(cache=True, nogil=True)
def refine_poses(
    cube: np.ndarray,
    reach: int,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    count: int,
    box: float,
    hessian: np.ndarray,
    fixed_energy: float,
    moving_energy: float,
    rotations: np.ndarray,
    shifts: np.ndarray,
    hands: np.ndarray,
    iterations: int,
    tolerance: float,
) -> np.ndarray:
    """Refine poses in place and return their scores as correlation coefficients.

    Parameters
    ----------
    hessian : numpy.ndarray
        float64 (6, 6), weighted sum of products of the fixed map's derivatives.
    fixed_energy, moving_energy : float
        weighted sums of ``|f|^2`` and ``|m|^2``; they scale the score and the step.
    rotations, shifts, hands : numpy.ndarray
        float64 (p, 3, 3), (p, 3), (p,); the first two are overwritten.
    iterations : int
        most evaluations per pose.
    tolerance : float
        a pose is done when a step is shorter than this, in voxels at the rim of the particle.
    """
    scores = np.empty(rotations.shape[0])
    norm = math.sqrt(max(fixed_energy * moving_energy, 1e-300))
    gradient, new_gradient, step = np.empty(6), np.empty(6), np.empty(6)
    rotation, new_rotation, turned = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    shift, new_shift = np.empty(3), np.empty(3)
    undamped, damped = np.zeros((6, 6)), np.zeros((6, 6))
    factor_positive(hessian, 0.0, undamped)
    values = np.empty((2, count), dtype=np.float32)
    for p in range(rotations.shape[0]):
        rotation[:] = rotations[p]
        shift[:] = shifts[p]
        value = correlate_at(
            cube,
            reach,
            oversampling,
            frequency,
            coefficients,
            weight,
            count,
            box,
            rotation,
            shift,
            hands[p],
            values,
            gradient,
        )
        damping, stretch = 0.0, 1.0
        used = 1
        while used < iterations:
            if damping > 0.0:
                factor_positive(hessian, damping, damped)
                solve_factored(damped, gradient, step)
            else:
                solve_factored(undamped, gradient, step)
            step *= stretch * max(fixed_energy, 1e-300) / max(value, 0.15 * norm)
            turn = math.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            move = math.sqrt(step[3] ** 2 + step[4] ** 2 + step[5] ** 2)
            longest = max(turn / 0.4, move / (0.1 * box))
            if longest > 1.0:
                step /= longest
                turn /= longest
                move /= longest
            _move(step, turned, rotation, shift, new_rotation, new_shift)
            new_value = correlate_at(
                cube,
                reach,
                oversampling,
                frequency,
                coefficients,
                weight,
                count,
                box,
                new_rotation,
                new_shift,
                hands[p],
                values,
                new_gradient,
            )
            used += 1
            if new_value >= value:
                stretch = _stretched(stretch, step, gradient, new_gradient)
                rotation[:] = new_rotation
                shift[:] = new_shift
                gradient[:] = new_gradient
                value = new_value
                damping = 0.0 if damping < 0.5 else damping * 0.1
            else:
                stretch = 1.0
                damping = 1.0 if damping == 0.0 else damping * 4.0
            if turn * 0.4 * box + move < tolerance:
                break
        rotations[p] = rotation
        shifts[p] = shift
        scores[p] = value / norm
    return scores
