"""Whether two maps tell their relative hand, and how strongly.

At low resolution a map and its mirror image look alike: then the best poses of both hands correlate equally well and
the hand is better kept as it is. What counts is how much better one hand fits than the other, against how
uncertain that difference is. What the pairs tell is brought to agree by the top eigenvector of the matrix of relative
signs (Singer 2011, Appl. Comput. Harmon. Anal. 30, 20).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from regroup_dask.science.pair_result import PairAlignment

TELLING_DEVIATIONS = 4.0
"""A pair tells the hand when its two correlations differ by this many standard deviations."""

TELLING_DIFFERENCE = 0.02
"""And by at least this much: real maps of one structure differ by more than their noise."""

DIFFERENT_STRUCTURE_DEVIATIONS = 12.0
"""Maps that differ more in structure than the hands do need this many: poses found by chance differ by up to nine."""

TELLING_LEAD, TELLING_PART = 5.0, 0.05
"""The search tells the hand when it puts one this many standard deviations of chance, and this part, above the other."""

SURE_CONFIDENCE, UNSURE_POSE_DEVIATIONS = 6.0, 20.0
"""And this many where another pose comes near the one found: there, among thousands of pairs, chance goes up to 14."""


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


def judge_by_structure(
    evidence: HandEvidence,
    similarity: np.ndarray,
    correlation: np.ndarray,
    correlation_other_hand: np.ndarray,
    confidence: np.ndarray,
) -> HandEvidence:
    """Let pairs of different structures tell the hand only where it stands out far beyond chance.

    For one structure only noise sets the two hands' scores apart by chance. Two different structures meet at the best of
    all chance poses of either hand, and which of the two is higher means nothing. Where the other hand leaves at least
    twice as much unexplained as the found one the structures are near enough; elsewhere
    `DIFFERENT_STRUCTURE_DEVIATIONS` are asked for (of 1920 pairs of unrelated maps the highest of 91 above
    `TELLING_DEVIATIONS` reached 8.4; ribosomes against their early precursors, 14 to 37), and for more where the pose is not sure
    (of 4500 pairs of unrelated maps 3 reached 14, with a confidence of 3; ribosomes against precursors have 23 and more).

    Parameters
    ----------
    evidence : HandEvidence
    similarity : numpy.ndarray
        float64 (...,), estimated correlation of the noise-free structures at the found hand.
    correlation, correlation_other_hand : numpy.ndarray
        float64 (...,), as for `hand_evidence`.
    confidence : numpy.ndarray
        float64 (...,), how far the found pose stands above the best other one, in standard deviations of chance.

    Returns
    -------
    HandEvidence
    """
    alike = np.clip(np.nan_to_num(similarity), 0.0, 1.0)
    other = alike * correlation_other_hand / np.maximum(correlation, 1e-9)
    near = 1.0 - other >= 2.0 * (1.0 - alike)
    asked = np.where(confidence > SURE_CONFIDENCE, DIFFERENT_STRUCTURE_DEVIATIONS, UNSURE_POSE_DEVIATIONS)
    return evidence._replace(told=evidence.told & (near | (evidence.deviations > asked)))


def lead_that_tells(found: PairAlignment) -> float:
    """Return how far a pair's hand stands above the other in the weighted score of the search; 0 where that does not tell it.

    To that score noise outside the particle and beyond the signal is nothing, which makes plain correlations, and so their
    difference, small. Two different structures do not tell: the other hand is to leave at least twice as much of one
    structure unexplained as the found one, and to correlate less.

    Parameters
    ----------
    found : PairAlignment
        of a search of both hands.

    Returns
    -------
    float
        in standard deviations of chance.
    """
    lead, first, second = found.lead_over_other_hand, found.score, found.score_other_hand
    clear = lead > TELLING_LEAD and second < (1.0 - TELLING_PART) * first
    alike = 1.0 - second >= 2.0 * (1.0 - min(first, 1.0))
    return lead if clear and alike and found.correlation > found.correlation_other_hand else 0.0


def hand_weights(evidence: HandEvidence, lead: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the trust in each pair's hand for `frames.synchronize`: 0 where neither evidence nor `lead_that_tells` tells it."""
    return np.minimum(np.maximum(np.where(evidence.told, np.nan_to_num(evidence.deviations), 0.0), lead), 100.0)


class AgreedHands(NamedTuple):
    """Hands of N maps that agree best with what their pairs say.

    Attributes
    ----------
    other_hand : numpy.ndarray
        bool (N,), maps whose hand is not that of most of their part.
    part : numpy.ndarray
        int (N,), number of the part that a map belongs to: pairs tell hands within a part, and none between parts.
    """

    other_hand: np.ndarray
    part: np.ndarray


def agree_on_hands(mirrored: np.ndarray, weight: np.ndarray, sizes: np.ndarray | None = None) -> AgreedHands:
    """Find the maps of the other hand: in each part that pairs connect, those that most of the part is not like.

    Parameters
    ----------
    mirrored : numpy.ndarray
        bool (N, N), symmetric: the two maps of a pair were found to be of different hands.
    weight : numpy.ndarray
        float64 (N, N), symmetric, trust in that; 0 where a pair cannot tell.
    sizes : numpy.ndarray, optional
        (N,), how much each map counts, its particles say; all the same by default. Of two hands that count the same the
        one of the largest map is kept, of equals that of the first.

    Returns
    -------
    AgreedHands
    """
    n_maps = len(mirrored)
    counts = np.ones(n_maps) if sizes is None else np.asarray(sizes, np.float64)
    n_parts, part = connected_components(weight > 0, directed=False)
    other_hand = np.zeros(n_maps, dtype=bool)
    signs = np.where(mirrored, -1.0, 1.0) * weight
    for number in range(n_parts):
        members = np.flatnonzero(part == number)
        side = _signs_of_part(signs[np.ix_(members, members)])
        lead = float(side @ counts[members])
        if lead == 0:
            lead = side[np.argmax(counts[members])]
        other_hand[members] = side * lead < 0
    return AgreedHands(other_hand, part)


def _signs_of_part(signs: np.ndarray) -> np.ndarray:
    """Return +1 and -1 for maps that weighted relative signs connect."""
    if not (signs < 0).any():
        return np.ones(len(signs))
    degree = np.sqrt(np.maximum(np.abs(signs).sum(axis=1), 1e-300))
    _, vectors = np.linalg.eigh(signs / np.outer(degree, degree))
    side = np.where(vectors[:, -1] < 0, -1.0, 1.0)
    for _ in range(len(signs)):  # settle maps that the eigenvector leaves near zero by majority
        vote = signs @ side
        better = np.where(vote == 0, side, np.sign(vote))
        worst = int(np.argmax(np.where(better != side, np.abs(vote), -1.0)))
        if better[worst] == side[worst]:
            break
        side[worst] = better[worst]
    return side
