"""Linkage and block model of a graph give what the tables of `science.block_model` give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science.block_model import Edges, agglomeration, fit_block_model, make_edges
from regroup_dask.science.sparse_blocks import NO_TAIL, fit_graph_blocks, graph_edges, unite_graph_blocks
from regroup_dask.science.sparse_linkage import link_graph


def edges_of(seed: int, n_maps: int, n_groups: int, known: float) -> tuple[Edges, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n_maps) % n_groups)
    apart = np.triu(rng.uniform(0.05, 0.4, (n_groups, n_groups)), 1)
    sigma = rng.uniform(0.005, 0.05, (n_maps, n_maps))
    sigma = (sigma + sigma.T) / 2
    noise = np.triu(rng.normal(size=sigma.shape) * sigma, 1)
    distance = (apart + apart.T)[truth][:, truth] + noise + noise.T
    unknown = np.triu(rng.random(distance.shape) > known, 1)
    distance[unknown | unknown.T] = np.nan
    np.fill_diagonal(distance, 0.0)
    return make_edges(distance, sigma, rng.uniform(0, 0.01, n_maps)), truth


@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([0.0, 0.5]))
@settings(max_examples=60, deadline=None)
def test_a_graph_is_linked_as_a_table_is(seed, n_maps, known, caution):
    edges, _ = edges_of(seed, n_maps, 3, known)
    table, graph = agglomeration(edges, caution=caution), link_graph(edges, n_maps, caution=caution)
    joined = np.isfinite(table.height)
    np.testing.assert_array_equal(joined, np.isfinite(graph.height))
    np.testing.assert_allclose(graph.height[joined], table.height[joined], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(graph.height_sigma[joined], table.height_sigma[joined], rtol=1e-9)
    np.testing.assert_array_equal(graph.labels, table.labels)


def test_only_the_partitions_asked_for_are_kept():
    edges, _ = edges_of(3, 20, 4, 1.0)
    whole, some = link_graph(edges, 20), link_graph(edges, 6)
    np.testing.assert_array_equal(some.labels, whole.labels[:6])
    np.testing.assert_array_equal(some.height, whole.height[:7])


@pytest.mark.parametrize("seed", range(4))
def test_the_block_model_of_a_graph_is_that_of_a_table(seed):
    edges, _ = edges_of(seed, 40, 4, 1.0)
    start = np.random.default_rng(seed).permutation(np.arange(40) % 4)
    table = fit_block_model(edges, start)
    labels, cost = fit_graph_blocks(graph_edges(edges), start, 4, tail=NO_TAIL)
    assert adjusted_rand_score(table.labels, labels) == 1.0
    assert cost == pytest.approx(table.cost, rel=1e-4)


def test_groups_never_compared_are_not_taken_for_one():
    """A map of one group has no pair with another group: nothing says that it is at distance zero from it."""
    edges, truth = edges_of(7, 36, 4, 1.0)
    between = (truth[:, None] == 0) & (truth[None] == 3)
    between |= between.T
    edges = edges._replace(variance=np.where(between, np.inf, edges.variance), distance=np.where(between, 0, edges.distance))
    labels, _ = fit_graph_blocks(graph_edges(edges), truth, 4)
    assert np.array_equal(labels, truth)


def test_maps_that_nothing_is_known_of_do_not_take_groups_from_those_that_differ():
    """Linkage leaves the noisiest maps alone; united by likelihood they join what they may be, and the groups are right."""
    rng = np.random.default_rng(1)
    truth = np.arange(60) % 4
    noisy = np.arange(60) < 4
    sigma = np.where(noisy[:, None] | noisy[None], 0.3, 0.01)
    noise = np.triu(rng.normal(size=sigma.shape) * sigma, 1)
    distance = np.where(truth[:, None] == truth[None], 0.0, 0.04) + noise + noise.T
    np.fill_diagonal(distance, 0.0)
    edges = make_edges(distance, sigma, np.zeros(60))
    linked = link_graph(edges, 8, caution=1.0).labels
    labels, _ = unite_graph_blocks(graph_edges(edges), linked[-1], 4)
    assert adjusted_rand_score(truth[~noisy], labels[~noisy]) == 1.0
