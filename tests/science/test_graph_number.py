"""How many groups describe a graph of maps in the fewest words."""

import numpy as np
import pytest

from regroup_dask.science.block_model import make_edges
from regroup_dask.science.graph_number import WORDS_PER_DISTANCE, description_length, shortest_description
from regroup_dask.science.model_selection import significant_number
from regroup_dask.science.sparse_blocks import graph_edges
from regroup_dask.science.sparse_linkage import link_graph


@pytest.mark.parametrize("seed", range(3))
def test_a_single_odd_map_is_no_structure(seed):
    """Some maps are further from all others than two of the structures from each other; linkage takes them for structures."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(6), 12))
    apart = np.triu(rng.uniform(0.06, 0.14, (6, 6)), 1)
    apart[2, 3] = 0.025
    own = np.where(np.isin(np.arange(72), np.flatnonzero(truth < 2)[:4]), 0.03, 0.0)
    noise = np.triu(rng.normal(size=(72, 72)) * 0.002, 1)
    distance = ((apart + apart.T)[truth][:, truth] + own[:, None] + own + noise + noise.T) * (1 - np.eye(72))
    edges = make_edges(distance, np.full_like(distance, 0.003), np.full(72, 0.0015))
    linked = link_graph(edges, 20)
    assert significant_number(linked, 20) == 10
    count, labels = shortest_description(graph_edges(edges), [linked.labels], 20)
    assert count == 6
    assert np.array_equal(labels[:, None] == labels, truth[:, None] == truth)


def test_one_structure_is_the_shortest_description_of_its_maps():
    rng = np.random.default_rng(3)
    noise = np.triu(rng.normal(size=(50, 50)) * 0.01, 1)
    edges = make_edges(noise + noise.T, np.full((50, 50), 0.01), np.full(50, 0.001))
    assert shortest_description(graph_edges(edges), [link_graph(edges, 10).labels], 10)[0] == 1


def test_words_of_a_partition_are_its_entropy_and_a_distance_for_each_two_groups_that_were_compared():
    distance = np.full((6, 6), 0.1)
    distance[:2, 4:] = distance[4:, :2] = np.nan
    graph = graph_edges(make_edges(distance, np.full_like(distance, 0.01), None))
    found = description_length(graph, np.array([0, 0, 1, 1, 2, 2]), 3)
    # Three groups of a third of the maps; groups 0 and 2 were not compared, the others by four pairs.
    assert found == pytest.approx(2 * 6 * np.log(3) + WORDS_PER_DISTANCE * 2 * np.log(5))
