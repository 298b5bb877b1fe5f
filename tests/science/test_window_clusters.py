"""Clusters of structures in a window, against all clusterings there are and dense normal densities."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from regroup_dask.science.window_clusters import (
    clusters_after_unions,
    contrast_scores,
    log_prior_of_unions,
    partition_terms,
    placement_evidence,
)

NOISE = np.array([0.05, 0.2, 0.1, 0.4])


def _clusterings(n):
    """All clusterings of n groups, as labels."""
    found = [[0]]
    for _ in range(n - 1):
        found = [[*labels, new] for labels in found for new in range(max(labels) + 2)]
    return [np.array(labels) for labels in found]


def _window(clusters, seed=0, coefficients=40, difference=0.8):
    """One band and window of four groups of one map each, drawn from a clustering: rows, and what the kernel takes."""
    rng = np.random.default_rng(seed)
    rows = np.sqrt(2.0) * rng.normal(size=coefficients)
    own = np.sqrt(2.0 * difference) * rng.normal(size=(4, coefficients))
    rows = rows + own[clusters] + rng.normal(size=(4, coefficients)) * np.sqrt(NOISE)[:, None]
    weight = 1 / NOISE
    product = rows @ rows.T / coefficients
    gram = product * weight[:, None] * weight
    base = np.log(NOISE).sum() + (np.diag(product) * weight).sum()
    return rows, weight[None, None], gram[None, None], np.array([[2.0]]), np.array([[float(coefficients)]]), np.array([[base]])


def _likelihood(rows, labels, size):
    """Log density of rows drawn from a clustering, without the constant of pi."""
    covariance = 2.0 + 2.0 * size * (labels[:, None] == labels) + np.diag(NOISE)
    density = multivariate_normal(np.zeros(4), covariance).logpdf(rows.T).sum()
    return density + 2 * np.log(2 * np.pi) * rows.shape[1]


@pytest.mark.parametrize("n_groups", [1, 2, 5])
def test_every_clustering_of_a_number_of_clusters_is_equally_likely_before(n_groups):
    clusters = np.array([labels.max() + 1 for labels in _clusterings(n_groups)])
    prior = np.exp(log_prior_of_unions(n_groups))
    for count in range(1, n_groups + 1):
        np.testing.assert_allclose(prior[n_groups - count] * (clusters == count).sum(), 1 / n_groups)


@pytest.mark.parametrize("truth", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 2, 3], [0, 0, 1, 2]])
def test_likelihoods_are_the_densities_of_the_clusterings_and_the_likeliest_of_all_is_met(truth):
    rows, weight, gram, shared, coefficients, base = _window(np.array(truth))
    sizes = np.array([[0.1], [0.8]])
    terms, order = partition_terms(weight, gram, shared, sizes, np.array([0.1]), coefficients, base, np.zeros(4))
    together = clusters_after_unions(order, 4)[0]
    met = [np.unique(row, axis=0, return_inverse=True)[1].ravel() for row in together]
    for number, size in enumerate(sizes[:, 0]):
        np.testing.assert_allclose(terms[0, number], [_likelihood(rows, labels, size) for labels in met], rtol=1e-9)
    best = max(_likelihood(rows, labels, 0.8) for labels in _clusterings(4))
    assert terms[0, 1].max() > best - 1e-6


N_MAPS, LABELS = 13, np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 5])
BANDS = {"shared": np.array([2.0, 0.7]), "coefficients": np.array([40.0, 25.0])}
SIZES = np.array([[0.05, 0.1], [0.8, 0.5], [1.5, 1.5]])


def _maps():
    """Thirteen maps of eleven structures, in three clusters, in two bands; the fifth map has nothing of the second."""
    rng = np.random.default_rng(5)
    noise = rng.uniform(0.05, 0.5, (2, N_MAPS))
    have = np.ones((2, N_MAPS), bool)
    have[1, 4] = False
    rows = []
    for band, (shared, count) in enumerate(zip(*BANDS.values(), strict=True)):
        own = np.sqrt(0.8 * shared) * rng.normal(size=(3, int(count)))
        drawn = np.sqrt(shared) * rng.normal(size=int(count)) + own[LABELS % 3]
        rows.append(drawn + rng.normal(size=drawn.shape) * np.sqrt(noise[band])[:, None])
    return rows, noise, have


def _sums(rows, noise, have, labels):
    """What the kernels take of a partition: precision of groups, products of their sums, and of maps with them."""
    member = (labels[:, None] == np.arange(11)) * 1.0
    weight, gram, product, base = [], [], [], []
    for band, count in enumerate(BANDS["coefficients"]):
        precision = have[band] / noise[band]
        square = rows[band] @ rows[band].T / count
        loaded = precision[:, None] * member
        weight.append(precision @ member)
        product.append(square @ loaded)
        gram.append(loaded.T @ square @ loaded)
        base.append((have[band] * (np.log(noise[band]) + np.diag(square) / noise[band])).sum())
    return np.array(weight)[:, None], np.array(gram)[:, None], np.array(product), np.array(base)[:, None]


def _unions(rows, noise, have, labels, guide):
    """Partitions met by uniting, over and over, the two groups whose mean maps differ by least, from normal densities."""
    met, groups = [labels], list(range(11))
    for _ in range(10):
        found = {}
        for at, first in enumerate(groups):
            for second in groups[at + 1 :]:
                score = 0.0
                for band, shared in enumerate(BANDS["shared"]):
                    means, spread = [], 0.0
                    for group in (first, second):
                        precision = np.where(met[-1] == group, have[band] / noise[band], 0)
                        if precision.sum() > 0:
                            means.append(precision @ rows[band] / precision.sum())
                            spread += 1 / precision.sum()
                    if len(means) == 2:
                        apart = means[0] - means[1]
                        other = np.sqrt(spread + 2 * guide * shared)
                        score += (norm(0, np.sqrt(spread)).logpdf(apart) - norm(0, other).logpdf(apart)).sum()
                found.setdefault(score, (first, second))
        kept, gone = found[max(found)]
        groups.remove(gone)
        met.append(np.where(met[-1] == gone, kept, met[-1]))
    return met


def _direct(rows, noise, have, met):
    """Log density of all maps, less the constant of pi, by size and partition, from dense covariances."""
    out = np.zeros((len(SIZES), len(met)))
    for number, size in enumerate(SIZES):
        for step, labels in enumerate(met):
            for band, shared in enumerate(BANDS["shared"]):
                used = have[band]
                alike = (labels[:, None] == labels)[np.ix_(used, used)]
                covariance = shared * (1 + size[band] * alike) + np.diag(noise[band, used])
                density = multivariate_normal(np.zeros(used.sum()), covariance).logpdf(rows[band][used].T).sum()
                out[number, step] += density + 0.5 * np.log(2 * np.pi) * used.sum() * rows[band].shape[1]
    return out


def _options():
    return BANDS["shared"][:, None], SIZES, np.full(2, 0.3), BANDS["coefficients"][:, None]


def test_eleven_groups_one_without_a_band_are_united_and_scored_as_dense_densities_say():
    rows, noise, have = _maps()
    weight, gram, _, base = _sums(rows, noise, have, LABELS)
    terms, order = partition_terms(weight, gram, *_options(), base, np.zeros(11))
    met = _unions(rows, noise, have, LABELS, 0.3)
    together = clusters_after_unions(order, 11)[0][:, LABELS][..., LABELS]
    for row, labels in zip(together, met, strict=True):
        np.testing.assert_array_equal(row, labels[:, None] == labels)
    np.testing.assert_allclose(terms[0], _direct(rows, noise, have, met), rtol=1e-9)


@pytest.mark.parametrize("index", [4, 11, 5])
def test_a_map_in_every_other_group_has_the_evidence_of_that_partition(index):
    """Also of a map that leaves its group empty, and of one without a band."""
    rows, noise, have = _maps()
    weight, gram, product, base = _sums(rows, noise, have, LABELS)
    shared, sizes, guide, coefficients = _options()
    prior, log_share = log_prior_of_unions(11), np.log([0.5, 0.3, 0.2])
    own = (have[:, index] / noise[:, index])[:, None]
    square = np.array([rows[band][index] @ rows[band][index] / count for band, count in enumerate(BANDS["coefficients"])])
    square = square[:, None]
    home = LABELS[index]
    with_groups = product[:, index][:, None].copy()
    with_groups[..., home] -= square * own
    scores = contrast_scores(weight, gram, shared, guide, coefficients)
    found = placement_evidence(
        *(weight, gram, own[..., None] * with_groups, own, own**2 * square, home, np.array([7.0]), shared, sizes),
        *(guide, coefficients, base, prior, log_share, scores),
    )[0]
    assert found[home] == 7.0
    for group in (0, 10):
        if group != home:
            labels = LABELS.copy()
            labels[index] = group
            met = _unions(rows, noise, have, labels, 0.3)
            direct = logsumexp(_direct(rows, noise, have, met) + log_share[:, None] + prior)
            np.testing.assert_allclose(found[group], direct, rtol=1e-9)
