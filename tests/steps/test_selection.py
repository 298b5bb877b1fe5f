import numpy as np
import pytest

from regroup_dask.errors import InputError
from regroup_dask.formats.volumes import VolumeReference, VolumeSeries
from regroup_dask.settings import Settings
from regroup_dask.steps.selection import select_classes


def series(n):
    return VolumeSeries(tuple(VolumeReference(k, f"map {k}", f"{k}.mrc", "mrc", 0, 8, 1.0) for k in range(n)), 8, 1.0)


def test_excluded_wins_over_too_small_and_the_largest_kept_is_the_reference():
    settings = Settings(n_superclasses=2, exclude_classes=(0, 4), minimum_class_size=10)
    chosen = select_classes(series(6), np.array([500, 10, 9, 40, 3, 40]), settings)
    assert chosen.status == ("excluded", "grouped", "too_small", "grouped", "excluded", "grouped")
    assert chosen.kept.tolist() == [1, 3, 5]
    assert chosen.kept_sizes.tolist() == [10, 40, 40]
    assert chosen.reference == 1


def test_without_particles_no_class_is_too_small():
    chosen = select_classes(series(3), None, Settings(n_superclasses=1, minimum_class_size=10))
    assert chosen.kept.tolist() == [0, 1, 2]
    assert chosen.kept_sizes.tolist() == [1, 1, 1]


def test_a_class_without_map_may_be_excluded_when_particles_name_it():
    settings = Settings(n_superclasses=1, exclude_classes=(7,))
    assert select_classes(series(3), None, settings, without_map=[7]).kept.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="class 7, which does not exist: the classes are 0, 1, 2"):
        select_classes(series(3), None, settings)


def test_the_message_says_the_range_and_why():
    settings = Settings(n_superclasses=9, exclude_classes=(2,), minimum_class_size=5)
    with pytest.raises(InputError, match=r"from 1 to 4.*7 classes, class 2 excluded; class 0 under 5 particles"):
        select_classes(series(7), np.array([1, 9, 9, 9, 9, 9, 9]), settings)


def test_any_number_will_do_when_it_is_chosen_later():
    assert len(select_classes(series(2), None, Settings(n_superclasses="auto")).kept) == 2
