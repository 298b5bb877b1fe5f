"""The random-effects model against multivariate normal densities, and the search against known partitions."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.local_covariance import LocalCovariance
from regroup_dask.science.local_model import LEAST_MISFIT, LocalModel
from regroup_dask.science.local_search import (
    describes_maps,
    evidence_linkage,
    evidence_of_numbers,
    fewest_groups,
    move_maps,
    next_partition,
    renumbered,
    search_partition,
)
from regroup_dask.science.window_clusters import clusters_after_unions, log_prior_of_unions

SIZES = (3, 2, 2)
LABELS = np.repeat(np.arange(3), SIZES)


def _local(seed=0, labels=LABELS, difference=0.5, noise=(0.2, 1.5), coefficients=60):
    """Fields drawn from the model: structures differ in the first two of eight windows."""
    rng = np.random.default_rng(seed)
    n, k = len(labels), labels.max() + 1
    power = rng.uniform(*noise, (2, n))
    product = np.empty((2, 8, n, n), np.float32)
    for band in range(2):
        for window in range(8):
            shared = rng.normal(size=coefficients) * np.sqrt(3.0)
            own = rng.normal(size=(k, coefficients)) * np.sqrt(3.0 * difference * (window < 2))
            rows = shared + own[labels] + rng.normal(size=(n, coefficients)) * np.sqrt(power[band])[:, None]
            product[band, window] = rows @ rows.T / coefficients
    return LocalCovariance(
        product,
        np.ones((2, n), bool),
        np.full((2, 8), float(coefficients)),
        power,
        np.full((2, n), 0.1),
        np.array([0.4, 1.0]),
        np.linspace(0.5, 1.5, 8),
    )


def _direct(model, labels):
    """Log evidence from the dense covariance of the maps as they were measured, without any shortcut."""
    local, k = model.local, labels.max() + 1
    weight, gram, _ = model.sums(labels)
    order = model._terms(weight, gram)[1]
    together = clusters_after_unions(order, k)[:, :, labels][..., labels]
    terms = np.zeros((8, len(model.sizes), k)) + log_prior_of_unions(k)
    for band, window, size, step in np.ndindex(2, 8, len(model.sizes), k):
        shared = model.shared[band, window]
        misfit = LEAST_MISFIT + local.fineness[band] ** 2 * local.lever[window] * model.misfit
        own = model.noise[band] / model.gain[band] ** 2 + misfit * shared
        covariance = shared + together[window, step] * model.sizes[size, band] * shared + np.diag(own)
        covariance *= np.outer(model.gain[band], model.gain[band])
        measured = local.product[band, window]
        fit = np.linalg.slogdet(covariance)[1] + np.trace(np.linalg.solve(covariance, measured))
        terms[window, size, step] -= 0.5 * local.coefficients[band, window] * fit
    return logsumexp(terms + model.log_share[:, None], axis=(1, 2))


def test_maps_that_differ_by_what_is_neither_noise_nor_pose_are_not_believed_place_by_place():
    labels = np.repeat(np.arange(4), 3)
    assert describes_maps(_local(2, labels, coefficients=300))
    assert describes_maps(_local(2, labels, difference=0.0, noise=(0.01, 0.03), coefficients=300))
    # Next to no noise, and every map has a tenth of the signal in differences of its own, as from a filter of its own.
    each = _local(2, np.arange(12), noise=(0.3, 0.4), difference=0.0, coefficients=300)
    assert not describes_maps(each._replace(noise=np.full_like(each.noise, 0.003)))


@pytest.mark.parametrize("improved", [False, True])
def test_evidence_is_that_of_the_dense_covariance(improved):
    model = LocalModel(_local())
    if improved:
        model.improve(LABELS, 2)
    for labels in (LABELS, np.zeros(7, np.int64), np.arange(7), np.array([0, 1, 0, 1, 2, 2, 0])):
        np.testing.assert_allclose(model.window_evidence(labels), _direct(model, labels), rtol=1e-5, atol=1e-3)


def test_placing_a_map_is_the_evidence_of_the_partition_with_it_there():
    model = LocalModel(_local(1))
    arrangement = model.arrange(LABELS)
    for index in (0, 4, 6):
        placed = model.placements(arrangement, index)
        for group in range(3):
            moved = LABELS.copy()
            moved[index] = group
            np.testing.assert_allclose(placed[:, group], model.window_evidence(moved), rtol=1e-5, atol=1e-3)


def test_evidence_of_a_pair_is_the_bayes_factor_of_the_two_maps_alone():
    local = _local(2)
    model = LocalModel(local)
    found = model.pair_evidence()
    np.testing.assert_allclose(found, found.transpose(0, 2, 1))
    # Two maps alone: the same variances, so the model of all maps is asked with all but two maps made pure noise.
    i, j = 1, 5
    terms = np.zeros((2, 8, len(model.sizes)))
    for same in (0, 1):
        for band in range(2):
            shared = model.shared[band]
            for size in range(len(model.sizes)):
                extra = model.sizes[size, band] * shared
                for window in range(8):
                    own = 1 / model.precision[band, window, [i, j]]
                    off = shared[window] + same * extra[window]
                    covariance = np.diag(own + shared[window] + extra[window]) + off * (1 - np.eye(2))
                    seen = model.scaled[band, window][np.ix_([i, j], [i, j])]
                    fit = np.linalg.slogdet(covariance)[1] + np.trace(np.linalg.solve(covariance, seen))
                    terms[same, window, size] -= 0.5 * local.coefficients[band, window] * fit
    different, same_structure = logsumexp(terms + model.log_share, axis=2)
    np.testing.assert_allclose(found[:, i, j], same_structure - different, rtol=1e-4, atol=1e-3)


def test_a_map_without_a_band_says_nothing_there():
    local = _local(3)
    have = local.have.copy()
    have[1, 2] = False
    product = local.product.copy()
    product[1, :, 2] = product[1, :, :, 2] = 0
    first = LocalModel(local._replace(have=have, product=product))
    other = product.copy()
    noise = local.noise.copy()
    noise[1, 2] = 99.0
    second = LocalModel(local._replace(have=have, product=other, noise=noise))
    assert first.evidence(LABELS) == pytest.approx(second.evidence(LABELS))


def test_improving_finds_the_noise_that_was_misjudged():
    local = _local(4, coefficients=400)
    wrong = local._replace(noise=local.noise * 1.6, noise_error=np.full((2, 7), 1.0))
    model = LocalModel(wrong)
    before = np.abs(np.log(model.noise / local.noise)).mean()
    model.improve(LABELS, 15)
    assert np.abs(np.log(model.noise / model.gain**2 / local.noise)).mean() < 0.4 * before


@pytest.mark.parametrize("seed", range(4))
def test_search_finds_structures_that_differ_in_a_quarter_of_the_windows(seed):
    labels = np.repeat(np.arange(4), (4, 3, 2, 1))
    rng = np.random.default_rng(seed)
    model = LocalModel(_local(seed, labels, coefficients=150))
    found, _ = search_partition(model, 4, [rng.permutation(labels)])
    assert adjusted_rand_score(labels, found) == 1.0
    again, _ = search_partition(model, 4, [np.random.default_rng(seed).permutation(labels)])
    np.testing.assert_array_equal(found, again)


def test_moving_maps_keeps_every_group_and_never_lowers_the_evidence():
    model = LocalModel(_local(5))
    start = np.array([0, 1, 2, 0, 1, 2, 0])
    moved = move_maps(model, start)
    assert set(moved) == {0, 1, 2}
    assert model.evidence(moved) >= model.evidence(start)
    assert np.array_equal(renumbered(moved), moved)


def _single_moves(model, labels):
    """Evidence of every partition that moving one map makes, no group emptied."""
    moved = []
    for index in np.flatnonzero(np.bincount(labels)[labels] > 1):
        for group in range(labels.max() + 1):
            other = labels.copy()
            other[index] = group
            moved.append(model.evidence(other))
    return np.array(moved)


@pytest.mark.parametrize("seed", [1, 5])
def test_no_single_move_is_better_than_what_moving_maps_ends_with(seed):
    model = LocalModel(_local(seed, coefficients=25))
    moved = move_maps(model, np.array([0, 1, 2, 0, 1, 2, 0]))
    assert model.evidence(moved) >= _single_moves(model, moved).max() - 1e-5


def test_one_group_less_or_more_unites_or_splits_what_the_maps_say():
    """Structures a, b, b, c in groups: one more parts the two that are together, one less unites the two that are alike."""
    truth = np.repeat(np.arange(4), (4, 3, 3, 2))
    local = _local(3, truth, coefficients=150)
    together = np.array([0, 1, 1, 2])[truth]
    np.testing.assert_array_equal(next_partition(local, together, 4), truth)
    apart = np.where(np.arange(12) == 3, 4, truth)  # a map of the first structure on its own
    np.testing.assert_array_equal(next_partition(local, renumbered(apart), 4), truth)
    assert set(next_partition(local, np.zeros(12, np.int64), 2)) == {0, 1}


def test_linkage_unites_what_has_most_evidence():
    evidence = np.array([[0, 9, 1.0], [9, 0, 2.0], [1.0, 2.0, 0]])
    np.testing.assert_array_equal(evidence_linkage(evidence), [[0, 0, 0], [0, 0, 1], [0, 1, 2]])


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (4, 3, 2), (3, 3, 3, 3)])
def test_evidence_names_the_number_of_structures_one_too(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    curve = evidence_of_numbers(_local(7, labels, coefficients=150), len(labels) - 1)
    assert len(curve) == len(labels) - 1
    assert curve.max() == 0
    assert fewest_groups(curve) == len(sizes)
