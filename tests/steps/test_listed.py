"""Which runs keep their pairs as a list."""

import pytest

from regroup_dask.settings import Settings
from regroup_dask.steps.listed import are_listed


@pytest.mark.parametrize(
    ("n_maps", "pairs", "listed"),
    [
        (2, "all", False),
        (60, "all", False),
        (61, "all", True),
        (60, "nearest", True),
        (12, "nearest:10", True),
        (12, "nearest:11", False),
        (31, "nearest:30", False),
        (32, "nearest:30", True),
        (61, "nearest:60", True),
    ],
)
def test_pairs_are_listed_where_some_are_missing_or_classes_are_many(n_maps: int, pairs: str, listed: bool) -> None:
    assert are_listed(n_maps, Settings(n_superclasses=2, align=True, pairs=pairs)) is listed
