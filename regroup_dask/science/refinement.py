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


@njit(cache=True, fastmath=True, nogil=True)
def correlate_at(
    cube: np.ndarray,
    oversampling: float,
    frequency: np.ndarray,
    coefficients: np.ndarray,
    weight: np.ndarray,
    count: int,
    box: float,
    rotation: np.ndarray,
    shift: np.ndarray,
    hand: float,
    gradient: np.ndarray,
) -> float:
    """Return the weighted correlation at a pose and fill its gradient.

    Parameters
    ----------
    cube : numpy.ndarray
        float32 (2 r + 1, 2 r + 1, r + 1, 2), real and imaginary part of the moving spectrum's nodes.
    oversampling : float
        nodes per unit of frequency.
    frequency : numpy.ndarray
        int16 (3, c), kx, ky, kz.
    coefficients : numpy.ndarray
        float32 (c, 8): real and imaginary parts of f and of k x grad f.
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
    gradient : numpy.ndarray
        float64 (6,), out: derivatives for a rotation vector (radians) and a shift (voxels) applied after the
        pose.
    """
    reach = cube.shape[2] - 1
    top = 0
    for i in range(count):
        for axis in range(3):
            if frequency[axis, i] > top:
                top = frequency[axis, i]
    size = 2 * top + 1
    phase = np.empty((3, size, 2), dtype=np.float32)
    for axis in range(3):
        angle = -2.0 * math.pi * shift[axis] / box
        for j in range(size):
            phase[axis, j, 0] = math.cos(angle * (j - top))
            phase[axis, j, 1] = math.sin(angle * (j - top))
    r = (rotation.T * oversampling).astype(np.float32)
    r00, r01, r02 = r[0, 0], r[0, 1], r[0, 2]
    r10, r11, r12 = r[1, 0], r[1, 1], r[1, 2]
    r20, r21, r22 = r[2, 0], r[2, 1], r[2, 2]
    total = np.float32(0.0)
    g0 = np.float32(0.0)
    g1 = np.float32(0.0)
    g2 = np.float32(0.0)
    g3 = np.float32(0.0)
    g4 = np.float32(0.0)
    g5 = np.float32(0.0)
    one = np.float32(1.0)
    hand32 = np.float32(hand)
    for i in range(count):
        kx = np.float32(frequency[0, i])
        ky = np.float32(frequency[1, i])
        kz = np.float32(frequency[2, i])
        x = r00 * kx + r01 * ky + r02 * kz
        y = r10 * kx + r11 * ky + r12 * kz
        z = r20 * kx + r21 * ky + r22 * kz
        sign = hand32
        if x < 0:
            x = -x
            y = -y
            z = -z
            sign = -hand32
        y += reach
        z += reach
        ix = int(x)
        iy = int(y)
        iz = int(z)
        ax = x - ix
        ay = y - iy
        az = z - iz
        bx = one - ax
        w00 = (one - az) * (one - ay)
        w01 = (one - az) * ay
        w10 = az * (one - ay)
        w11 = az * ay
        lower = cube[iz, iy]
        lower_y = cube[iz, iy + 1]
        upper = cube[iz + 1, iy]
        upper_y = cube[iz + 1, iy + 1]
        re = bx * (
            w00 * lower[ix, 0] + w01 * lower_y[ix, 0] + w10 * upper[ix, 0] + w11 * upper_y[ix, 0]
        ) + ax * (
            w00 * lower[ix + 1, 0]
            + w01 * lower_y[ix + 1, 0]
            + w10 * upper[ix + 1, 0]
            + w11 * upper_y[ix + 1, 0]
        )
        im = bx * (
            w00 * lower[ix, 1] + w01 * lower_y[ix, 1] + w10 * upper[ix, 1] + w11 * upper_y[ix, 1]
        ) + ax * (
            w00 * lower[ix + 1, 1]
            + w01 * lower_y[ix + 1, 1]
            + w10 * upper[ix + 1, 1]
            + w11 * upper_y[ix + 1, 1]
        )
        im *= sign
        jx = frequency[0, i] + top
        jy = frequency[1, i] + top
        jz = frequency[2, i] + top
        c1 = phase[0, jx, 0] * phase[1, jy, 0] - phase[0, jx, 1] * phase[1, jy, 1]
        s1 = phase[0, jx, 0] * phase[1, jy, 1] + phase[0, jx, 1] * phase[1, jy, 0]
        c = c1 * phase[2, jz, 0] - s1 * phase[2, jz, 1]
        s = c1 * phase[2, jz, 1] + s1 * phase[2, jz, 0]
        w = weight[i]
        mr = w * (re * c - im * s)
        mi = w * (re * s + im * c)
        row = coefficients[i]
        total += row[0] * mr + row[1] * mi
        cross = row[0] * mi - row[1] * mr
        g0 += row[2] * mr + row[3] * mi
        g1 += row[4] * mr + row[5] * mi
        g2 += row[6] * mr + row[7] * mi
        g3 += kx * cross
        g4 += ky * cross
        g5 += kz * cross
    unit = 2.0 * math.pi / box
    gradient[0] = g0
    gradient[1] = g1
    gradient[2] = g2
    gradient[3] = unit * g3
    gradient[4] = unit * g4
    gradient[5] = unit * g5
    return float(total)


@njit(cache=True, nogil=True)
def solve_positive(matrix: np.ndarray, vector: np.ndarray, damping: float) -> np.ndarray:
    """Solve a symmetric positive system by Cholesky's method, its diagonal enlarged by a factor 1 + damping."""
    n = matrix.shape[0]
    lower = np.zeros((n, n))
    result = vector.copy()
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
    for i in range(n):
        for k in range(i):
            result[i] -= lower[i, k] * result[k]
        result[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            result[i] -= lower[k, i] * result[k]
        result[i] /= lower[i, i]
    return result


@njit(cache=True, nogil=True)
def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Return exp([v]x), float64 (3, 3)."""
    angle = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    a = 1.0 if angle < 1e-9 else math.sin(angle) / angle
    b = 0.5 if angle < 1e-5 else (1.0 - math.cos(angle)) / angle**2
    x, y, z = vector[0], vector[1], vector[2]
    out = np.empty((3, 3))
    out[0, 0] = 1.0 - b * (y * y + z * z)
    out[0, 1] = b * x * y - a * z
    out[0, 2] = b * x * z + a * y
    out[1, 0] = b * x * y + a * z
    out[1, 1] = 1.0 - b * (x * x + z * z)
    out[1, 2] = b * y * z - a * x
    out[2, 0] = b * x * z - a * y
    out[2, 1] = b * y * z + a * x
    out[2, 2] = 1.0 - b * (x * x + y * y)
    return out


@njit(cache=True, nogil=True)
def refine_poses(
    cube: np.ndarray,
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
    gradient = np.empty(6)
    for p in range(rotations.shape[0]):
        rotation = rotations[p].copy()
        shift = shifts[p].copy()
        value = correlate_at(
            cube,
            oversampling,
            frequency,
            coefficients,
            weight,
            count,
            box,
            rotation,
            shift,
            hands[p],
            gradient,
        )
        damping = 0.0
        used = 1
        while used < iterations:
            scale = max(value, 0.15 * norm) / max(fixed_energy, 1e-300)
            step = solve_positive(hessian * scale, gradient, damping)
            turn = math.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            move = math.sqrt(step[3] ** 2 + step[4] ** 2 + step[5] ** 2)
            longest = max(turn / 0.4, move / (0.1 * box))
            if longest > 1.0:
                step /= longest
                turn /= longest
                move /= longest
            turned = rotation_from_vector(step[:3])
            new_rotation = turned @ rotation
            new_shift = turned @ shift + step[3:]
            new_gradient = np.empty(6)
            new_value = correlate_at(
                cube,
                oversampling,
                frequency,
                coefficients,
                weight,
                count,
                box,
                new_rotation,
                new_shift,
                hands[p],
                new_gradient,
            )
            used += 1
            if new_value >= value:
                rotation = new_rotation
                shift = new_shift
                gradient = new_gradient
                value = new_value
                damping = 0.0 if damping < 0.5 else damping * 0.1
            else:
                damping = 1.0 if damping == 0.0 else damping * 4.0
            if turn * 0.4 * box + move < tolerance:
                break
        rotations[p] = rotation
        shifts[p] = shift
        scores[p] = value / norm
    return scores
