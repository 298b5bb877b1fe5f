"""Whether two maps tell their relative hand, and how strongly.

At low resolution a map and its mirror image look alike: then the best poses of both hands correlate equally well and
the hand is better kept as it is. What counts is how much better one hand fits than the other, against how
uncertain that difference is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TELLING_DEVIATIONS = 4.0
"""A pair tells the hand when its two correlations differ by this many standard deviations."""

TELLING_DIFFERENCE = 0.02
"""And by at least this much: real maps of one structure differ by more than their noise."""


class HandEvidence(NamedTuple):
    """What pairs say of the hand.

    Attributes
    ----------
    deviations : numpy.ndarray
        float64 (...,), difference of the two correlations in standard deviations; positive for the hand that was
        found; NaN where hands were not compared.
    told : numpy.ndarray
        bool (...,), whether the pair tells the hand.
    """

    deviations: np.ndarray
    told: np.ndarray


def independent_coefficients(
    power_fixed: np.ndarray, power_moving: np.ndarray, counts: np.ndarray, *, filled_fraction: float = 1.0
) -> np.ndarray:
    """Return how many equally strong independent coefficients a correlation over shells amounts to.

    The participation number of the amplitudes: shells count by how much of the signal they carry.

    Parameters
    ----------
    power_fixed, power_moving : numpy.ndarray
        float64 (..., shells), summed powers.
    counts : numpy.ndarray
        float64 (shells,), coefficients per shell of the full spectrum (`fourier.shell_counts`).
    filled_fraction : float
        part of the box that the maps fill; outside a mask coefficients only repeat their neighbours.

    Returns
    -------
    numpy.ndarray
        float64 (...,).
    """
    number = np.maximum(counts[1:], 1.0)
    joint = np.sqrt(np.maximum(power_fixed[..., 1:] * power_moving[..., 1:], 0.0))
    amplitude = np.sqrt(joint * number)  # summed over the coefficients of a shell
    return 0.5 * filled_fraction * amplitude.sum(axis=-1) ** 2 / np.maximum(joint.sum(axis=-1), 1e-300)


def hand_evidence(
    correlation: np.ndarray, correlation_other_hand: np.ndarray, independent: np.ndarray | float
) -> HandEvidence:
    """Weigh the correlations of both hands by Fisher's z transform.

    Parameters
    ----------
    correlation, correlation_other_hand : numpy.ndarray
        float64 (...,), of the hand that was found and of the other.
    independent : numpy.ndarray or float
        see `independent_coefficients`.

    Returns
    -------
    HandEvidence
    """
    first, second = np.asarray(correlation, np.float64), np.asarray(correlation_other_hand, np.float64)
    limit = 1.0 - 1e-9
    difference = np.arctanh(np.clip(first, -limit, limit)) - np.arctanh(np.clip(second, -limit, limit))
    deviations = difference * np.sqrt(np.maximum(np.asarray(independent) - 3.0, 0.0) / 2.0)
    told = (deviations > TELLING_DEVIATIONS) & (first - second > TELLING_DIFFERENCE)
    return HandEvidence(deviations, told)


def hand_weights(evidence: HandEvidence) -> np.ndarray:
    """Return the trust in each pair's hand for `frames.synchronize`: 0 where the pair cannot tell."""
    return np.where(evidence.told, np.minimum(np.nan_to_num(evidence.deviations), 100.0), 0.0)
