"""Hands of the maps of a list of pairs: `science.hands` for thousands of maps."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from regroup_dask.science.hands import AgreedHands
from regroup_dask.science.pair_graph import both_directions, connected_parts, first_of_each_part, leading_vectors, pair_matrix


def agree_on_listed_hands(
    pairs: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    sizes: NDArray[np.integer],
) -> AgreedHands:
    """Find the maps of the other hand, as `hands.agree_on_hands`, from a list of pairs.

    Parameters
    ----------
    pairs : int64[P, 2]
        Maps of each pair.
    mirrored : bool[P]
        They were found to be of different hands.
    weight : float64[P]
        Trust in that; 0 where a pair cannot tell.
    sizes : int[N]
        How much each map counts.

    Returns
    -------
    AgreedHands
    """
    n_maps = len(sizes)
    rows = np.flatnonzero(weight > 0)
    nothing = np.zeros((len(rows), 3))
    graph = both_directions(pairs[rows], np.zeros((len(rows), 3, 3)), nothing, mirrored[rows], n_maps)
    voice = np.concatenate([weight[rows], weight[rows]])
    part = connected_parts(graph, voice)
    side = np.ones(n_maps)
    if graph.mirrored.any():
        signs = pair_matrix(graph, np.where(graph.mirrored, -1.0, 1.0) * voice)
        scale = sp.diags(1.0 / np.sqrt(np.maximum(graph.sums(voice), 1e-300)))
        start = np.random.default_rng(0).normal(size=(n_maps, 1))
        side = np.where(leading_vectors(scale @ signs @ scale, start, part)[:, 0] < 0, -1.0, 1.0)
        for _ in range(n_maps):  # settle maps that the eigenvector leaves near zero by majority
            vote = signs @ side
            against = np.where((vote != 0) & (np.sign(vote) != side), np.abs(vote), 0.0)
            worst = int(np.argmax(against))
            if against[worst] == 0:
                break
            side[worst] = -side[worst]
    lead = np.bincount(part, side * np.asarray(sizes, np.float64))
    lead = np.where(lead == 0, side[first_of_each_part(part, sizes)], lead)
    return AgreedHands(side * lead[part] < 0, part)
