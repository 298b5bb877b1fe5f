"""Search for the partition of greatest evidence under the local model, from several starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.local_covariance import LocalCovariance
from regroup_dask.science.local_model import EXPECTED_MISFIT, LocalModel

STRONG_EVIDENCE, VERY_STRONG_EVIDENCE = 3.0, 5.0
# Proposals of greatest evidence that are followed.
FOLLOWED = 3
UNEXPLAINED_MISFIT, MOST_UNEXPLAINED = 10 * EXPECTED_MISFIT, 0.25


def renumbered(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Renumber labels by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], np.int64)


def evidence_linkage(evidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Average linkage of the evidence that two maps are one structure: row K - 1 has K groups, int64[N, N]."""
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    n_maps = len(evidence)
    distance = evidence.max() - evidence
    np.fill_diagonal(distance, 0)
    cuts = cut_tree(linkage(squareform(distance, checks=False), "average"))
    return np.array([renumbered(cuts[:, n_maps - k]) for k in range(1, n_maps + 1)])


def describes_maps(local: LocalCovariance) -> bool:
    """Whether the local model can be believed of these maps.

    Its misfits are errors of poses. Where maps differ by other things that noise does not cover (filters within a band,
    masks, interpolation, of maps with next to no noise), misfits take these up, too large for any pose and different from
    map to map, and the evidence of partitions, in tens of thousands, is about them. This is told with more groups than are
    likely, so that structures that differ are no misfit.
    """
    return float(np.mean(_with_many_groups(local).misfit > UNEXPLAINED_MISFIT)) < MOST_UNEXPLAINED


def _with_many_groups(local: LocalCovariance) -> LocalModel:
    """The model with gains and noise improved with more groups than are likely."""
    model = LocalModel(local)
    first = evidence_linkage(model.pair_evidence().sum(axis=0))
    model.improve(first[min(model.n_maps - 1, max(2, 2 * model.n_maps // 3))], 3)
    return model


def evidence_of_numbers(local: LocalCovariance, largest: int) -> NDArray[np.float64]:
    """Log evidence of 1 .. ``largest`` groups, less the greatest, float64[largest].

    The structures are integrated out, so that more groups are not better for being more; what every map may differ by
    for an error of its pose is part of the model, so that a jitter of all maps does not part them. Gains and noise are
    improved with more groups than are likely.
    """
    model = _with_many_groups(local)
    groups = evidence_linkage(model.pair_evidence().sum(axis=0))
    evidence = np.array([model.evidence(groups[k - 1]) for k in range(1, largest + 1)])
    return np.asarray(evidence - evidence.max())


def fewest_groups(evidence: NDArray[np.float64]) -> int:
    """Fewest groups against which no other number has strong evidence (20 to 1; Kass and Raftery, 1995)."""
    return int(np.flatnonzero(evidence >= evidence.max() - STRONG_EVIDENCE)[0]) + 1


def move_maps(model: LocalModel, labels: NDArray[np.int64], sweeps: int = 5) -> NDArray[np.int64]:
    """Move one map at a time to the superclass of greatest evidence, until nothing moves; no superclass empties."""
    labels = labels.copy()
    arrangement = model.arrange(labels)
    since_a_move = 0
    for _ in range(sweeps):
        for index in range(model.n_maps):
            if since_a_move == model.n_maps:
                return renumbered(labels)  # every map has been asked since the last one moved
            since_a_move += 1
            if (labels == labels[index]).sum() == 1:
                continue
            evidence = model.placements(arrangement, index).sum(axis=0)
            best = int(evidence.argmax())
            if evidence[best] > evidence[labels[index]] + 1e-6:
                labels[index] = best
                arrangement = model.arrange(labels)
                since_a_move = 1
    return renumbered(labels)


def _fitted(
    model: LocalModel, labels: NDArray[np.int64], rounds: int
) -> tuple[float, NDArray[np.int64], LocalModel]:
    """A copy of the model improved with a partition, and the partition moved, in turns."""
    model = model.copy()
    for _ in range(rounds):
        model.improve(labels)
        before, labels = labels, move_maps(model, labels)
        if np.array_equal(before, labels):
            break
    return model.evidence(labels) + model.log_prior(), labels, model


def _begun(model: LocalModel, n_groups: int) -> tuple[LocalModel, NDArray[np.int64], NDArray[np.float64]]:
    """A copy of the model improved with more groups than wanted, so that gains and noise favour no partition.

    Returns
    -------
    LocalModel, int64[N, N], float64[N, N]
        The copy, the linkage before, and the evidence between maps after it was improved.
    """
    model = model.copy()
    first = evidence_linkage(model.pair_evidence().sum(axis=0))
    model.improve(first[min(model.n_maps, 2 * n_groups + 1) - 1], 3)
    return model, first, model.pair_evidence().sum(axis=0)


def next_partition(local: LocalCovariance, labels: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """What one group less, or one more, than a partition has would most likely change in it.

    Two of its groups are united, or one is split, whichever is of greatest evidence; then maps are moved. This starts
    from the partition at hand: a search from nothing may find another.

    Parameters
    ----------
    local : LocalCovariance
    labels : int[N]
        0 .. K - 1.
    n_groups : int
        K - 1 or K + 1.

    Returns
    -------
    int64[N]
    """
    model, _, between = _begun(LocalModel(local), n_groups)
    k = int(labels.max()) + 1
    if n_groups < k:
        found = _unions(labels)
    else:
        found = [renumbered(part) for group in range(k) for part in _splits(between, labels, group)]
    likeliest = sorted(found, key=model.evidence, reverse=True)[:FOLLOWED]
    return max((move_maps(model, part) for part in likeliest), key=model.evidence)


def search_partition(
    model: LocalModel, n_groups: int, starts: list[NDArray[np.int64]], *, attempts: int = 6
) -> tuple[NDArray[np.int64], LocalModel]:
    """Partition into so many groups, and the model improved with it.

    Gains and noise are first improved with more groups than wanted, so that they favour no partition; of the starts
    the two of greatest evidence are followed; then one group is split while two are united, as long as it helps.
    """
    model, first, between = _begun(model, n_groups)
    starts = [*starts, evidence_linkage(between)[n_groups - 1], first[n_groups - 1]]
    moved = {labels.tobytes(): labels for labels in (move_maps(model, renumbered(start)) for start in starts)}
    ranked = sorted(moved.values(), key=model.evidence, reverse=True)[:2]
    evidence, labels, model = max((_fitted(model, start, 2) for start in ranked), key=lambda fit: fit[0])
    tried = set(moved)
    for _ in range(attempts):
        proposals = [part for part in _split_and_unite(model, labels, between) if part.tobytes() not in tried]
        better = None
        fits: dict[bytes, tuple[float, NDArray[np.int64], LocalModel]] = {}
        for proposal in sorted(proposals, key=model.evidence, reverse=True)[:FOLLOWED]:
            tried.add(proposal.tobytes())
            part = move_maps(model, proposal)  # several proposals often come to one partition
            fit = fits.get(part.tobytes()) or _fitted(model, part, 1)
            fits[part.tobytes()] = fit
            if fit[0] > evidence + 0.5 and (better is None or fit[0] > better[0]):
                better = fit
        if better is None:
            break
        evidence, labels, model = better
    return labels, model


def _split_and_unite(
    model: LocalModel, labels: NDArray[np.int64], between: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Partitions with two groups united, the three unions of greatest evidence, and one group parted."""
    k = int(labels.max()) + 1
    found = {}
    for united in sorted(_unions(labels), key=model.evidence, reverse=True)[:FOLLOWED]:
        for group in range(k - 1):
            for split in map(renumbered, _splits(between, united, group)):
                found[split.tobytes()] = split
    return list(found.values())


def _unions(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """A partition with two of its groups united, every two of them."""
    k = int(labels.max()) + 1
    return [renumbered(np.where(labels == b, a, labels)) for a in range(k) for b in range(a + 1, k)]


def _splits(between: NDArray[np.float64], labels: NDArray[np.int64], group: int) -> list[NDArray[np.int64]]:
    """A partition with one of its groups parted, in each of some ways; the part has a new label."""
    found = []
    for part in _parts(between, np.flatnonzero(labels == group)):
        split = labels.copy()
        split[part] = labels.max() + 1
        found.append(split)
    return found


def _parts(between: NDArray[np.float64], members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Ways to part a group: by linkage, by the leading direction of the evidence between its maps, its oddest map."""
    if len(members) < 2:
        return []
    if len(members) == 2:
        return [members[:1]]
    inner = between[np.ix_(members, members)]
    np.fill_diagonal(inner, 0)
    centred = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
    leading = np.linalg.eigh(centred)[1][:, -1]
    parts = [
        members[evidence_linkage(inner.copy())[1] == 1],
        members[leading > 0],
        members[[int(inner.sum(axis=0).argmin())]],
    ]
    return [part for part in parts if 0 < len(part) < len(members)]
