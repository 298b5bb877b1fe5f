"""The frame of each superclass: poses of its classes from the pairs between them, and which hand each class has."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.science import frames, hands, sparse_frames, sparse_hands

# Above this the methods that look at all pairs together take too long; the graph of nearest maps says enough.
MOST_DENSE_CLASSES = 300

SURE_CONFIDENCE, LEAST_WITNESS = 3.0, 0.1
"""A pair's pose bears full witness from this confidence on, and this part of it where another pose is as good."""


def superclass_poses(
    pairs: xr.Dataset, labels: np.ndarray, sizes: np.ndarray, references: np.ndarray, *, frame: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose of every class into its superclass frame: quaternions, shifts in angstrom, mirrored."""
    n_classes = len(labels)
    quaternion = np.tile([0.0, 0.0, 0.0, 1.0], (n_classes, 1))
    shift, mirrored = np.zeros((n_classes, 3)), opposite_hands(pairs, sizes)
    if not pairs.attrs.get("align", 1) or "rotation_quaternion" not in pairs:
        return quaternion, shift, mirrored
    if frame == "common":
        blocks = [(np.arange(n_classes), int(np.argmax(sizes)))]
    else:
        blocks = [(np.flatnonzero(labels == label), references[label]) for label in range(len(references))]
    for members, reference in blocks:
        if len(members) == 1:
            continue
        solved = _synchronized(pairs, members, reference, mirrored[members])
        quaternion[members] = Rotation.from_matrix(solved.rotation).as_quat(canonical=True)
        shift[members] = solved.shift_angstrom
        quaternion[reference], shift[reference] = (0.0, 0.0, 0.0, 1.0), 0.0
    return quaternion, shift, mirrored


def agreed_hands(pairs: xr.Dataset, sizes: np.ndarray) -> hands.AgreedHands:
    """Hands of all classes of a run, that of most particles being kept, and the parts between which no pair tells it."""
    n_classes = len(sizes)
    if not pairs.attrs.get("align", 1) or "mirrored" not in pairs:
        return hands.AgreedHands(np.zeros(n_classes, bool), np.arange(n_classes))
    if n_classes > MOST_DENSE_CLASSES:
        listed = np.argwhere(np.triu(np.isfinite(pairs["correlation"].values), 1))
        i, j = listed.T
        weight = weights_of_correlations(np.asarray(pairs["correlation"].values[i, j], np.float64))
        said = np.nan_to_num(pairs["hand_trust"].values[i, j]) if "hand_trust" in pairs else weight
        return sparse_hands.agree_on_listed_hands(listed, pairs["mirrored"].values[i, j], said, sizes=sizes)
    compared = pair_weights(pairs["correlation"].values)
    trust = np.nan_to_num(pairs["hand_trust"].values) if "hand_trust" in pairs else compared
    return hands.agree_on_hands(pairs["mirrored"].values, np.where(compared > 0, trust, 0.0), sizes)


def opposite_hands(pairs: xr.Dataset, sizes: np.ndarray) -> np.ndarray:
    """Which classes are of the other hand than most particles, bool (N,); False where it cannot be told."""
    return agreed_hands(pairs, sizes).other_hand


def _synchronized(
    pairs: xr.Dataset, members: np.ndarray, reference: int, mirrored: np.ndarray
) -> frames.Frames | sparse_frames.SparseFrames:
    """Poses of some classes in the frame of one of them, from all pairs between them."""
    square = np.ix_(members, members)
    compared = np.isfinite(pairs["correlation"].values[square])
    if len(members) > MOST_DENSE_CLASSES or not compared[~np.eye(len(members), dtype=bool)].all():
        return _synchronized_list(pairs, members, reference, compared, mirrored)
    matrices = Rotation.from_quat(pairs["rotation_quaternion"].values[square].reshape(-1, 4)).as_matrix()
    return frames.synchronize(
        matrices.reshape(len(members), len(members), 3, 3),
        pairs["shift_angstrom"].values[square],
        pairs["mirrored"].values[square],
        pair_weights(pairs["correlation"].values[square], _confidence(pairs, square)),
        reference=int(np.flatnonzero(members == reference)[0]),
        other_hand=mirrored,
    )


def _confidence(pairs: xr.Dataset, square: tuple[np.ndarray, ...]) -> np.ndarray | None:
    return pairs["confidence"].values[square] if "confidence" in pairs else None


def _synchronized_list(
    pairs: xr.Dataset, members: np.ndarray, reference: int, compared: np.ndarray, mirrored: np.ndarray
) -> sparse_frames.SparseFrames:
    """The same from those pairs that were compared; classes that no pair joins to the reference stay as they are."""
    listed = np.argwhere(np.triu(compared, 1))
    i, j = members[listed].T
    correlation = np.asarray(pairs["correlation"].values[i, j], np.float64)
    return sparse_frames.synchronize_pairs(
        listed,
        Rotation.from_quat(pairs["rotation_quaternion"].values[i, j].reshape(-1, 4)).as_matrix(),
        np.asarray(pairs["shift_angstrom"].values[i, j], np.float64),
        pairs["mirrored"].values[i, j],
        weights_of_correlations(correlation),
        priority=members == reference,
        other_hand=mirrored,
    )


def pair_weights(correlation: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
    """Weight of each pair in agreeing on poses, (N, N); 0 if not compared.

    A pose that another one equals, as between symmetric maps, bears little witness to how others lie: pairs weigh less the
    nearer the next pose comes, where the confidence in them is given.
    """
    weight = weights_of_correlations(correlation)
    if confidence is not None:
        sure = np.clip(np.where(np.isfinite(confidence), confidence, SURE_CONFIDENCE) / SURE_CONFIDENCE, 0.0, 1.0)
        weight = weight * (LEAST_WITNESS + (1.0 - LEAST_WITNESS) * sure)
    np.fill_diagonal(weight, 0.0)
    return weight


def weights_of_correlations(correlation: np.ndarray) -> np.ndarray:
    """The square of what two maps have in common, as the weight of their pair; 0 if not compared."""
    return np.where(np.isfinite(correlation), np.clip(correlation, 1e-6, 1) ** 2, 0.0)
