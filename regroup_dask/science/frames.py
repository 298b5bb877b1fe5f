"""One frame for many maps: relative poses made to agree, wrong ones found, hands made consistent.

Relative poses of N maps contain N - 1 independent ones; the rest must agree with them around every cycle.
Hands come first (`hands.agree_on_hands`). Rotations are synchronized from the top eigenvectors of the matrix of
all relative ones (Singer 2011, Appl. Comput. Harmon. Anal. 30, 20; Singer and Shkolnisky 2011, SIAM J. Imaging Sci.
4, 543), then made robust by reweighting (iteratively reweighted least squares, as in Chatterjee and Govindu 2018, IEEE
TPAMI 40, 958); shifts follow by weighted linear least squares. Pairs that contradict the result are named,
with the poses that the result predicts, so that they can be aligned again from there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.science.hands import agree_on_hands
from regroup_dask.science.pose_choice import CHOICE_DEGREES, settled_rotations
from regroup_dask.science.rotations import Pose, nearest_rotation, rotation_angle_degrees

INCONSISTENT_DEGREES = 10.0
"""A pair whose relative rotation is further than this from the synchronized one counts as wrong."""

FINEST_SHIFT_ANGSTROM = 0.3
"""Shifts that agree to this are not reweighed any further."""


class Frames(NamedTuple):
    """Poses that take every map into the frame of the reference.

    Attributes
    ----------
    rotation : numpy.ndarray
        float64 (N, 3, 3); ``x_reference = R_k x_k + t_k``, with x_k -> -x_k first when mirrored.
    shift_angstrom : numpy.ndarray
        float64 (N, 3).
    mirrored : numpy.ndarray
        bool (N,).
    residual_degrees : numpy.ndarray
        float64 (N, N), angle between the given relative rotations and those that follow from the frames; 180
        where the hands contradict; NaN where no pair was given; 0 on the diagonal.
    inconsistent : list of tuple of int
        pairs (i, j), i < j, whose residual is above `INCONSISTENT_DEGREES`, worst first.
    """

    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: np.ndarray
    residual_degrees: np.ndarray
    inconsistent: list[tuple[int, int]]


class PredictedPair(NamedTuple):
    """The relative pose of a pair that the frames predict: ``x_i = R x_j + t``.

    Attributes
    ----------
    fixed, moving : int
        i and j.
    rotation : numpy.ndarray
    shift_angstrom : numpy.ndarray
    mirrored : bool
    """

    fixed: int
    moving: int
    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: bool


def complete_pairs(
    rotation: np.ndarray, shift_angstrom: np.ndarray, mirrored: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fill the lower triangle with the inverse poses of the upper one, and the diagonal with the identity.

    Only pairs (i, j) with i < j are read.
    """
    n = len(rotation)
    upper = np.triu(np.ones((n, n), dtype=bool), 1)
    sign = np.where(mirrored, -1.0, 1.0)
    turned = rotation.transpose(1, 0, 3, 2)
    inverse_shift = -sign.T[..., None] * np.einsum("ijab,ijb->ija", turned, shift_angstrom.transpose(1, 0, 2))
    full_rotation = np.where(upper[..., None, None], rotation, turned)
    full_shift = np.where(upper[..., None], shift_angstrom, inverse_shift)
    full_mirrored = np.where(upper, mirrored, mirrored.T)
    full_weight = np.where(upper, weight, weight.T).astype(np.float64)
    diagonal = np.arange(n)
    full_rotation[diagonal, diagonal] = np.eye(3)
    full_shift[diagonal, diagonal] = 0.0
    full_mirrored[diagonal, diagonal] = False
    full_weight[diagonal, diagonal] = 0.0
    full_weight = np.where(np.isfinite(full_weight), np.maximum(full_weight, 0.0), 0.0)
    known = full_weight > 0  # poses of pairs that were never compared may be anything, NaN too
    full_rotation = np.where(known[..., None, None], full_rotation, np.eye(3))
    full_shift = np.where(known[..., None], full_shift, 0.0)
    full_mirrored &= known
    return full_rotation, full_shift, full_mirrored, full_weight


def predicted_pair(frames: Frames, fixed: int, moving: int) -> PredictedPair:
    """Return the relative pose of two maps that the frames imply."""
    sign = -1.0 if frames.mirrored[fixed] else 1.0
    rotation = frames.rotation[fixed].T @ frames.rotation[moving]
    shift = sign * frames.rotation[fixed].T @ (frames.shift_angstrom[moving] - frames.shift_angstrom[fixed])
    return PredictedPair(fixed, moving, rotation, shift, bool(frames.mirrored[fixed]) != bool(frames.mirrored[moving]))


def frame_pose(frames: Frames, index: int) -> Pose:
    """Return the pose that takes one map into the frame."""
    return Pose(frames.rotation[index], frames.shift_angstrom[index], bool(frames.mirrored[index]))


def cycle_residual_degrees(rotation: np.ndarray, mirrored: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return for every pair the weighted median, over third maps, of how far the cycle i-j-k is from closing.

    Parameters
    ----------
    rotation : numpy.ndarray
        float64 (N, N, 3, 3), both triangles (see `complete_pairs`).
    mirrored : numpy.ndarray
        bool (N, N).
    weight : numpy.ndarray
        float64 (N, N).

    Returns
    -------
    numpy.ndarray
        float64 (N, N), degrees; a cycle that changes hand counts as 180; NaN where there is no third map.
    """
    n = len(rotation)
    result = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1, n):
            around = np.einsum("kab,kbc->kac", rotation[i], rotation[:, j])
            angle = rotation_angle_degrees(around, rotation[i, j])
            angle = np.where((mirrored[i] ^ mirrored[:, j]) ^ mirrored[i, j], 180.0, angle)
            through = np.minimum(weight[i], weight[:, j])
            through[[i, j]] = 0.0
            if through.sum() <= 0:
                continue
            order = np.argsort(angle, kind="stable")
            cumulative = np.cumsum(through[order])
            result[i, j] = result[j, i] = angle[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])]
    return result


def _spectral_rotations(rotation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return rotations R_k with R_i^T R_j near rotation[i, j], from the three top eigenvectors."""
    n = len(rotation)
    degree = np.sqrt(weight.sum(axis=1))
    degree[degree <= 1e-12 * degree.max()] = 1.0  # a map that no pair speaks for: nothing to scale, and nothing to divide by
    scaled = weight / degree[:, None] / degree[None, :]
    matrix = (rotation * scaled[..., None, None]).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    _, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    blocks = vectors[:, -3:].reshape(n, 3, 3) / degree[:, None, None]
    # eigenvectors give R_k^T up to one orthogonal matrix: choose its sign so that most blocks are proper
    if np.sum(np.linalg.det(blocks) * weight.sum(axis=1)) < 0:
        blocks = blocks.copy()
        blocks[..., 0] *= -1.0
    return nearest_rotation(blocks.transpose(0, 2, 1))


def _polish_rotations(
    rotations: np.ndarray, rotation: np.ndarray, weight: np.ndarray, *, rounds: int, scale: float = 8.0
) -> np.ndarray:
    """Reweigh and average: each map's rotation becomes the robust mean of what its neighbours say."""
    for step in range(rounds):
        predicted = np.einsum("iba,jbc->ijac", rotations, rotations)
        residual = rotation_angle_degrees(predicted, rotation)
        trust = weight / (1.0 + (residual / scale) ** 2) ** 2
        scale = max(1.5, scale * 0.9)
        votes = np.einsum("ij,jab,ijcb->iac", trust, rotations, rotation)  # R_j rotation[i, j]^T
        settled = nearest_rotation(votes)
        moved = rotation_angle_degrees(settled, rotations).max()
        rotations = np.where((trust.sum(axis=1) > 0)[:, None, None], settled, rotations)
        if moved < 1e-9 and step > 15:
            break
    return rotations


def _synchronize_shifts(
    rotations: np.ndarray, shift: np.ndarray, sign: np.ndarray, weight: np.ndarray, reference: int
) -> np.ndarray:
    """Return shifts t_k with t_j - t_i = s_i R_i t_ij in the least squares sense, t_reference = 0."""
    n = len(rotations)
    difference = sign[:, None, None] * np.einsum("iab,ijb->ija", rotations, shift)
    free = np.array([k for k in range(n) if k != reference], dtype=np.int64)
    result = np.zeros((n, 3))
    if not free.size:
        return result
    trust = weight.copy()
    for _ in range(10):
        laplacian = np.diag(trust.sum(axis=1)) - trust
        right = np.einsum("ij,ija->ja", trust, difference)
        system = laplacian[np.ix_(free, free)] + 1e-12 * np.eye(len(free)) * max(trust.max(), 1e-300)
        result = np.zeros((n, 3))
        result[free] = np.linalg.solve(system, right[free])
        residual = np.sqrt(((result[None, :] - result[:, None] - difference) ** 2).sum(axis=2))
        used = residual[weight > 0]
        scale = max(FINEST_SHIFT_ANGSTROM, 3.0 * (float(np.median(used)) if used.size else 0.0))
        trust = weight / (1.0 + (residual / scale) ** 2)
        trust = 0.5 * (trust + trust.T)
    return result


def _make_frames(
    rotations: np.ndarray,
    shifts: np.ndarray,
    other_hand: np.ndarray,
    rotation: np.ndarray,
    mirrored: np.ndarray,
    weight: np.ndarray,
) -> Frames:
    predicted = np.einsum("iba,jbc->ijac", rotations, rotations)
    residual = rotation_angle_degrees(predicted, rotation)
    residual = np.where((other_hand[:, None] ^ other_hand[None, :]) ^ mirrored, 180.0, residual)
    residual = np.where(weight > 0, residual, np.nan)
    np.fill_diagonal(residual, 0.0)
    pairs = np.argwhere(np.triu(np.nan_to_num(residual) > INCONSISTENT_DEGREES, 1))
    order = np.argsort(-residual[pairs[:, 0], pairs[:, 1]], kind="stable")
    return Frames(rotations, shifts, other_hand, residual, [(int(i), int(j)) for i, j in pairs[order]])


def synchronize(
    rotation: np.ndarray,
    shift_angstrom: np.ndarray,
    mirrored: np.ndarray,
    weight: np.ndarray,
    *,
    reference: int,
    hand_weight: np.ndarray | None = None,
    other_hand: np.ndarray | None = None,
) -> Frames:
    """Find poses of all maps in one frame that agree best with the relative poses of pairs, wrong ones among them.

    Parameters
    ----------
    rotation : numpy.ndarray
        float64 (N, N, 3, 3), ``x_i = R_ij x_j + t_ij``; only i < j is read.
    shift_angstrom : numpy.ndarray
        float64 (N, N, 3).
    mirrored : numpy.ndarray
        bool (N, N).
    weight : numpy.ndarray
        float64 (N, N), trust in each pair, 0 (or NaN) for pairs that were not compared.
    reference : int
        the map whose rotation is exactly the identity, and whose shift is none.
    hand_weight : numpy.ndarray, optional
        float64 (N, N), trust in what each pair says of the hand (`hands.hand_weights`); `weight` by default.
        Maps that no trust connects with the reference agree among themselves and keep the hand of most of them.
    other_hand : numpy.ndarray, optional
        bool (N,), which maps are mirrored, the reference too if it says so; by default what the pairs say, and the
        reference is not.

    Returns
    -------
    Frames

    Raises
    ------
    InputError
        when the reference is no map of these.
    """
    n = len(rotation)
    if not 0 <= reference < n:
        raise InputError(f"the reference {reference} is not one of the {n} maps; give 0 to {n - 1}")
    if n == 1:
        alone = np.zeros(1, bool) if other_hand is None else np.asarray(other_hand, bool)
        return Frames(np.eye(3)[None], np.zeros((1, 3)), alone, np.zeros((1, 1)), [])
    relative, shift, hand, trust = complete_pairs(
        np.asarray(rotation, np.float64),
        np.asarray(shift_angstrom, np.float64),
        np.asarray(mirrored, bool),
        weight,
    )
    if other_hand is None:
        voice = trust
        if hand_weight is not None:
            voice = np.triu(np.nan_to_num(np.asarray(hand_weight, np.float64)), 1)
            voice = np.where(trust > 0, voice + voice.T, 0.0)
        agreed = agree_on_hands(hand, voice)
        its_part = agreed.part == agreed.part[reference]
        other_hand = agreed.other_hand ^ (its_part & agreed.other_hand[reference])
    else:
        other_hand = np.asarray(other_hand, bool)
    agrees = ~((other_hand[:, None] ^ other_hand[None, :]) ^ hand)
    usable = np.where(agrees, trust, 0.0)
    cycles = cycle_residual_degrees(relative, hand, trust)
    believed = np.where(np.isnan(cycles), usable, usable / (1.0 + (np.nan_to_num(cycles) / 10.0) ** 2))
    rotations = _spectral_rotations(relative, believed)
    rotations = _polish_rotations(rotations, relative, usable, rounds=60)
    chosen = settled_rotations(rotations, relative, usable)
    if chosen is not rotations:
        rotations = _polish_rotations(chosen, relative, usable, rounds=20, scale=CHOICE_DEGREES)
    residual = rotation_angle_degrees(np.einsum("iba,jbc->ijac", rotations, rotations), relative)
    near = usable / (1.0 + (residual / 3.0) ** 2) ** 2
    sign = np.where(other_hand, -1.0, 1.0)
    shifts = _synchronize_shifts(rotations, shift, sign, near, reference)
    rotations, shifts = _anchor(rotations, shifts, reference)
    return _make_frames(rotations, shifts, other_hand, relative, hand, trust)


def _anchor(rotations: np.ndarray, shifts: np.ndarray, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn and move all poses so that the reference neither turns nor moves."""
    back = rotations[reference].T
    shifts = (shifts - shifts[reference]) @ back.T
    rotations = nearest_rotation(back @ rotations)
    rotations[reference] = np.eye(3)
    shifts[reference] = 0.0
    return rotations, shifts


def star_frames(
    rotation: np.ndarray,
    shift_angstrom: np.ndarray,
    mirrored: np.ndarray,
    weight: np.ndarray,
    *,
    reference: int,
) -> Frames:
    """Take every map's pose straight from its pair with the reference; parameters as for `synchronize`."""
    relative, shift, hand, trust = complete_pairs(
        np.asarray(rotation, np.float64),
        np.asarray(shift_angstrom, np.float64),
        np.asarray(mirrored, bool),
        weight,
    )
    return _make_frames(
        relative[reference].copy(), shift[reference].copy(), hand[reference].copy(), relative, hand, trust
    )
