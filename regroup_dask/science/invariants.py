"""What a map looks like whichever way it is turned: a short vector that says which maps are worth aligning.

The power of the Fourier amplitudes on a sphere, degree by degree of their spherical harmonics, does not change when
the map is rotated or shifted (Kazhdan, Funkhouser and Rusinkiewicz, 2003, Rotation invariant spherical harmonic
representation of 3D shape descriptors). Dividing by the power of degree 0 cancels gain and transfer function.
"""

from __future__ import annotations

import numpy as np

# Pairs of each map beyond its nearest ones.
FAR_PAIRS = 4


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
    shell_weight = np.median(weights, axis=0)
    scaled = invariants * shell_weight
    spread = scaled.std(axis=0)
    # Each component counts by what varies between maps over what noise makes vary everywhere: the square root of
    # the spread keeps the strong components ahead without letting one of them decide alone.
    scaled = scaled / np.sqrt(np.maximum(spread, 1e-12))
    flat = scaled.reshape(n_maps, -1)
    squared = (flat**2).sum(axis=1)
    pairs: set[tuple[int, int]] = set()
    for i in range(n_maps):
        distance = squared + squared[i] - 2.0 * flat @ flat[i]
        distance[i] = np.inf
        order = np.argsort(distance, kind="stable")[: n_maps - 1]
        far = order[n_nearest :: max(1, (n_maps - 1 - n_nearest) // FAR_PAIRS)][:FAR_PAIRS]
        pairs.update((min(i, int(j)), max(i, int(j))) for j in [*order[:n_nearest], *far])
    return sorted(pairs)
