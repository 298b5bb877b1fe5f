"""Superclasses from pairwise similarities: spectral clustering, stability, and the number of superclasses."""

import logging
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.block_model import Edges, agglomeration, make_edges
from regroup_dask.science.clustering import canonical_labels, cluster
from regroup_dask.science.local_covariance import LocalCovariance, select_local
from regroup_dask.science.local_model import LocalModel
from regroup_dask.science.local_search import describes_maps, evidence_of_numbers, fewest_groups
from regroup_dask.science.model_selection import Stability, choose_number, resample, stability
from regroup_dask.science.place_stability import draw_windows, resampled_placements, stability_of_numbers
from regroup_dask.science.reliability import select_maps
from regroup_dask.science.shell_model import ShellComparison

logger = logging.getLogger(__name__)

_LEAST_INFORMATION = 3.0
_RESEMBLES_NOTHING = 0.5
_RESEMBLES_LITTLE = 0.25


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
        Log ratio of the least distance between superclasses to the largest within, per candidate (see
        `model_selection.separation`).
    junk : bool[N]
        Maps that resemble nothing, or have no signal.
    reason : tuple of str
        Why a map is junk; empty for the others.
    evidence_curve : float64[M]
        Log evidence of the best partition into each candidate number by linkage, less that of the best number; NaN
        where the maps were not compared place by place.
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
    evidence_curve: NDArray[np.float64] = np.zeros(0)


def group_classes(
    similarity: NDArray[np.float64],
    n_superclasses: int | Literal["auto"],
    *,
    distance: NDArray[np.float64] | None = None,
    distance_sigma: NDArray[np.float64] | None = None,
    shared_sigma: NDArray[np.float64] | None = None,
    information: NDArray[np.float64] | None = None,
    shells: ShellComparison | None = None,
    local: LocalCovariance | None = None,
    correlation: NDArray[np.float64] | None = None,
    confidence: NDArray[np.float64] | None = None,
    n_resamplings: int = 50,
    seed: int = 0,
) -> Grouping:
    """Group classes into superclasses.

    Maps without signal take no part in finding the superclasses; they are put with what they resemble most, and
    flagged. A map that resembles no other is flagged too. If the others alone show as many structures as superclasses
    are asked for, it takes none of them; else it may be the only one of its structure, and takes part.

    Parameters
    ----------
    similarity : float[N, N]
        Affinity in 0..1 (or plain correlations); NaN counts as unlike.
    n_superclasses : int or "auto"
        1 .. N, or choose.
    distance, distance_sigma : float[N, N], optional
        Unbiased distance and its sigma (`similarity.Similarity`). Without them only ``similarity`` is used,
        by spectral clustering, as the original job does.
    shared_sigma : float[N], optional
        The part of the sigma that all distances of a class have in common.
    information : float[N], optional
        Coefficients' worth of signal per map, to tell maps of pure noise.
    shells : ShellComparison, optional
        Shell correlations, from which the likeliest grouping is found best.
    local : LocalCovariance, optional
        What the maps have in common place by place, which sees small differences that drown over the whole box.
    correlation : float[N, N], optional
        Plain correlations, heard where all maps are about equally noisy.
    confidence : float[N, N], optional
        How far the pose of each pair stands out, in standard deviations of chance: what fits onto no other map is junk.
    n_resamplings : int
        How often windows are drawn anew, or noise within the uncertainty is added where maps were not compared place
        by place, to see how stable the grouping is.
    seed : int

    Returns
    -------
    Grouping

    References
    ----------
    Ng, A., Jordan, M. and Weiss, Y. (2002). NIPS 14, 849-856. von Luxburg, U. (2007). Stat. Comput. 17,
    395-416. Zelnik-Manor, L. and Perona, P. (2004). NIPS 17, 1601-1608. Hennig, C. (2007). Comput. Stat. Data
    Anal. 52, 258-271.
    """
    n = len(similarity)
    if n_superclasses != "auto" and not 1 <= n_superclasses <= max(n, 1):
        raise ValueError(f"{n_superclasses} superclasses asked for, but it must be 1 to {n}")
    reason = junk_reasons(distance, distance_sigma, information, confidence, n)
    junk = np.array([bool(text) for text in reason], bool)
    least = 1 if n_superclasses == "auto" else int(n_superclasses)
    noise = is_noise(information, n)
    left_out = noise
    if n_superclasses != "auto" and (junk & ~noise).any() and (~junk).sum() > least and distance is not None:
        kept = np.flatnonzero(~junk)
        if _number_shown(similarity, distance, distance_sigma, shared_sigma, local, kept) >= least:
            left_out = junk
    used = np.flatnonzero(~left_out) if (~left_out).sum() >= max(least, 1) else np.arange(n)
    if n <= 1:
        one = np.ones(1)
        return Grouping(
            np.zeros(n, np.int64), 1, np.ones(n), one, np.ones(1, np.int64), one, one, one, junk, reason
        )

    edges = None
    if distance is not None and distance_sigma is not None:
        edges = make_edges(distance, distance_sigma, shared_sigma)
    part = np.ix_(used, used)
    part_edges = edges
    if edges is not None:
        part_edges = Edges(edges.distance[part], edges.variance[part], edges.shared_variance[used])
    scored = part_edges if part_edges is not None else _edges_of_similarity(similarity[part])
    merges = agglomeration(scored)
    # Agglomeration grows with the cube of N: at most some ten seconds of it.
    count = int(n_resamplings * min(1.0, (50 / max(len(used), 1)) ** 2))
    resampled = resample(scored, count, seed) if len(used) > 1 else []
    largest = max(1, min(len(used) - 1, 20))
    chosen, candidates, stable, gap = choose_number(merges, resampled, largest)
    part_local = None if local is None else select_local(local, used)
    if part_local is not None and len(used) > 2 and not describes_maps(part_local):
        logger.info("maps differ place by place by what neither noise nor poses explain: not grouped by that")
        part_local = None
    evidence = np.full(len(candidates), np.nan)
    if part_local is not None and len(used) > 2:
        evidence = evidence_of_numbers(part_local, largest)
        chosen = fewest_groups(evidence)
        draws = draw_windows(part_local.product.shape[1], count, seed)
        if count:
            stable = stability_of_numbers(LocalModel(part_local), largest, draws)
    k = chosen if n_superclasses == "auto" else int(n_superclasses)

    part_shells = None
    if shells is not None:
        part_shells = ShellComparison(
            shells.fsc[part], select_maps(shells.reliability, used), shells.coefficients
        )
    part_correlation = None if correlation is None else correlation[part]
    found = cluster(
        similarity[part],
        k,
        edges=part_edges,
        shells=part_shells,
        local=part_local,
        correlation=part_correlation,
        seed=seed,
    )
    others = [other.labels[k - 1] for other in resampled]
    if part_local is not None and count and len(used) > 2:
        fitted = LocalModel(part_local)
        fitted.improve(found, 4)
        others = resampled_placements(fitted, found, draws)
    labels, class_stability, superclass_stability = with_those_left_out(
        found, stability(found, others), used, similarity[np.setdiff1d(np.arange(n), used)]
    )
    return Grouping(
        labels=labels,
        n_superclasses=k,
        class_stability=class_stability,
        superclass_stability=superclass_stability,
        candidate_superclasses=candidates.astype(np.int64),
        stability_curve=stable,
        eigengap_curve=_eigengaps(similarity[part], candidates),
        separation_curve=gap,
        junk=junk,
        reason=reason,
        evidence_curve=evidence,
    )


def with_those_left_out(
    found: NDArray[np.int64], sure: Stability, used: NDArray[np.int64], similarity: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Put maps that took no part with what they resemble most; what is sure of them is nothing.

    Parameters
    ----------
    found : int64[M]
        Superclasses of the maps that took part.
    sure : Stability
        Of these.
    used : int64[M]
        Which they are.
    similarity : float[N - M, N]
        Of those that took none, to all maps; NaN counts as unlike.

    Returns
    -------
    int64[N], float64[N], float64[K]
        Superclasses, numbered by first appearance, and the stability of maps and of superclasses.
    """
    n = len(used) + len(similarity)
    labels, class_stability = np.zeros(n, np.int64), np.zeros(n)
    labels[used], class_stability[used] = found, sure.class_stability
    for i, row in zip(np.setdiff1d(np.arange(n), used), similarity, strict=True):
        labels[i] = found[int(np.nan_to_num(row[used], nan=-np.inf).argmax())]
    order = canonical_labels(labels)
    superclass_stability = np.zeros(len(sure.superclass_stability))
    superclass_stability[order] = sure.superclass_stability[labels]
    return order, class_stability, superclass_stability


def is_noise(information: NDArray[np.float64] | None, n: int) -> NDArray[np.bool_]:
    """Which maps have no signal, bool[N]."""
    return np.zeros(n, bool) if information is None else np.asarray(information) < _LEAST_INFORMATION


def junk_reasons(
    distance: NDArray[np.float64] | None,
    sigma: NDArray[np.float64] | None,
    information: NDArray[np.float64] | None,
    confidence: NDArray[np.float64] | None,
    n: int,
) -> tuple[str, ...]:
    """Why a map is junk, or nothing.

    A structure that stands alone may be unlike all others and yet fits onto what it shares with them: a subunit, a part
    of the complex. So a map of little resemblance is junk only if its pose on no other map stands out as theirs do.
    """
    reason = [""] * n
    fits_nowhere = _fits_nowhere(confidence, n)
    for empty in np.flatnonzero(is_noise(information, n)):
        reason[empty] = "noise: no shell has signal above the map's own noise"
    if distance is not None and sigma is not None and n > 2:
        surely_apart = np.where(np.isfinite(distance), distance - 2 * sigma, np.nan)
        np.fill_diagonal(surely_apart, np.nan)
        for i in range(n):
            row = surely_apart[i][np.isfinite(surely_apart[i])]
            if not reason[i] and len(row) and row.min() > _RESEMBLES_NOTHING:
                reason[i] = f"resembles no other map: none correlates above {1 - row.min():.2f} without noise"
            elif not reason[i] and len(row) and row.min() > _RESEMBLES_LITTLE and fits_nowhere[i]:
                reason[i] = (
                    f"resembles no other map: none correlates above {1 - row.min():.2f} without noise, and its pose "
                    "stands out on none"
                )
    return tuple(reason)


def _fits_nowhere(confidence: NDArray[np.float64] | None, n: int) -> NDArray[np.bool_]:
    """Whether the surest pose of a map stands out less than half as far as that of most maps, bool[N]."""
    if confidence is None or n < 4:
        return np.zeros(n, bool)
    surest = np.where(np.isfinite(confidence) & ~np.eye(n, dtype=bool), confidence, 0.0).max(axis=1)
    return np.asarray(surest < 0.5 * np.median(surest))


def _number_shown(
    similarity: NDArray[np.float64],
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64] | None,
    shared_sigma: NDArray[np.float64] | None,
    local: LocalCovariance | None,
    kept: NDArray[np.int64],
) -> int:
    """How many structures some of the maps show."""
    part = np.ix_(kept, kept)
    return group_classes(
        similarity[part],
        "auto",
        distance=distance[part],
        distance_sigma=None if distance_sigma is None else distance_sigma[part],
        shared_sigma=None if shared_sigma is None else shared_sigma[kept],
        local=None if local is None else select_local(local, kept),
        n_resamplings=0,
    ).n_superclasses


def _edges_of_similarity(similarity: NDArray[np.float64]) -> Edges:
    distance = 1 - np.asarray(similarity, np.float64)
    return make_edges(distance, np.full_like(distance, 0.01), None)


def _eigengaps(similarity: NDArray[np.float64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gap after the K-th eigenvalue of the normalised affinity (von Luxburg 2007), with self-tuned scales.

    The scale of a class is its distance to its third neighbour (Zelnik-Manor and Perona take the seventh;
    superclasses of three are common here).
    """
    n = len(similarity)
    distance = np.clip(1 - np.nan_to_num(similarity, nan=0.0), 0, None)
    np.fill_diagonal(distance, 0)
    scale = np.sort(distance, axis=1)[:, min(3, n - 1)] + 1e-3
    affinity = np.exp(-(distance**2) / (scale[:, None] * scale[None]))
    degree = np.sqrt(affinity.sum(axis=1))
    values = np.sort(np.linalg.eigvalsh(affinity / degree[:, None] / degree[None]))[::-1]
    values = np.append(values, 0.0)
    return np.asarray(values[candidates - 1] - values[candidates])
