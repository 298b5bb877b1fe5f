"""Which of several equal poses a map takes, where its pairs with others name now one and now another."""

from __future__ import annotations

import numpy as np

from regroup_dask.science.rotations import rotation_angle_degrees

CHOICE_DEGREES = 3.0
"""Pairs that name poses of a map nearer to each other than this name one pose."""

ENOUGH_SUPPORT, CLEARLY_MORE = 0.9, 1.05
"""Poses that keep this part of all trust stay; else a map, or all of them, take others that keep so many times as much."""

MOST_CHOICES, CHOICE_ROUNDS, MOST_SOURCES = 40, 10, 5
"""How many of its pairs name poses for a map, how often all maps are gone through, and from how many of them."""


def settled_rotations(rotations: np.ndarray, rotation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Put maps that lie between what their pairs say where most of the trust in their pairs is.

    A symmetric map has several equal poses, and its pairs name now one, now another: their mean is none of them, and a map
    moved by it lies askew. Each map in turn takes the pose that one of its pairs names, the one that the others support
    most, until none has a better one (iterated conditional modes; Besag 1986, J. R. Stat. Soc. B 48, 259); from where the
    maps are, and from where each of a few of them says that the others are.

    Parameters
    ----------
    rotations : numpy.ndarray
        float64 (N, 3, 3), R_k with R_i^T R_j near ``rotation[i, j]``.
    rotation : numpy.ndarray
        float64 (N, N, 3, 3), both triangles.
    weight : numpy.ndarray
        float64 (N, N), trust in each pair.

    Returns
    -------
    numpy.ndarray
        float64 (N, 3, 3); the array that was given where it is as good as any.
    """
    total = float(weight.sum())
    if _support(rotations, rotation, weight) > ENOUGH_SUPPORT * total:
        return rotations
    best, most = rotations, _support(rotations, rotation, weight)
    sources = np.argsort(-weight.sum(axis=1), kind="stable")[:MOST_SOURCES]
    for source in (None, *sources):
        start = rotations
        if source is not None:
            said = rotations[source] @ rotation[source]
            start = np.where((weight[source] > 0)[:, None, None], said, rotations)
            start[source] = rotations[source]
        settled = _settled_from(start, rotation, weight)
        support = _support(settled, rotation, weight)
        if support > CLEARLY_MORE * most:
            best, most = settled, support
    return best


def _support(rotations: np.ndarray, rotation: np.ndarray, weight: np.ndarray) -> float:
    """Return the trust in all pairs, each the less the further it is from what the poses say."""
    away = rotation_angle_degrees(np.einsum("iba,jbc->ijac", rotations, rotations), rotation)
    return float((weight / (1.0 + (away / CHOICE_DEGREES) ** 2) ** 2).sum())


def _settled_from(rotations: np.ndarray, rotation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    settled = rotations.copy()
    for _ in range(CHOICE_ROUNDS):
        moved = False
        for index in range(len(rotations)):
            others = np.flatnonzero(weight[index] > 0)
            if not others.size:
                continue
            trust = weight[index, others]
            votes = settled[others] @ rotation[index, others].transpose(0, 2, 1)
            named = np.argsort(-trust, kind="stable")[:MOST_CHOICES]
            tried = np.concatenate([settled[index][None], votes[named]])
            away = rotation_angle_degrees(tried[:, None], votes[None])
            support = (trust / (1.0 + (away / CHOICE_DEGREES) ** 2) ** 2).sum(axis=1)
            chosen = int(np.argmax(support))
            if support[chosen] > CLEARLY_MORE * support[0]:
                settled[index] = tried[chosen]
                moved = True
        if not moved:
            break
    return settled
