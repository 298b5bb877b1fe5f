"""Lists of candidate poses: which of them differ, which are worth following, which lie around one."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from regroup_dask.science.rotations import rotation_vector_to_matrix


class CandidatePoses(NamedTuple):
    """Poses of the centred maps.

    Attributes
    ----------
    rotation : numpy.ndarray
        float64 (p, 3, 3).
    shift : numpy.ndarray
        float64 (p, 3) in voxels, between the particle boxes.
    hand : numpy.ndarray
        float64 (p,), -1 for mirrored.
    score : numpy.ndarray
        float64 (p,), weighted correlation coefficient.
    """

    rotation: np.ndarray
    shift: np.ndarray
    hand: np.ndarray
    score: np.ndarray

    def take(self, index: np.ndarray) -> CandidatePoses:
        """Return the poses at some indices."""
        return CandidatePoses(*(field[index] for field in self))


def join_poses(parts: list[CandidatePoses]) -> CandidatePoses:
    """Put lists of poses one after another."""
    return CandidatePoses(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def distinct_poses(poses: CandidatePoses, degrees: float, count: int) -> CandidatePoses:
    """Keep the best-scored poses that differ from better ones by an angle or hand, at most `count` per hand."""
    order = np.argsort(-poses.score, kind="stable")
    kept = np.empty(len(order), dtype=np.int64)
    number = select_distinct(poses.rotation, poses.hand, order, 1.0 + 2.0 * math.cos(math.radians(degrees)), count, kept)
    return poses.take(kept[:number])


@njit(cache=True, nogil=True)
def select_distinct(
    rotations: np.ndarray, hands: np.ndarray, order: np.ndarray, trace: float, count: int, kept: np.ndarray
) -> int:
    """Fill kept with the indices, in order, of poses unlike every kept one, and return their number."""
    number = 0
    of_hand = np.zeros(2, dtype=np.int64)
    for candidate in order:
        side = 1 if hands[candidate] < 0 else 0
        if of_hand[side] == count:
            continue
        new = True
        for k in range(number):
            other = kept[k]
            if hands[other] != hands[candidate]:
                continue
            overlap = 0.0
            for i in range(3):
                for j in range(3):
                    overlap += rotations[candidate, i, j] * rotations[other, i, j]
            if overlap > trace:
                new = False
                break
        if new:
            kept[number] = candidate
            number += 1
            of_hand[side] += 1
    return number


def promising_poses(poses: CandidatePoses, lag: float, most: int) -> CandidatePoses:
    """Keep the poses, best first, whose score could still turn out to be the best: 2 to `most` per hand.

    Scores over more shells and after more steps can rise: by a few standard deviations of chance agreement (`lag`),
    or by a fifth of the best score where the map is what makes poses alike (pseudosymmetry).
    """
    order = np.argsort(-poses.score, kind="stable")
    kept = np.empty(len(order), dtype=np.int64)
    return poses.take(kept[: select_promising(poses.score, poses.hand, order, lag, most, kept)])


@njit(cache=True, nogil=True)
def select_promising(
    scores: np.ndarray, hands: np.ndarray, order: np.ndarray, below: float, most: int, kept: np.ndarray
) -> int:
    """Fill kept with the indices of `promising_poses`, in order, and return their number."""
    number = 0
    of_hand, top = np.zeros(2, dtype=np.int64), np.zeros(2)
    highest = scores[order[0]]
    for candidate in order:
        score = scores[candidate]
        side = 1 if hands[candidate] < 0 else 0
        if of_hand[side] == 0:
            top[side] = score
        # of a hand that has lost the best two will do
        lost = top[side] < min(highest - below, 0.8 * highest)
        good = not lost and score >= min(top[side] - below, 0.8 * top[side])
        if of_hand[side] < most and (of_hand[side] < 2 or good):
            kept[number] = candidate
            number += 1
            of_hand[side] += 1
    return number


def same_best(first: CandidatePoses, second: CandidatePoses, height: float) -> bool:
    """Tell whether two searches ended at one pose, or at poses of one height: those of a symmetric map."""
    level = abs(float(first.score[0] - second.score[0])) < height
    return level or bool(
        first.hand[0] == second.hand[0]
        and np.sum(first.rotation[0] * second.rotation[0]) > 1.0 + 2.0 * math.cos(math.radians(5.0))
    )


@lru_cache(maxsize=4)
def _icosahedral_turns(degrees: float) -> np.ndarray:
    """Return float64 (12, 3, 3), turns by an angle about the twelve vertices of an icosahedron."""
    golden = 0.5 * (1.0 + math.sqrt(5.0))
    axes = [(0.0, a, b * golden) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    vertices = np.array([np.roll(axis, turn) for turn in range(3) for axis in axes])
    vertices *= math.radians(degrees) / math.sqrt(1.0 + golden**2)
    turns = np.array([rotation_vector_to_matrix(vertex) for vertex in vertices])
    turns.setflags(write=False)
    return turns


def neighbour_poses(poses: CandidatePoses, degrees: float) -> CandidatePoses:
    """Return poses turned from given ones by an angle about the twelve vertices of an icosahedron."""
    turns = _icosahedral_turns(degrees)
    return CandidatePoses(
        np.einsum("vab,pbc->pvac", turns, poses.rotation).reshape(-1, 3, 3),
        np.einsum("vab,pb->pva", turns, poses.shift).reshape(-1, 3),
        np.repeat(poses.hand, len(turns)),
        np.repeat(poses.score, len(turns)),
    )
