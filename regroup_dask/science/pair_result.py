"""What the comparison of two maps gives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PairAlignment(NamedTuple):
    """A pose that superposes a moving map onto a fixed one, and how alike the maps are there.

    Attributes
    ----------
    rotation : numpy.ndarray
        float64 (3, 3): ``x_fixed = R x_moving + t``, vectors (x, y, z).
    shift_angstrom : numpy.ndarray
        float64 (3,), t.
    mirrored : bool
        x_moving is replaced by -x_moving before R and t.
    correlation : float
        Pearson correlation of the two working maps at the pose.
    correlation_other_hand : float
        the same at the best pose of the other hand; NaN when hands were not compared.
    confidence : float
        how far the pose stands above the next different one, in standard deviations of chance agreement;
        NaN without a search.
    cross_power, power_fixed, power_moving : numpy.ndarray
        float64 (box // 2 + 1,): sums over each Fourier shell of Re(F_fixed conj F_moved) and of the two
        powers.
    lead_over_other_hand : float
        how far the pose stands above the best one of the other hand, in standard deviations of chance agreement; NaN when
        hands were not compared.
    score, score_other_hand : float
        of the search at the best pose of each hand; 1 is what two maps with this noise score if they are one structure.
    """

    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: bool
    correlation: float
    correlation_other_hand: float
    confidence: float
    cross_power: np.ndarray
    power_fixed: np.ndarray
    power_moving: np.ndarray
    lead_over_other_hand: float = float("nan")
    score: float = float("nan")
    score_other_hand: float = float("nan")
