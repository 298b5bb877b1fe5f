"""All maps together: maps of one structure tell each other's share of signal."""

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.reliability import Reliability

# Above so many maps the normal equations are solved by damped Jacobi steps.
_LARGEST_SOLVED = 300


def shared_variance(reliability: Reliability, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance per map and shell of the relative error of ``r``, float64[N, S].

    It has the map's own noise in its power (``a^2 / 4m`` for an inverse signal-to-noise ratio a), the noise
    of the noise estimate, its scale error, and what decorrelates a map from all others alike (a small error
    of its pose, interpolation, leakage).
    """
    q = reliability.signal_fraction
    a = (1 - q) / q
    random = a**2 * (1 / coefficients[None] + reliability.noise_variance) / 4
    scale = (a * reliability.scale_error[:, None]) ** 2 / 4
    return np.asarray(random + scale + reliability.decorrelation**2)


def pair_variance(q: NDArray[np.float64], coefficients: NDArray[np.float64], s: int) -> NDArray[np.float64]:
    """Variance of ``c / (r_i r_j)`` that two maps share with no third, float64[N, N]: ``a b / 2m``."""
    a = (1 - q[:, s]) / q[:, s]
    return np.asarray(a[:, None] * a[None, :] / (2 * coefficients[s]))


def neighbour_weights(distance: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance that two maps show one structure, judged from each map's nearest neighbour, float64[N, N].

    An error in the signal share of a map shifts all its distances alike, so a distance counts by how far it
    is above the smallest of its row and of its column.
    """
    n = len(distance)
    d = np.where(np.isfinite(distance) & (sigma > 0), distance, np.inf)
    np.fill_diagonal(d, np.inf)
    weights = np.zeros((n, n))
    # The surest upper bound of the nearest neighbour's distance; a noisy pair that is low by chance does not
    # set it.
    bound = (d + sigma).min(axis=1, initial=np.inf)
    for_row = np.maximum(d - bound[:, None], 0) / np.maximum(sigma, 1e-9)
    with np.errstate(invalid="ignore"):
        weights = np.exp(
            -0.5 * np.minimum(for_row, for_row.T) ** 2 - 0.5 * np.maximum(for_row, for_row.T) ** 2
        )
    return np.where(np.isfinite(weights) & np.isfinite(d), weights, 0.0)


def share_signal(
    fsc: NDArray[np.float64],
    reliability: Reliability,
    coefficients: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Correct every map's ``r`` per shell by what its likely equals say.

    Per shell, ``c_ij / (r_i r_j) - 1 = e_i + e_j + noise`` for two maps of one structure; the errors e have
    the prior variance of `shared_variance`, and are found by weighted least squares.

    Returns
    -------
    float64[N, S], float64[N, S], float
        Relative correction of ``r``, its variance afterwards, and the sum of squared corrections over prior
        variances.
    """
    q = reliability.signal_fraction
    prior = shared_variance(reliability, coefficients)
    correction, variance, cost = np.zeros_like(q), prior.copy(), 0.0
    for s in range(1, q.shape[1]):
        use = np.flatnonzero(np.isfinite(q[:, s]))
        if len(use) < 2:
            continue
        c = fsc[np.ix_(use, use)][:, :, s]
        r = np.sqrt(q[use, s])
        excess = np.where(np.isfinite(c), c, 0) / (r[:, None] * r[None]) - 1
        noise = pair_variance(q[use], coefficients, s) + 1e-4
        precision = np.where(np.isfinite(c), weights[np.ix_(use, use)], 0) / noise
        np.fill_diagonal(precision, 0)
        diagonal = precision.sum(axis=1) + 1 / prior[use, s]
        pull = (precision * excess).sum(axis=1)
        if len(use) > _LARGEST_SOLVED:
            for _ in range(10):
                correction[use, s] += 0.5 * (
                    (pull - precision @ correction[use, s]) / diagonal - correction[use, s]
                )
            variance[use, s] = 1 / diagonal
        else:
            inverse = np.linalg.inv(precision + np.diag(diagonal))
            correction[use, s] = inverse @ pull
            variance[use, s] = np.diag(inverse)
        cost += float((correction[use, s] ** 2 / prior[use, s]).sum())
    return correction, variance, cost
