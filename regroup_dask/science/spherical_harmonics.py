"""Spherical harmonics and Wigner matrices: the tables behind the rotation functions.

Coefficients of degree l and order m lie at index ``l * (l + 1) + m``. Harmonics are orthonormal with the
Condon-Shortley phase. A function moved by R = Rz(alpha) Ry(beta) Rz(gamma), ``(R b)(u) = b(R^T u)``, has the
coefficients ``sum over m of exp(-i m' alpha) d^l_m'm(beta) exp(-i m gamma) b_lm``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import sph_harm_y


@lru_cache(maxsize=16)
def sphere_grid(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (x, y, z) and weights on the sphere that integrate harmonics up to 2 * degree exactly.

    Gauss-Legendre nodes in the polar angle, equal steps in azimuth.

    Returns
    -------
    points : numpy.ndarray
        float64 (p, 3).
    weights : numpy.ndarray
        float64 (p,), sum 4 pi.
    """
    cosine, weight = np.polynomial.legendre.leggauss(degree + 1)
    azimuth = 2.0 * np.pi * np.arange(2 * degree + 2) / (2 * degree + 2)
    sine = np.sqrt(1.0 - cosine**2)
    points = np.stack(
        [
            np.outer(sine, np.cos(azimuth)),
            np.outer(sine, np.sin(azimuth)),
            np.broadcast_to(cosine[:, None], (degree + 1, 2 * degree + 2)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    weights = np.repeat(weight * (2.0 * np.pi / (2 * degree + 2)), 2 * degree + 2)
    points.setflags(write=False)
    weights.setflags(write=False)
    return points, weights


@lru_cache(maxsize=16)
def analysis_matrix(degree: int) -> np.ndarray:
    """Return the matrix complex128 ((degree + 1)^2, p) that turns values on `sphere_grid` into coefficients."""
    points, weights = sphere_grid(degree)
    theta = np.arccos(np.clip(points[:, 2], -1.0, 1.0))
    phi = np.arctan2(points[:, 1], points[:, 0])
    rows = [
        np.conj(sph_harm_y(l_, m, theta, phi)) * weights
        for l_ in range(degree + 1)
        for m in range(-l_, l_ + 1)
    ]
    matrix = np.array(rows)
    matrix.setflags(write=False)
    return matrix


def wigner_d(degree: int, beta: np.ndarray) -> np.ndarray:
    """Return Wigner's small d matrices of one degree for angles beta.

    ``d(beta) = exp(-i beta J_y)`` from the eigenvectors of J_y: exact to rounding for every degree used here.

    Returns
    -------
    numpy.ndarray
        float64 (len(beta), 2 degree + 1, 2 degree + 1), rows m', columns m, from -degree to degree.
    """
    order = np.arange(-degree, degree + 1)
    raising = np.sqrt(degree * (degree + 1.0) - order[:-1] * (order[:-1] + 1.0))
    j_plus = np.diag(raising, -1)  # <m+1| J+ |m>
    j_y = (j_plus - j_plus.T) / 2j
    _, vectors = np.linalg.eigh(j_y)
    # the eigenvalues of J_y are known exactly: they are the orders
    phase = np.exp(-1j * np.outer(np.asarray(beta, dtype=np.float64), order))
    return np.einsum("ik,bk,jk->bij", vectors, phase, vectors.conj(), optimize=True).real


def wigner_matrix(degree: int, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """Return D^l(alpha, beta, gamma), complex128 (2l+1, 2l+1), as the module says."""
    order = np.arange(-degree, degree + 1)
    small = wigner_d(degree, np.array([beta]))[0]
    return np.exp(-1j * order * alpha)[:, None] * small * np.exp(-1j * order * gamma)[None, :]
