"""What a map looks like whichever way it is turned: a short vector that says which maps are worth aligning.

The power of the Fourier amplitudes on a sphere, degree by degree of their spherical harmonics, does not change when
the map is rotated or shifted (Kazhdan, Funkhouser and Rusinkiewicz, 2003, Rotation invariant spherical harmonic
representation of 3D shape descriptors). Dividing by the power of degree 0 cancels gain and transfer function.
"""

from __future__ import annotations

import numpy as np

# Pairs of each map beyond its nearest ones.
FAR_PAIRS = 4
SIDE_BY_SIDE = 12


def rotation_invariants(amplitudes: np.ndarray) -> np.ndarray:
    """Return the power of each even degree above 0 relative to degree 0, shell by shell.

    Parameters
    ----------
    amplitudes : numpy.ndarray
        complex ((L + 1)^2, shells): spherical harmonic coefficients of ``|F|``; degree l, order m at l (l + 1) + m.
        Odd degrees are zero, because ``|F|`` is the same at k and -k.

    Returns
    -------
    numpy.ndarray
        float64 (L // 2, shells), square roots of the powers.
    """
    degree = int(np.sqrt(len(amplitudes))) - 1
    power = np.abs(amplitudes) ** 2
    by_degree = np.array([power[even**2 : (even + 1) ** 2].sum(axis=0) for even in range(2, degree + 1, 2)])
    mean = power[0]
    return np.sqrt(np.divide(by_degree, mean, out=np.zeros_like(by_degree), where=mean > 0))


def invariant_shells(n_shells: int) -> np.ndarray:
    """Radii, in cycles per particle box, of the spheres that the amplitudes were sampled on: every half from 1.5."""
    return 1.5 + 0.5 * np.arange(n_shells)


def _descriptors(invariants: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One vector per map, (N, components), whose Euclidean distances say which maps may be alike."""
    scaled = invariants * np.median(weights, axis=0)
    spread = scaled.std(axis=0)
    # Each component counts by what varies between maps over what noise makes vary everywhere: the square root of
    # the spread keeps the strong components ahead without letting one of them decide alone.
    return np.asarray((scaled / np.sqrt(np.maximum(spread, 1e-12))).reshape(len(invariants), -1))


def order_by_likeness(invariants: np.ndarray, weights: np.ndarray) -> list[int]:
    """All maps, like ones side by side: halved again and again at the median of the direction in which they differ most.

    Parameters are those of `nearest_pairs`.
    """
    flat = _descriptors(invariants, weights)
    ordered: list[int] = []
    waiting = [np.arange(len(flat))]
    while waiting:
        members = waiting.pop()
        if len(members) <= SIDE_BY_SIDE:
            ordered += members.tolist()
            continue
        centred = flat[members] - flat[members].mean(axis=0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        # Sorted by place along it; the members of a half stay in the order of their numbers.
        rank = np.argsort(centred @ direction, kind="stable")
        half = len(members) // 2
        waiting += [np.sort(members[rank[half:]]), np.sort(members[rank[:half]])]
    return ordered


def nearest_pairs(invariants: np.ndarray, weights: np.ndarray, n_nearest: int) -> list[tuple[int, int]]:
    """Choose the pairs worth aligning: each map with the maps whose invariants are nearest.

    Every map also meets a few that lie further, at regular steps through its ranking, so that the graph of pairs
    holds together and unlike maps are seen to be unlike.

    Parameters
    ----------
    invariants : numpy.ndarray
        float (N, degrees, shells), from `rotation_invariants`.
    weights : numpy.ndarray
        float (N, shells), share of signal of each map in each shell; their median over maps weighs the shells.
    n_nearest : int
        Nearest maps of each map, 1 or more.

    Returns
    -------
    list of tuple of int
        Pairs (i, j), i < j, sorted.
    """
    n_maps = len(invariants)
    flat = _descriptors(invariants, weights)
    squared = (flat**2).sum(axis=1)
    pairs: set[tuple[int, int]] = set()
    for i in range(n_maps):
        distance = squared + squared[i] - 2.0 * flat @ flat[i]
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")[: n_maps - 1]
        far = order[n_nearest :: max(1, (n_maps - 1 - n_nearest) // FAR_PAIRS)][:FAR_PAIRS]
        pairs.update((min(i, int(j)), max(i, int(j))) for j in [*order[:n_nearest], *far])
    return sorted(pairs)
