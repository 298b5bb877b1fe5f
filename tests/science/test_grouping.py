import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.block_model import agglomeration, fit_block_model, make_edges
from regroup_dask.science.clustering import canonical_labels, spectral
from regroup_dask.science.grouping import group_classes
from regroup_dask.science.model_selection import agreement, stability


def _problem(seed, sizes, apart=0.08, noise=(0.002, 0.02)):
    """Distances that are zero within and ``apart`` between structures, each map with noise of its own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    n = len(labels)
    own = np.exp(rng.uniform(np.log(noise[0]), np.log(noise[1]), n))
    sigma = np.sqrt(own[:, None] * own[None])
    error = np.triu(rng.normal(size=(n, n)), 1)
    distance = apart * (labels[:, None] != labels[None]) + sigma * (error + error.T)
    np.fill_diagonal(distance, 0)
    return labels, distance, sigma


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (7, 2, 1), (1, 1), (2, 1)])
def test_finds_the_structures(sizes):
    labels, distance, sigma = _problem(1, sizes)
    found = group_classes(1 - distance, len(sizes), distance=distance, distance_sigma=sigma)
    assert adjusted_rand_score(labels, found.labels) == 1
    assert found.n_superclasses == len(found.superclass_stability) == len(sizes)
    assert found.class_stability.min() > 0.8


def test_auto_finds_number_and_one():
    for sizes in [(4, 3, 3, 2), (5, 5), (6,)]:
        _, distance, sigma = _problem(2, sizes)
        found = group_classes(1 - distance, "auto", distance=distance, distance_sigma=sigma)
        assert found.n_superclasses == len(sizes)
        assert len(found.stability_curve) == len(found.candidate_superclasses) == len(found.eigengap_curve)


@given(st.integers(2, 9), st.data())
@settings(max_examples=15, deadline=None)
def test_every_number_works_and_is_deterministic(n, data):
    k = data.draw(st.integers(1, n))
    _, distance, sigma = _problem(data.draw(st.integers(0, 99)), (n,))
    options = {"distance": distance, "distance_sigma": sigma, "n_resamplings": 3}
    found = group_classes(1 - distance, k, **options)
    assert sorted(set(found.labels)) == list(range(k))
    again = group_classes(1 - distance, k, **options)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    plain = group_classes(np.clip(1 - distance, 0, 1), k, n_resamplings=2)
    assert sorted(set(plain.labels)) == list(range(k))


def test_order_of_maps_does_not_matter():
    labels, distance, sigma = _problem(3, (4, 3, 2))
    shuffle = np.random.default_rng(0).permutation(len(labels))
    part = np.ix_(shuffle, shuffle)
    first = group_classes(1 - distance, 3, distance=distance, distance_sigma=sigma).labels
    second = group_classes(1 - distance[part], 3, distance=distance[part], distance_sigma=sigma[part]).labels
    assert adjusted_rand_score(first[shuffle], second) == 1


def test_junk_is_flagged_with_a_reason():
    _, distance, sigma = _problem(4, (4, 4))
    n = len(distance) + 1
    wide, spread = np.full((n, n), 0.9), np.full((n, n), 0.01)
    wide[:-1, :-1], spread[:-1, :-1] = distance, sigma
    np.fill_diagonal(wide, 0)
    found = group_classes(1 - wide, 2, distance=wide, distance_sigma=spread)
    assert found.junk.tolist() == [False] * 8 + [True]
    assert "resembles no other map" in found.reason[-1]
    # The others show the two superclasses that are asked for: it takes none of them. Of three it is one.
    assert np.unique(found.labels[:4]).size == np.unique(found.labels[4:8]).size == 1
    assert found.labels[0] != found.labels[4]
    for number in (3, "auto"):
        three = group_classes(1 - wide, number, distance=wide, distance_sigma=spread)
        assert three.labels.tolist() == [0] * 4 + [1] * 4 + [2]
    # One structure and it, two asked for: nobody wants the one structure parted.
    few = np.ix_([0, 1, 2, 3, 8], [0, 1, 2, 3, 8])
    assert group_classes(1 - wide[few], 2, distance=wide[few], distance_sigma=spread[few]).labels.tolist() == [0, 0, 0, 0, 1]
    information = np.full(n, 500.0)
    information[2] = 0.5
    found = group_classes(1 - wide, 2, distance=wide, distance_sigma=spread, information=information)
    assert found.junk[2]
    assert found.reason[2].startswith("noise")


def test_what_resembles_little_is_junk_only_where_it_fits_onto_no_other_map():
    _, distance, sigma = _problem(4, (4, 4))
    n = len(distance) + 1
    wide, spread, confidence = np.full((n, n), 0.35), np.full((n, n), 0.01), np.full((n, n), 40.0)
    wide[:-1, :-1], spread[:-1, :-1] = distance, sigma
    np.fill_diagonal(wide, 0)
    np.fill_diagonal(confidence, np.nan)
    # A part of the complex on its own: unlike the others, and sure of its pose on them.
    told = {"distance": wide, "distance_sigma": spread, "n_resamplings": 0}
    assert not group_classes(1 - wide, 3, **told, confidence=confidence).junk.any()
    assert not group_classes(1 - wide, 3, **told).junk.any()
    confidence[-1, :-1] = confidence[:-1, -1] = np.linspace(0, 12, n - 1)
    found = group_classes(1 - wide, 2, **told, confidence=confidence)
    assert found.junk.tolist() == [False] * 8 + [True]
    assert "its pose stands out on none" in found.reason[-1]
    # Faint maps are sure of no pose, and resemble each other: no junk.
    near = np.where(np.eye(n, dtype=bool), 0, 0.1)
    assert not group_classes(1 - near, 2, distance=near, distance_sigma=spread, confidence=confidence).junk.any()


def test_number_out_of_range():
    with pytest.raises(ValueError, match="must be 1 to 3"):
        group_classes(np.eye(3), 4)


def test_shared_errors_do_not_mislead_the_block_model():
    """A map whose noise is misjudged is farther from all alike; it still belongs where it is nearest."""
    labels, distance, sigma = _problem(5, (4, 4), apart=0.05, noise=(0.002, 0.004))
    shift = np.zeros(8)
    shift[1] = 0.2
    shifted = distance + shift[:, None] + shift[None]
    np.fill_diagonal(shifted, 0)
    shared = np.where(shift > 0, 0.2, 0.001)
    total = np.sqrt(sigma**2 + shared[:, None] ** 2 + shared[None] ** 2)
    edges = make_edges(shifted, total, shared)
    start = labels.copy()
    start[1] = 1
    fitted = fit_block_model(edges, start)
    assert adjusted_rand_score(labels, fitted.labels) == 1
    assert abs(fitted.offset[1] - 0.2) < 0.05


def test_agglomeration_heights_are_mean_distances():
    labels, distance, sigma = _problem(6, (3, 4), apart=0.1, noise=(0.001, 0.0011))
    merges = agglomeration(make_edges(distance, sigma, None))
    np.testing.assert_array_equal(canonical_labels(merges.labels[1]), labels)
    assert abs(merges.height[2] - 0.1) < 0.003


def test_stability_counts_matched_labels():
    labels = np.array([0, 0, 1, 1])
    sure = stability(labels, [np.array([1, 1, 0, 0]), np.array([0, 0, 0, 1])])
    np.testing.assert_allclose(sure.class_stability, [1, 1, 0.5, 1])
    # Jaccard overlaps of the second: {0, 1} with {0, 1, 2} is 2/3, {2, 3} with {3} is 1/2
    np.testing.assert_allclose(sure.superclass_stability, [5 / 6, 3 / 4])


@given(st.integers(2, 9), st.integers(1, 4), st.data())
@settings(max_examples=40, deadline=None)
def test_agreement_is_the_adjusted_rand_index_of_each(n, largest, data):
    partition = st.lists(st.integers(0, largest - 1), min_size=n, max_size=n).map(np.array)
    labels, others = data.draw(partition), data.draw(st.lists(partition, min_size=1, max_size=3).map(np.array))
    np.testing.assert_allclose(agreement(labels, others), [adjusted_rand_score(labels, other) for other in others], atol=1e-12)


def test_spectral_splits_two_blocks():
    affinity = np.kron(np.eye(2), np.ones((3, 3))) * 0.9 + 0.1
    assert spectral(affinity, 2).tolist() == [0, 0, 0, 1, 1, 1]
    assert canonical_labels(np.array([5, 5, 2])).tolist() == [0, 0, 1]


def test_places_decide_and_where_they_say_nothing_the_whole_box_does():
    from regroup_dask.science.clustering import decide_by_place
    from regroup_dask.science.reliability import Reliability
    from regroup_dask.science.shell_model import ShellComparison, prepare_shells
    from tests.science.test_local_model import _local

    labels = np.repeat(np.arange(3), (3, 2, 2))
    wrong = np.array([0, 0, 1, 1, 1, 2, 2])
    n, shells = len(labels), 9
    reliability = Reliability(
        np.full((n, shells), 0.5), np.full((n, shells), 0.01), np.full(n, 0.1), np.full((n, shells), 0.01), ("maps",) * n
    )

    def whole_box(apart):
        fsc = np.where(labels[:, None] == labels, 0.5, 0.5 - apart)[..., None] * np.ones(shells)
        return prepare_shells(ShellComparison(fsc, reliability, np.full(shells, 50.0)))

    clear = _local(1, labels, difference=0.5, coefficients=200)
    np.testing.assert_array_equal(decide_by_place(clear, whole_box(0.0), wrong), labels)
    nothing = _local(1, labels, difference=0.0, coefficients=200)
    np.testing.assert_array_equal(decide_by_place(nothing, whole_box(0.3), labels), labels)
