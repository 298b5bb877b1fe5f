"""Stability from windows drawn anew: sure where many windows tell, unsure where one does, and counted right."""

import numpy as np

from regroup_dask.science.local_model import LocalModel
from regroup_dask.science.place_stability import draw_windows, resampled_placements, stability_of_numbers
from tests.science.test_local_model import LABELS, _local


def test_draws_take_as_many_windows_as_there_are_each_equally_often():
    draws = draw_windows(40, 500, 3)
    assert (draws.sum(axis=1) == 40).all()
    # The count of one window in one draw has mean and variance of about one.
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=5 / np.sqrt(500))
    np.testing.assert_allclose(draws.var(), 1, atol=0.05)
    np.testing.assert_array_equal(draws, draw_windows(40, 500, 3))


def test_a_draw_of_every_window_once_places_maps_as_all_windows_do():
    model = LocalModel(_local(2))
    model.improve(LABELS, 2)
    placed = resampled_placements(model, LABELS, np.ones((1, 8)))[0]
    for index in range(len(LABELS)):
        evidence = []
        for group in range(3):
            moved = LABELS.copy()
            moved[index] = group
            evidence.append(model.evidence(moved))
        assert placed[index] == np.argmax(evidence)


def test_what_two_windows_of_eight_tell_is_lost_when_neither_is_drawn():
    """Structures differ in two windows: a draw without both has probability (6/8)^8, 0.1."""
    model = LocalModel(_local(0, coefficients=200))
    model.improve(LABELS, 3)
    draws = draw_windows(8, 400, 0)
    told = draws[:, :2].sum(axis=1) > 0
    right = np.array([np.array_equal(placed, LABELS) for placed in resampled_placements(model, LABELS, draws)])
    assert right[told].mean() > 0.9
    assert right[~told].mean() < 0.5
    curve = stability_of_numbers(model, 4, draws[:60])
    assert curve[0] == 1
    assert curve[2] > max(curve[3], 0.8)
