"""Surfaces: what is where in a view, and the rule of the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.report.surface import as_seen, surface_threshold, surface_view, without_dust


def ball(centre_zyx: tuple[float, float, float], radius: float, *, box: int = 32) -> np.ndarray:
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((z - centre_zyx[0]) ** 2 + (y - centre_zyx[1]) ** 2 + (x - centre_zyx[2]) ** 2)
    return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)


def middle(alpha: np.ndarray) -> tuple[float, float]:
    """Centre of what is drawn: (right, up), -1..1."""
    rows, columns = np.nonzero(alpha > 0.5)
    half = len(alpha) / 2
    return (columns.mean() + 0.5 - half) / half, -(rows.mean() + 0.5 - half) / half


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize(
    ("direction", "right", "up"),
    [("front", "x", "y"), ("right", "-z", "y"), ("top", "x", "-z")],
)
def test_axes_of_a_view_are_right_handed(direction: str, right: str, up: str, box: int) -> None:
    place = {"x": 5.0, "y": -4.0, "z": 7.0}
    volume = ball((place["z"], place["y"], place["x"]), 3, box=box)
    view = surface_view(volume, threshold=0.5, direction=direction, half_width=16, pixels=128)  # type: ignore[arg-type]
    expected = [(-1 if name[0] == "-" else 1) * place[name[-1]] / 16 for name in (right, up)]
    np.testing.assert_allclose(middle(view.alpha), expected, atol=0.02)


@pytest.mark.parametrize(("direction", "near"), [("front", (9, 0, 0)), ("right", (0, 0, 9)), ("top", (0, 9, 0))])
def test_the_near_ball_hides_the_far_one(direction: str, near: tuple[int, int, int]) -> None:
    far = tuple(-value for value in near)
    small_near = ball(near, 2) + ball(far, 5)  # type: ignore[arg-type]
    large_near = ball(near, 5) + ball(far, 2)  # type: ignore[arg-type]
    options = {"threshold": 0.5, "direction": direction, "half_width": 16, "pixels": 96}
    seen, hidden = (surface_view(volume, **options) for volume in (small_near, large_near))  # type: ignore[arg-type]
    np.testing.assert_array_equal(seen.alpha > 0.5, hidden.alpha > 0.5)
    rim = surface_view(ball(near, 2), **options).alpha > 0.5  # type: ignore[arg-type]
    # Where the small ball stands before the large one its rim shows as an edge of brightness.
    edges = [np.abs(np.gradient(view.shade)[0])[rim].max() for view in (seen, hidden)]
    assert edges[0] > 2 * edges[1]


def test_a_ball_has_its_size() -> None:
    view = surface_view(ball((0, 0, 0), 8), threshold=0.5, direction="front", half_width=16, pixels=256)
    radius = np.sqrt((view.alpha > 0.5).sum() / np.pi) / 256 * 32
    assert radius == pytest.approx(8, abs=0.2)
    # Light comes from the upper left.
    assert view.shade[98, 98] > view.shade[158, 158]


def test_nothing_above_the_threshold_is_an_empty_view() -> None:
    view = surface_view(np.zeros((8, 8, 8), np.float32), threshold=1, direction="top", half_width=4, pixels=16)
    assert not view.alpha.any()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_the_threshold_follows_gain_and_level(gain: float, level: float) -> None:
    volume = ball((0, 0, 0), 8).astype(np.float64)
    volume += 0.05 * np.random.default_rng(0).standard_normal(volume.shape)
    expected = gain * surface_threshold(volume) + level
    assert surface_threshold(gain * volume + level) == pytest.approx(expected, rel=1e-3, abs=1e-3 * gain)


def test_the_threshold_is_above_the_noise() -> None:
    noise = np.random.default_rng(0).standard_normal((32, 32, 32))
    assert surface_threshold(noise + 20 * ball((0, 0, 0), 8)) > 3
    assert 0.2 < surface_threshold(0.01 * noise + ball((0, 0, 0), 8)) < 0.4


def test_dust_goes_and_the_particle_stays() -> None:
    particle, dust = ball((0, 0, 0), 8), ball((12, 12, 12), 1.5)
    clean = without_dust(particle + dust, 0.5)
    np.testing.assert_array_equal(clean > 0.5, particle > 0.5)


def test_as_seen_keeps_every_voxel() -> None:
    volume = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    for direction, (right, up, near) in {"front": (2, 1, 0), "top": (2, 0, 1), "right": (0, 1, 2)}.items():
        seen = as_seen(volume, direction)  # type: ignore[arg-type]
        assert sorted(seen.ravel()) == sorted(volume.ravel())
        steps = {0: 9, 1: 3, 2: 1}
        assert abs(seen[0, 0, 1] - seen[0, 0, 0]) == steps[right]
        assert abs(seen[0, 1, 0] - seen[0, 0, 0]) == steps[up]
        assert seen[0, 0, 0] - seen[1, 0, 0] == steps[near]
