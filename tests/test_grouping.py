import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from regroup_dask import grouping
from regroup_dask.errors import InputError


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=30))
def test_superclass_0_has_the_most_particles(rows):
    labels = np.unique([label for label, _ in rows], return_inverse=True)[1]
    sizes = np.array([size for _, size in rows])
    renamed = grouping.superclass_order(labels, sizes)[labels]
    totals = np.bincount(renamed, weights=sizes)
    assert (np.diff(totals) <= 0).all()
    np.testing.assert_array_equal(renamed[:, None] == renamed, labels[:, None] == labels)
    references = grouping.reference_classes(renamed, sizes)
    for superclass, reference in enumerate(references):
        assert renamed[reference] == superclass
        assert sizes[reference] == sizes[renamed == superclass].max()


def test_renumbering_takes_everything_of_a_superclass_along():
    groups = xr.Dataset(
        {"superclass": ("class_id", [0, 1, 2, 1, -1]), "reference_class": ("superclass_id", [10, 11, 12])},
        coords={"class_id": [10, 11, 12, 13, 14], "superclass_id": [0, 1, 2]},
    )
    turned = grouping.renumber(groups, np.array([2, 0, 1]))
    assert turned["superclass"].values.tolist() == [1, 2, 0, 2, -1]
    assert turned["reference_class"].values.tolist() == [12, 10, 11]
    assert turned["superclass_id"].values.tolist() == [0, 1, 2]


def test_similarity_to_superclass_leaves_the_class_itself_out():
    measure = np.array([[1, 0.5, 0.9], [0.5, 1, 0.1], [0.9, 0.1, 1]])
    np.testing.assert_allclose(grouping.similarity_to_superclass(measure, np.array([0, 1, 0])), [0.9, 1, 0.9])


@pytest.mark.parametrize("count", [0, 3, -1, 1.5, "many"])
def test_number_out_of_range(count):
    pairs = xr.Dataset({"correlation": (("class_i", "class_j"), np.eye(3))}, coords={"class_i": [0, 1, 2]})
    with pytest.raises(InputError, match="from 1 to 2"):
        grouping.group_pairs(pairs, count)
