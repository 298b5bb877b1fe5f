"""Order and tree of the classes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.report.dendrogram import class_tree


@st.composite
def grouped_similarities(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 12))
    labels = np.array(draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count)))
    values = np.random.default_rng(draw(st.integers(0, 1000))).uniform(-0.2, 1, (count, count))
    values = (values + values.T) / 2
    if draw(st.booleans()) and count > 1:
        values[0, 1] = values[1, 0] = np.nan
    np.fill_diagonal(values, 1)
    return values, labels


@settings(max_examples=60, deadline=None)
@given(grouped_similarities())
def test_superclasses_lie_together_and_all_is_joined(problem: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = problem
    tree = class_tree(values, labels)
    assert sorted(tree.order) == list(range(len(labels)))
    ordered = labels[tree.order]
    for label in set(labels.tolist()) - {-1}:
        places = np.flatnonzero(ordered == label)
        assert places[-1] - places[0] == len(places) - 1
    assert len(tree.brackets) == len(labels) - 1
    assert all(bracket.height >= max(bracket.left_height, bracket.right_height) for bracket in tree.brackets)
    assert all(bracket.left < bracket.right for bracket in tree.brackets)


def test_the_likest_are_neighbours() -> None:
    values = np.array([[1, 0.2, 0.9, 0.3], [0.2, 1, 0.3, 0.8], [0.9, 0.3, 1, 0.2], [0.3, 0.8, 0.2, 1]])
    tree = class_tree(values, np.zeros(4, int))
    order = tree.order.tolist()
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert sorted(round(bracket.height, 6) for bracket in tree.brackets) == [0.1, 0.2, 0.75]
