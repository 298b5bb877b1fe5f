"""Sums over degrees with Wigner's d: the part of a fast rotation function that comes before its Fourier transform."""

from __future__ import annotations

import numpy as np
from numba import njit

VECTOR = 8
"""Members of a bank are worked on so many at a time."""


@njit(cache=True, fastmath=True, nogil=True)
def wigner_sums(
    fixed_real: np.ndarray,
    fixed_imag: np.ndarray,
    moving: np.ndarray,
    wigner: np.ndarray,
    first_degree: int,
    step: int,
    both_hands: bool,
    out: np.ndarray,
) -> None:
    """Fill out[hand, beta, m', m, bank] with conj of sum over l of d^l_m'm sum over shells conj(a) b.

    fixed_real, fixed_imag float32 (lm, shell, width); moving complex64 (lm, shell), weights included;
    out complex64 (hands, n_beta, n_azimuth, n_azimuth // 2 + 1, bank), zero before. The width is the bank's, or one that
    fills vectors.
    """
    width = fixed_real.shape[2]
    bank = out.shape[4]
    n_shells = fixed_real.shape[1]
    degree = wigner.shape[1] - 1
    n_beta = wigner.shape[3]
    n_azimuth = out.shape[2]
    even = np.empty((n_beta, 2, width), dtype=np.float32)
    odd = np.empty((n_beta, 2, width), dtype=np.float32)
    real = np.empty(width, dtype=np.float32)
    imag = np.empty(width, dtype=np.float32)
    for row in range(-degree, degree + 1):
        place = row if row >= 0 else row + n_azimuth
        for column in range(degree + 1):
            even[:] = 0.0
            odd[:] = 0.0
            lowest = max(abs(row), column, first_degree)
            if step == 2 and (lowest - first_degree) % 2 == 1:
                lowest += 1
            for l_ in range(lowest, degree + 1, step):
                real[:] = 0.0
                imag[:] = 0.0
                a = l_ * (l_ + 1) + row
                b = l_ * (l_ + 1) + column
                for s in range(n_shells):
                    b_real = moving[b, s].real
                    b_imag = moving[b, s].imag
                    for k in range(width):
                        real[k] += fixed_real[a, s, k] * b_real + fixed_imag[a, s, k] * b_imag
                        imag[k] += fixed_real[a, s, k] * b_imag - fixed_imag[a, s, k] * b_real
                target = odd if l_ % 2 == 1 else even
                for j in range(n_beta):
                    d = wigner[row + degree, column, l_, j]
                    for k in range(width):
                        target[j, 0, k] += d * real[k]
                        target[j, 1, k] += d * imag[k]
            for j in range(n_beta):
                for k in range(bank):
                    out[0, j, place, column, k] = np.complex64(
                        complex(even[j, 0, k] + odd[j, 0, k], -even[j, 1, k] - odd[j, 1, k])
                    )
                    if both_hands:
                        out[1, j, place, column, k] = np.complex64(
                            complex(even[j, 0, k] - odd[j, 0, k], odd[j, 1, k] - even[j, 1, k])
                        )


@njit(cache=True, fastmath=True, nogil=True)
def wigner_sums_of_one(
    fixed: np.ndarray, moving: np.ndarray, wigner: np.ndarray, first_degree: int, step: int, out: np.ndarray
) -> None:
    """Do what `wigner_sums` does for a bank of one and a single hand, on vectors over beta.

    fixed and moving complex64 (lm, shell); out complex64 (n_beta, n_azimuth, n_azimuth // 2 + 1), zero before.
    """
    degree = wigner.shape[1] - 1
    n_beta = wigner.shape[3]
    n_azimuth = out.shape[1]
    n_shells = fixed.shape[1]
    real = np.empty(n_beta, dtype=np.float32)
    imag = np.empty(n_beta, dtype=np.float32)
    for row in range(-degree, degree + 1):
        place = row if row >= 0 else row + n_azimuth
        for column in range(degree + 1):
            real[:] = 0.0
            imag[:] = 0.0
            lowest = max(abs(row), column, first_degree)
            if step == 2 and (lowest - first_degree) % 2 == 1:
                lowest += 1
            for l_ in range(lowest, degree + 1, step):
                a = l_ * (l_ + 1) + row
                b = l_ * (l_ + 1) + column
                sum_real = np.float32(0.0)
                sum_imag = np.float32(0.0)
                for s in range(n_shells):
                    sum_real += fixed[a, s].real * moving[b, s].real + fixed[a, s].imag * moving[b, s].imag
                    sum_imag += fixed[a, s].real * moving[b, s].imag - fixed[a, s].imag * moving[b, s].real
                d = wigner[row + degree, column, l_]
                for j in range(n_beta):
                    real[j] += d[j] * sum_real
                    imag[j] += d[j] * sum_imag
            for j in range(n_beta):
                out[j, place, column] = np.complex64(complex(real[j], -imag[j]))


def widened(values: np.ndarray) -> np.ndarray:
    """Return float32 values with zeros behind the last axis up to a multiple of `VECTOR`."""
    size = values.shape[-1]
    wide = np.zeros((*values.shape[:-1], -(-size // VECTOR) * VECTOR), dtype=np.float32)
    wide[..., :size] = values
    return wide
