"""One frame for each connected part of a graph of pairs: `science.frames` for thousands of maps.

Relative poses are rows of a list, and nothing grows with the square of the number of maps. Hands and rotations come from
the leading eigenvectors of the sparse matrices of relative signs and rotations (Singer 2011; Singer and Shkolnisky 2011),
found by subspace iteration, are made robust by reweighting (Chatterjee and Govindu 2018), and shifts follow by weighted
least squares; the sources are named in full in `science.frames`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import cg

from regroup_dask.science.frames import FINEST_SHIFT_ANGSTROM, INCONSISTENT_DEGREES
from regroup_dask.science.pair_graph import (
    PairGraph,
    both_directions,
    connected_parts,
    first_of_each_part,
    leading_vectors,
    pair_matrix,
)
from regroup_dask.science.rotations import nearest_rotation, rotation_angle_degrees

POLISH_ROUNDS = 60
SHIFT_ROUNDS = 10
RESEAT_AT = (15, 25, 35)
AGREEING_DEGREES = 3.0
MOST = 0.6
# Third maps looked at for each pair, among the surest neighbours of its first map and of its second.
THIRD_MAPS = 16
ROWS_AT_A_TIME = 16_384


class SparseFrames(NamedTuple):
    """Poses that take every map into the frame of the root of its part.

    Attributes
    ----------
    rotation, shift_angstrom, mirrored : float64[N, 3, 3], float64[N, 3], bool[N]
        ``x_root = R_k (+-x_k) + t_k``.
    part : int64[N]
        Connected part of each map; poses of different parts have nothing to do with each other.
    residual_degrees : float64[P]
        Angle between each pair's relative rotation and the one that follows from the frames; 180 where the hands
        contradict.
    inconsistent : int64[M]
        Rows whose residual is above `frames.INCONSISTENT_DEGREES`, worst first.
    """

    rotation: NDArray[np.float64]
    shift_angstrom: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    part: NDArray[np.int64]
    residual_degrees: NDArray[np.float64]
    inconsistent: NDArray[np.int64]


def synchronize_pairs(
    pairs: NDArray[np.int64],
    rotation: NDArray[np.float64],
    shift_angstrom: NDArray[np.float64],
    mirrored: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    priority: NDArray[np.integer],
    other_hand: NDArray[np.bool_],
) -> SparseFrames:
    """Find poses of all maps that agree best with the relative poses of some pairs, wrong ones among them.

    Parameters
    ----------
    pairs : int64[P, 2]
        Maps (i, j), i < j, each pair once: ``x_i = R (+-x_j) + t``.
    rotation, shift_angstrom, mirrored
        float64[P, 3, 3], float64[P, 3], bool[P].
    weight : float64[P]
        Trust in each pair; 0 (or NaN) leaves it out.
    priority : int[N]
        The root of each part, whose pose is exactly the identity, is its map of highest priority, the first of equals.
    other_hand : bool[N]
        Maps that are inverted before anything else (`sparse_hands.agree_on_listed_hands`); pairs that contradict it do not count.

    Returns
    -------
    SparseFrames
    """
    n_maps = len(priority)
    trust = np.nan_to_num(np.maximum(weight, 0.0))
    graph = both_directions(pairs, rotation, shift_angstrom, mirrored, n_maps)
    trust = np.concatenate([trust, trust])
    part = connected_parts(graph, trust)
    roots = first_of_each_part(part, priority)
    agrees = ~(other_hand[graph.head] ^ other_hand[graph.tail] ^ graph.mirrored)
    usable = np.where(agrees, trust, 0.0)
    cycles = _cycle_residual_degrees(graph, trust)
    believed = np.where(np.isnan(cycles), usable, usable / (1.0 + (np.nan_to_num(cycles) / 10.0) ** 2))
    rotations = _leading_rotations(graph, np.maximum(believed, 1e-6 * usable), part)
    rotations = _polish_rotations(graph, rotations, usable)
    residual = _residual_degrees(graph, rotations)
    near = usable / (1.0 + (residual / 3.0) ** 2) ** 2
    shifts = _shifts(graph, rotations, np.where(other_hand, -1.0, 1.0), near, roots)
    back = np.swapaxes(rotations[roots[part]], 1, 2)
    shifts = np.einsum("kab,kb->ka", back, shifts - shifts[roots[part]])
    rotations = nearest_rotation(back @ rotations)
    rotations[roots], shifts[roots] = np.eye(3), 0.0
    residual = np.where(agrees, residual, 180.0)[: len(pairs)]
    residual = np.where(trust[: len(pairs)] > 0, residual, np.nan)
    wrong = np.flatnonzero(np.nan_to_num(residual) > INCONSISTENT_DEGREES)
    return SparseFrames(
        rotations, shifts, other_hand, part, residual, wrong[np.argsort(-residual[wrong], kind="stable")]
    )


def cycle_residual_degrees(
    pairs: NDArray[np.int64],
    rotation: NDArray[np.float64],
    mirrored: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    n_maps: int,
) -> NDArray[np.float64]:
    """For every pair the weighted median, over third maps, of how far the cycle i-k-j is from closing, float64[P].

    Parameters are those of `synchronize_pairs`; NaN for a pair whose maps have no third one in common.
    """
    trust = np.nan_to_num(np.maximum(weight, 0.0))
    graph = both_directions(pairs, rotation, np.zeros((len(pairs), 3)), mirrored, n_maps)
    return _cycle_residual_degrees(graph, np.concatenate([trust, trust]))[: len(pairs)]


def predicted_pairs(
    frames: SparseFrames, fixed: NDArray[np.int64], moving: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Relative poses that the frames imply; meaningful within a part only."""
    back = np.swapaxes(frames.rotation[fixed], 1, 2)
    sign = np.where(frames.mirrored[fixed], -1.0, 1.0)[:, None]
    shift = sign * np.einsum("kab,kb->ka", back, frames.shift_angstrom[moving] - frames.shift_angstrom[fixed])
    return back @ frames.rotation[moving], shift, frames.mirrored[fixed] != frames.mirrored[moving]


def _leading_rotations(graph: PairGraph, weight: NDArray[np.float64], part: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rotations R_k with R_i^T R_j near the relative ones, from the three leading vectors of each part."""
    n_maps = graph.n_maps
    degree = np.sqrt(graph.sums(weight))
    degree[degree <= 0] = 1.0
    scaled = (weight / degree[graph.head] / degree[graph.tail])[:, None, None] * graph.rotation
    axis = np.arange(3)
    rows = np.broadcast_to(3 * graph.head[:, None, None] + axis[:, None], scaled.shape)
    columns = np.broadcast_to(3 * graph.tail[:, None, None] + axis, scaled.shape)
    matrix = sp.csr_matrix((scaled.ravel(), (rows.ravel(), columns.ravel())), shape=(3 * n_maps, 3 * n_maps))
    start = np.random.default_rng(0).normal(size=(3 * n_maps, 3))
    blocks = leading_vectors(matrix, start, np.repeat(part, 3)).reshape(n_maps, 3, 3)
    # The vectors give R_k^T up to one orthogonal matrix for each part: its sign is that of most blocks.
    sign = np.bincount(part, np.linalg.det(blocks / degree[:, None, None]) * graph.sums(weight))
    blocks = np.where((sign < 0)[part][:, None, None], blocks * np.array([-1.0, 1.0, 1.0]), blocks)
    return nearest_rotation(blocks.transpose(0, 2, 1))


def _residual_degrees(graph: PairGraph, rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    residual = np.empty(len(graph.head))
    for start in range(0, len(residual), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        predicted = np.swapaxes(rotations[graph.head[rows]], 1, 2) @ rotations[graph.tail[rows]]
        residual[rows] = rotation_angle_degrees(predicted, graph.rotation[rows])
    return residual


def _polish_rotations(
    graph: PairGraph, rotations: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Reweigh and average: each map's rotation becomes the robust mean of what it and its neighbours say."""
    scale = 8.0
    for step in range(POLISH_ROUNDS):
        trust = weight / (1.0 + (_residual_degrees(graph, rotations) / scale) ** 2) ** 2
        scale = max(1.5, scale * 0.9)
        # R_i = R_j rotation[i, j]^T; a map's own word keeps two that only have each other from changing places.
        said = rotations[graph.tail] @ np.swapaxes(graph.rotation, 1, 2)
        votes = graph.sums(trust[:, None, None] * said) + 0.2 * graph.sums(trust)[:, None, None] * rotations
        heard = graph.sums(trust) > 0
        settled = np.where(heard[:, None, None], nearest_rotation(np.where(heard[:, None, None], votes, np.eye(3))), rotations)
        moved = float(rotation_angle_degrees(settled, rotations).max())
        rotations = settled
        if step in RESEAT_AT:
            rotations = _reseat(graph, rotations, weight)
        elif moved < 1e-6 and step > max(RESEAT_AT):
            break
    return rotations


def _reseat(graph: PairGraph, rotations: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn whole clusters, of maps whose pairs agree, to where most of their pairs with others say.

    A mean of votes that contradict each other lies between them, and reweighing may leave it there; and a cluster that
    its own pairs hold together does not follow, map by map, the few that join it to the rest.
    """
    agree = (weight > 0) & (_residual_degrees(graph, rotations) < AGREEING_DEGREES)
    # A map that most of its pairs contradict is on its own, though it agree with one of them.
    doubtful = graph.sums(weight * agree) < MOST * graph.sums(weight)
    agree &= ~(doubtful[graph.head] | doubtful[graph.tail])
    cluster = connected_parts(graph, np.where(agree, weight, 0.0))
    outward = np.flatnonzero((weight > 0) & (cluster[graph.head] != cluster[graph.tail]))
    if not len(outward):
        return rotations
    size = np.bincount(cluster)
    # The surest first within each cluster.
    outward = outward[np.lexsort((graph.tail[outward], -weight[outward], cluster[graph.head[outward]]))]
    clusters, start = np.unique(cluster[graph.head[outward]], return_index=True)
    stop = np.append(start[1:], len(outward))
    seated = rotations.copy()
    for number in np.argsort(size[clusters], kind="stable"):
        rows = outward[start[number] : stop[number]]
        said = seated[graph.tail[rows]] @ np.swapaxes(graph.rotation[rows], 1, 2)
        turns = said @ np.swapaxes(seated[graph.head[rows]], 1, 2)
        candidates = np.concatenate([np.eye(3)[None], turns[:THIRD_MAPS]])
        apart = rotation_angle_degrees(candidates[:, None], turns[None])
        support = (weight[rows] / (1.0 + (apart / 5.0) ** 2) ** 2).sum(axis=1)
        best = int(np.argmax(support))
        if best and support[best] > 1.01 * support[0]:
            members = cluster == clusters[number]
            seated[members] = candidates[best] @ seated[members]
    return seated


def _shifts(
    graph: PairGraph,
    rotations: NDArray[np.float64],
    sign: NDArray[np.float64],
    weight: NDArray[np.float64],
    roots: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Shifts t_k with t_j - t_i = s_i R_i t_ij in the least squares sense; 0 at the roots."""
    difference = sign[graph.head, None] * np.einsum("kab,kb->ka", rotations[graph.head], graph.shift)
    free = np.setdiff1d(np.arange(graph.n_maps), roots)
    result = np.zeros((graph.n_maps, 3))
    if not free.size:
        return result
    trust = weight.copy()
    for _ in range(SHIFT_ROUNDS):
        # Half of each weight from either direction, so that the system is symmetric to the last bit.
        trust = 0.5 * (trust + np.roll(trust, len(trust) // 2))
        degree = graph.sums(trust) + 1e-12 * max(float(trust.max()), 1e-300)
        laplacian = (sp.diags(degree) - pair_matrix(graph, trust)).tocsr()[free][:, free]
        right = -graph.sums(trust[:, None] * difference)[free]
        inverse = sp.diags(1.0 / laplacian.diagonal())
        for axis in range(3):
            solved, _ = cg(laplacian, right[:, axis], x0=result[free, axis], rtol=1e-10, M=inverse, maxiter=10 * len(free))
            result[free, axis] = solved
        residual = np.linalg.norm(result[graph.tail] - result[graph.head] - difference, axis=1)
        used = residual[weight > 0]
        scale = max(FINEST_SHIFT_ANGSTROM, 3.0 * (float(np.median(used)) if used.size else 0.0))
        trust = weight / (1.0 + (residual / scale) ** 2)
    return result


def _cycle_residual_degrees(graph: PairGraph, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """See `cycle_residual_degrees`.

    Only the surest neighbours of the two maps are asked, so that the work grows with the number of pairs.
    """
    n_maps, n_rows = graph.n_maps, len(graph.head)
    order = np.lexsort((graph.tail, -weight, graph.head))
    count = np.bincount(graph.head, minlength=n_maps)
    start = np.concatenate([[0], np.cumsum(count)])
    sorted_row = np.lexsort((graph.tail, graph.head))
    keys = graph.head[sorted_row] * n_maps + graph.tail[sorted_row]
    result = np.full(n_rows, np.nan)
    half = n_rows // 2
    block = max(1, ROWS_AT_A_TIME // 4)
    for first in range(0, half, block):
        rows = np.arange(first, min(first + block, half))
        i, j = graph.head[rows], graph.tail[rows]
        place = np.arange(THIRD_MAPS)
        through_i: list[NDArray[np.int64]] = []
        through_j: list[NDArray[np.int64]] = []
        good: list[NDArray[np.bool_]] = []
        for one, other, mine, theirs in ((i, j, through_i, through_j), (j, i, through_j, through_i)):
            there = place[None] < count[one][:, None]
            leg = order[np.minimum(start[one][:, None] + place[None], n_rows - 1)]
            third = graph.tail[leg]
            wanted = other[:, None] * n_maps + third
            found = np.minimum(np.searchsorted(keys, wanted), n_rows - 1)
            there &= (keys[found] == wanted) & (third != other[:, None])
            mine.append(leg)
            theirs.append(sorted_row[found])
            good.append(there)
        # Legs from i to k and from j to k.
        leg_i, leg_j, ok = (np.concatenate(part, axis=1) for part in (through_i, through_j, good))
        around = graph.rotation[leg_i] @ np.swapaxes(graph.rotation[leg_j], -1, -2)
        angle = rotation_angle_degrees(around, graph.rotation[rows][:, None])
        angle = np.where(graph.mirrored[leg_i] ^ graph.mirrored[leg_j] ^ graph.mirrored[rows][:, None], 180.0, angle)
        through = np.where(ok, np.minimum(weight[leg_i], weight[leg_j]), 0.0)
        by_angle = np.argsort(angle, axis=1, kind="stable")
        angle, through = (np.take_along_axis(values, by_angle, axis=1) for values in (angle, through))
        summed = np.cumsum(through, axis=1)
        middle = np.argmax(summed >= 0.5 * summed[:, -1:], axis=1)
        said = np.where(summed[:, -1] > 0, angle[np.arange(len(rows)), middle], np.nan)
        result[rows] = result[rows + half] = said
    return result
