import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.settings import Settings


@given(
    st.integers(1, 1000) | st.just("auto"),
    st.integers(0, 10**9),
    st.sets(st.integers(0, 99)).map(lambda ids: tuple(sorted(ids))),
    st.floats(0, 1e6),
    st.none() | st.floats(0.001, 1),
    st.none() | st.booleans(),
)
def test_settings_survive_run_json(count, size, excluded, shift, radius, update):
    settings = Settings(
        n_superclasses=count,
        minimum_class_size=size,
        exclude_classes=excluded,
        maximum_shift_angstrom=shift,
        mask_inner_radius=radius,
        update_poses=update,
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


def test_settings_of_a_later_version_are_left_out():
    assert Settings.from_dict({"n_superclasses": 3, "phase_of_the_moon": "full"}) == Settings(n_superclasses=3)


@pytest.mark.parametrize(("align", "update", "follow"), [(False, None, False), (True, None, True), (True, False, False)])
def test_poses_follow_when_aligned_unless_told(align, update, follow):
    assert Settings(n_superclasses=1, align=align, update_poses=update).poses_follow is follow


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_superclasses", True),
        ("n_superclasses", 2.0),
        ("n_superclasses", 0),
        ("posteriors", "max"),
        ("frame", "class"),
        ("hand", "left"),
        ("similarity", ""),
        ("minimum_class_size", -1),
        ("exclude_classes", (-1,)),
        ("maximum_shift_angstrom", float("nan")),
        ("mask_inner_radius", 1.01),
        ("minimum_posterior", -0.1),
    ],
)
def test_values_that_cannot_be(name, value):
    with pytest.raises(InputError, match=str(value).replace("(-1,)", "-1").replace(".", r"\.") or "''"):
        Settings(**{"n_superclasses": 2, name: value})
