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


@pytest.mark.parametrize(
    ("n_classes", "every_pair", "contrasts", "listed"),
    [
        (60, True, True, False),
        (61, True, True, True),
        (61, True, False, False),
        (300, True, False, False),
        (301, True, False, True),
        (3, False, True, True),
        (3, False, False, True),
    ],
)
def test_many_classes_and_missing_pairs_are_grouped_by_list(n_classes, every_pair, contrasts, listed):
    assert grouping.by_list(n_classes, every_pair=every_pair, contrasts=contrasts) is listed


@pytest.mark.parametrize(
    ("n_classes", "similarity", "listed"), [(60, "structure", 0), (61, "structure", 1), (61, "correlation", 0)]
)
def test_sixty_one_classes_are_grouped_by_the_contrasts_of_their_pairs(n_classes, similarity, listed, monkeypatch):
    """Distances tell other groups than contrasts do: what is found says which were heard."""
    from regroup_dask.science import sparse_grouping

    calls = []

    def heard(*given, **options):
        calls.append(options["contrast"])
        return group_sparse(*given, **options)

    group_sparse = sparse_grouping.group_sparse
    monkeypatch.setattr(sparse_grouping, "group_sparse", heard)
    by_distance, by_contrast = np.arange(n_classes) % 2, np.arange(n_classes) // (n_classes // 2 + 1)
    rng = np.random.default_rng(0)

    def table(labels):
        noise = np.triu(rng.normal(size=(n_classes, n_classes)) * 0.002, 1)
        return np.where(labels[:, None] == labels, 0.0, 0.1) * (1 - np.eye(n_classes)) + noise + noise.T

    distance, contrast = table(by_distance), table(by_contrast)
    sigma, shared = np.full_like(distance, 0.003), np.zeros(n_classes)
    square = ("class_i", "class_j")
    pairs = xr.Dataset(
        {
            "similarity": (square, 1 - distance),
            "correlation": (square, 1 - distance),
            "distance": (square, distance),
            "distance_sigma": (square, sigma),
            "shared_sigma": ("class_i", shared),
            "contrast": (square, contrast),
            "contrast_sigma": (square, sigma),
            "shared_contrast_sigma": ("class_i", shared),
            "rotation_quaternion": ((*square, "quaternion"), np.tile([0.0, 0, 0, 1], (n_classes, n_classes, 1))),
            "shift_angstrom": ((*square, "axis"), np.zeros((n_classes, n_classes, 3))),
            "mirrored": (square, np.zeros((n_classes, n_classes), bool)),
        },
        coords={"class_i": np.arange(n_classes), "class_j": np.arange(n_classes)},
    )
    found = grouping.group_pairs(pairs, 2, similarity=similarity, n_resamplings=0)["superclass"].values
    assert len(calls) == listed
    expected = by_contrast if listed else by_distance
    assert np.array_equal(found == found[0], expected == expected[0])
