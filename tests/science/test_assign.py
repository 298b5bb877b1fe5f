import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from regroup_dask.science.assign import assign_superclasses, hard_classes, superclass_posteriors


def test_hard_classes_ties_and_empty_rows():
    posteriors = np.array(
        [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0, 0, 0], [np.nan] * 3, [np.nan, 0.1, 0]], np.float32
    )
    assert hard_classes(posteriors).tolist() == [1, 0, -1, -1, 1]
    assert hard_classes(np.zeros((2, 0), np.float32)).tolist() == [-1, -1]


def test_what_is_no_posterior_adds_nothing_to_a_superclass():
    posteriors = np.array([[np.nan, 0.6, 0.2], [-0.5, 0.5, 0.5], [np.inf, 0.0, 0.0]], np.float32)
    got = superclass_posteriors(posteriors, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(got, [[0.75, 0.25], [0.5, 0.5], [0, 0]], rtol=1e-6)


def test_argmax_leaves_particles_of_excluded_classes():
    posteriors = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.45, 0.1, 0.45]], np.float32)
    got = assign_superclasses(posteriors, np.array([-1, 0, 1]), 2)
    assert got.superclass.tolist() == [-1, 1, -1]
    np.testing.assert_allclose(got.superclass_posterior[0], [0.6, 0.4], rtol=1e-6)


def test_sum_prefers_the_superclass_with_more_mass():
    posteriors = np.array([[0.4, 0.3, 0.3, 0.0], [0.1, 0.1, 0.1, 0.7]], np.float32)
    of_class = np.array([0, 1, 1, -1])
    assert assign_superclasses(posteriors, of_class, 2).superclass.tolist() == [0, -1]
    got = assign_superclasses(posteriors, of_class, 2, rule="sum")
    assert got.superclass.tolist() == [1, -1]
    assert got.best_class_in_superclass.tolist() == [[0, 1], [0, 1]]


def test_minimum_posterior():
    posteriors = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    assert assign_superclasses(
        posteriors, np.array([0, 1]), 2, minimum_posterior=0.8
    ).superclass.tolist() == [-1, 0]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="3 posteriors"):
        superclass_posteriors(np.ones((2, 3), np.float32), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="superclass 2"):
        superclass_posteriors(np.ones((2, 3), np.float32), np.array([0, 1, 2]), 2)
    with pytest.raises(ValueError, match="rule"):
        assign_superclasses(np.ones((2, 1), np.float32), np.array([0]), 1, rule="max")


@given(
    arrays(np.float32, st.tuples(st.integers(0, 20), st.just(5)), elements=st.floats(0, 1, width=32)),
    arrays(np.int64, 5, elements=st.integers(-1, 2)),
    st.sampled_from(["argmax", "sum"]),
)
def test_every_particle_has_one_place(posteriors, of_class, rule):
    got = assign_superclasses(posteriors, of_class, 3, rule=rule)
    total = got.superclass_posterior.sum(axis=1)
    assert (np.isclose(total, 1, atol=1e-5) | (total == 0)).all()
    grouped = (got.class_index >= 0) & (np.append(of_class, -1)[got.class_index] >= 0)
    assert ((got.superclass >= 0) == grouped).all()
    if rule == "argmax":
        assert (got.superclass == np.append(of_class, -1)[got.class_index]).all()
