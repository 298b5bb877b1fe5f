"""Superclasses from pairwise similarities: spectral clustering, stability, and the number of superclasses."""

import logging
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.clustering import cluster

logger = logging.getLogger(__name__)


class Grouping(NamedTuple):
    """Superclasses of N classes.

    Attributes
    ----------
    labels : int64[N]
        0 .. K - 1, numbered by the lowest class index in each.
    n_superclasses : int
    class_stability : float64[N]
        Probability that the class has this superclass: the share of resamplings in which it did.
    superclass_stability : float64[K]
        Mean Jaccard overlap of the superclass with its best match in the resamplings (Hennig 2007).
    candidate_superclasses : int64[M]
        Numbers of superclasses that were tried (one unless ``auto``).
    stability_curve : float64[M]
        Mean adjusted Rand index of resamplings against the undisturbed grouping, per candidate.
    eigengap_curve : float64[M]
        Gap after the K-th eigenvalue of the normalised affinity, per candidate.
    separation_curve : float64[M]
        Distance of the two closest superclasses in units of its sigma, per candidate (NaN for K = 1).
    junk : bool[N]
        Maps that resemble nothing, or have no signal.
    reason : tuple of str
        Why a map is junk; empty for the others.
    """

    labels: NDArray[np.int64]
    n_superclasses: int
    class_stability: NDArray[np.float64]
    superclass_stability: NDArray[np.float64]
    candidate_superclasses: NDArray[np.int64]
    stability_curve: NDArray[np.float64]
    eigengap_curve: NDArray[np.float64]
    separation_curve: NDArray[np.float64]
    junk: NDArray[np.bool_]
    reason: tuple[str, ...]


def group_classes(
    similarity: NDArray[np.float64],
    n_superclasses: int | Literal["auto"],
    *,
    distance: NDArray[np.float64] | None = None,
    distance_sigma: NDArray[np.float64] | None = None,
    shared_sigma: NDArray[np.float64] | None = None,
    information: NDArray[np.float64] | None = None,
    n_resamplings: int = 50,
    seed: int = 0,
) -> Grouping:
    """Group classes into superclasses.

    Parameters
    ----------
    similarity : float[N, N]
        Affinity in 0..1 (or plain correlations); NaN counts as unlike.
    n_superclasses : int or "auto"
        1 .. N, or choose.
    distance, distance_sigma : float[N, N], optional
        Unbiased distance and its sigma (`similarity.Similarity`). Without them only ``similarity`` is used,
        as the original job does.
    information : float[N], optional
        Coefficients' worth of signal per map, to tell maps of pure noise.
    n_resamplings : int
        How often noise within ``distance_sigma`` is added to see how stable the grouping is.
    seed : int

    Returns
    -------
    Grouping
    """
    n = len(similarity)
    if n_superclasses == "auto":
        n_superclasses = _largest_eigengap(similarity)
    labels = cluster(
        similarity, int(n_superclasses), distance=distance, distance_sigma=distance_sigma, shared_sigma=shared_sigma, seed=seed
    )
    k = int(n_superclasses)
    return Grouping(
        labels,
        k,
        np.ones(n),
        np.ones(k),
        np.array([k]),
        np.ones(1),
        np.full(1, np.nan),
        np.full(1, np.nan),
        np.zeros(n, bool),
        ("",) * n,
    )


def _largest_eigengap(similarity: NDArray[np.float64]) -> int:
    affinity = np.clip(np.nan_to_num(similarity, nan=0.0), 0, None)
    degree = np.sqrt(np.maximum(affinity.sum(axis=1), 1e-12))
    values = np.sort(np.linalg.eigvalsh(affinity / degree[:, None] / degree[None, :]))[::-1]
    return int(np.argmax(values[:-1] - values[1:])) + 1 if len(values) > 1 else 1
