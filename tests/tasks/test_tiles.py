"""The pairs of maps are cut into tiles: each pair once, large tiles first, and little left over at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regroup_dask.tasks.pairs import LARGEST_TILE, pair_runs, tile_pairs


@given(st.integers(2, 140))
def test_every_pair_is_in_one_tile_and_large_tiles_come_first(n_maps):
    tiles = tile_pairs(n_maps)
    assert sorted(pair for tile in tiles for pair in tile) == [(i, j) for i in range(n_maps) for j in range(i + 1, n_maps)]
    sizes = [len(tile) for tile in tiles]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len({index for pair in tile for index in pair}) <= 2 * LARGEST_TILE for tile in tiles)


@given(st.sets(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=2000))
def test_chosen_pairs_are_in_one_run_each(pairs):
    runs = pair_runs(sorted(pairs))
    assert sorted(pair for run in runs for pair in run) == sorted(pairs)
    assert all(runs)


@pytest.mark.parametrize(("n_maps", "n_workers"), [(1000, 64), (300, 16), (2000, 256)])
def test_workers_wait_little_for_each_other(n_maps, n_workers):
    """Given out one by one to whoever is free first, with nothing lost in between."""
    tiles = tile_pairs(n_maps)
    free = [0.0] * n_workers
    for number, tile in enumerate(tiles):
        first = free.index(min(free))
        # workers are not equally fast
        free[first] += len(tile) * (1 + 0.1 * ((7 * first + number) % 5))
    done = sum(free) / (n_workers * max(free))
    assert done > 0.98
