"""Grouping thousands of maps of which only the nearest were compared: partitions of the graph of known pairs.

Partitions by linkage, by uniting groups of a finer one, and by the spectral cut of the graph are improved by the block model
of distances, whose tails are long, and the likeliest is taken (`_likeliest`). Linkage alone gives single odd maps groups of their
own; a spectral cut alone follows the nearest neighbours of each map, and these are noise among maps of nearly one structure.
Where only correlations are known, the cut decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.block_model import Edges, make_edges
from regroup_dask.science.clustering import canonical_labels
from regroup_dask.science.graph_cut import best_cut, leading_spectrum, sparse_affinity
from regroup_dask.science.graph_number import shortest_description
from regroup_dask.science.grouping import Grouping, is_noise, junk_reasons, with_those_left_out
from regroup_dask.science.model_selection import choose_number, stability
from regroup_dask.science.nearest_group import join_nearest
from regroup_dask.science.sparse_blocks import NO_TAIL, GraphEdges, fit_graph_blocks, graph_edges, unite_graph_blocks
from regroup_dask.science.sparse_linkage import link_graph

MOST_CANDIDATES = 60
# Numbers of superclasses that the curves tell of, at least.
LEAST_CANDIDATES = 24
# Distances of more maps than this are drawn anew less often, but so often at least: each draw of 2000 takes a second or two.
DRAWN_OFTEN_UP_TO = 150
LEAST_DRAWS = 10
# So many times as many groups are linked first, and then united by their likelihood.
FINER = 2
# Standard deviations of a distance that are added to it before maps are linked.
CAUTIONS = (0.0, 0.5, 1.0)


def group_sparse(
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64],
    n_superclasses: int | str,
    *,
    shared_sigma: NDArray[np.float64] | None = None,
    information: NDArray[np.float64] | None = None,
    confidence: NDArray[np.float64] | None = None,
    contrast: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None,
    structural: bool = True,
    n_resamplings: int = 50,
    seed: int = 0,
) -> Grouping:
    """Group maps by the distances that are known.

    Maps without signal, and those that resemble no other, are flagged and take part as `grouping.group_classes` says.

    Parameters
    ----------
    distance, distance_sigma : numpy.ndarray
        float (N, N), symmetric, NaN where not compared.
    n_superclasses : int or "auto"
        With ``"auto"`` as many as describe the contrasts in the fewest words (`graph_number.shortest_description`); without
        contrasts as many as differ significantly (`model_selection.choose_number`).
    shared_sigma, information, confidence
        As for `grouping.group_classes`.
    contrast : float[N, N], float[N, N] and float[N], optional
        `shell_contrast.ShellContrast`, as tables: maps are put into groups, and groups are counted, by these instead
        of by distances.
    structural : bool
        Distances are between structures, zero on average within one; else the graph is cut by spectral clustering alone.
    n_resamplings : int
        How often distances are drawn anew within their uncertainty; of more than `DRAWN_OFTEN_UP_TO` maps less often.
    seed : int

    Returns
    -------
    Grouping
    """
    n_maps = len(distance)
    least = 1 if n_superclasses == "auto" else int(n_superclasses)
    reason = ("",) * n_maps
    if structural:
        reason = junk_reasons(distance, distance_sigma, information, confidence, n_maps)
    junk = np.array([bool(text) for text in reason], bool)
    most = min(n_maps - 1, MOST_CANDIDATES if n_superclasses == "auto" else max(least + 2, LEAST_CANDIDATES))
    noise = is_noise(information, n_maps) if structural else np.zeros(n_maps, bool)
    left_out = noise
    if n_superclasses != "auto" and (junk & ~noise).any() and (~junk).sum() > least:
        others = _edges(distance, distance_sigma, shared_sigma, np.flatnonzero(~junk))
        if choose_number(link_graph(others, most + 1), [], min(most, (~junk).sum() - 1))[0] >= least:
            left_out = junk
    used = np.flatnonzero(~left_out) if (~left_out).sum() > least else np.arange(n_maps)
    most = max(1, min(most, len(used) - 1))
    edges = _edges(distance, distance_sigma, shared_sigma, used)
    merges = link_graph(edges, most + 1)
    count = max(int(n_resamplings * min(1.0, DRAWN_OFTEN_UP_TO / n_maps)), min(n_resamplings, LEAST_DRAWS))
    # Drawn twice rather than kept: tables of thousands of maps are large.
    resampled = [link_graph(_drawn_anew(edges, number, seed), most + 1) for number in range(count)]
    chosen, candidates, stable, gap = choose_number(merges, resampled, most)
    told = [edges] if contrast is None else [_edges(*contrast, used), edges]
    starts: list[NDArray[np.int64]] = []
    if n_superclasses == "auto" and structural and contrast is not None:
        linked = [link_graph(kind, most).labels for kind in told]
        chosen, described = shortest_description(graph_edges(told[0]), linked, min(FINER * chosen, most))
        starts = [described]
    n_groups = chosen if n_superclasses == "auto" else least
    square = np.ix_(used, used)
    affinity = sparse_affinity(distance[square], distance_sigma[square])
    degree = np.asarray(affinity.sum(axis=1)).ravel()
    values, vectors = leading_spectrum(affinity, degree, min(most + 1, len(used)))
    again = [other.labels[n_groups - 1] for other in resampled]
    cut = canonical_labels(best_cut(affinity, degree, vectors[:, :n_groups]))
    if structural:
        found = _likeliest(told, n_groups, [cut, *starts])
        again = [_likeliest_again(_drawn_anew(told[0], number, seed), n_groups, found) for number in range(count)]
    else:
        found = cut
    labels, class_stability, superclass_stability = with_those_left_out(
        found, stability(found, again), used, -distance[np.setdiff1d(np.arange(n_maps), used)]
    )
    gaps = values[:-1] - values[1:]
    return Grouping(
        labels=labels,
        n_superclasses=n_groups,
        class_stability=class_stability,
        superclass_stability=superclass_stability,
        candidate_superclasses=candidates.astype(np.int64),
        stability_curve=stable,
        eigengap_curve=np.append(gaps, np.full(len(candidates), np.nan))[: len(candidates)],
        separation_curve=gap,
        junk=junk,
        reason=reason,
    )


def _edges(
    distance: NDArray[np.float64],
    distance_sigma: NDArray[np.float64],
    shared_sigma: NDArray[np.float64] | None,
    used: NDArray[np.int64],
) -> Edges:
    square = np.ix_(used, used)
    shared = None if shared_sigma is None else np.asarray(shared_sigma, np.float64)[used]
    return make_edges(np.asarray(distance[square], np.float64), np.asarray(distance_sigma[square], np.float64), shared)


def _drawn_anew(edges: Edges, number: int, seed: int) -> Edges:
    """Known distances with noise of their own variance, and with what shifts all of a map, as `model_selection.resample`."""
    rng = np.random.default_rng([seed, number])
    first, second = np.nonzero(np.triu(np.isfinite(edges.variance), 1))
    shared = rng.normal(size=len(edges.distance)) * np.sqrt(edges.shared_variance)
    sd = np.sqrt(edges.variance[first, second])
    distance = edges.distance.copy()
    moved = distance[first, second] + rng.normal(size=len(sd)) * sd + shared[first] + shared[second]
    distance[first, second] = distance[second, first] = moved
    return edges._replace(distance=distance)


def _likeliest(
    told: Sequence[Edges], n_groups: int, others: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The likeliest partition by the first kind of pairs, of those that all kinds lead to, and of some others.

    Each kind is linked, with less and with more caution, and finer groups are united; by a normal likelihood too, in
    which a map cannot be far from all of its group, so that no group takes in what does not belong to it.
    """
    starts = list(others)
    for edges in told:
        graph = graph_edges(edges)
        finer = []
        for caution in CAUTIONS:
            linked = link_graph(edges, FINER * n_groups, caution=caution).labels
            starts.append(linked[n_groups - 1])
            finer.append(linked[-1])
        for partition in _different(finer):
            starts.append(unite_graph_blocks(graph, partition, n_groups, tail=NO_TAIL)[0])
            if edges is told[0]:
                starts.append(unite_graph_blocks(graph, partition, n_groups)[0])
    graph = graph_edges(told[0])
    fitted = [fit_graph_blocks(graph, start, n_groups) for start in _different(starts)]
    best, _ = min(fitted, key=lambda one: one[1] + _cost_of_meetings(graph, one[0], n_groups))
    return canonical_labels(join_nearest(graph, best, n_groups))


def _likeliest_again(edges: Edges, n_groups: int, found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The likelier of what linkage and an earlier partition lead to: to unite finer groups too takes ten times as long."""
    graph = graph_edges(edges)
    linked = link_graph(edges, n_groups, caution=0.5).labels[n_groups - 1]
    fitted = [fit_graph_blocks(graph, start, n_groups) for start in _different([found, linked])]
    return canonical_labels(join_nearest(graph, min(fitted, key=lambda one: one[1])[0], n_groups))


def _cost_of_meetings(graph: GraphEdges, labels: NDArray[np.int64], n_groups: int) -> float:
    """Minus twice the log likelihood of which maps were compared, in a block model with degrees (Karrer and Newman, 2011).

    Two structures of which hardly a pair was compared cost little if they pass for one; that so few were compared tells
    them apart.
    Where all pairs were, it is the same for all partitions.
    """
    rows = np.repeat(labels, np.diff(graph.start))
    met = np.bincount(rows * n_groups + labels[graph.other], minlength=n_groups**2).reshape(n_groups, n_groups)
    degree = met.sum(axis=1).astype(np.float64)
    expected = degree[:, None] * degree[None]
    told = met > 0
    return -float((met[told] * np.log(met[told] / expected[told])).sum())


def _different(partitions: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The partitions that are not the same as one before, numbered by first appearance."""
    return list({labels.tobytes(): labels for labels in map(canonical_labels, partitions)}.values())
