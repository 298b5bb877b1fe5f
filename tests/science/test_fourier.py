"""Cropping and resampling agree with direct sums; shells are counted rightly for odd and even boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.science.fourier import (
    centred_spectrum,
    centred_volume,
    fourier_crop,
    fourier_resample,
    half_spectrum_shells,
    sampled_spectrum,
    shell_counts,
    shell_power,
)
from tests.science.particles import render


def _direct(volume, box):
    """The band-limited map at the new voxels by explicit sums over frequencies and voxels, one axis after another."""
    old = volume.shape[0]
    kept = min(old, box)
    position = (np.arange(box) - box // 2) * (old / box)
    sample = np.arange(old) - old // 2
    matrix = np.zeros((box, old))
    for k in range(-((kept - 1) // 2), (kept - 1) // 2 + 1):
        matrix += np.cos(2 * np.pi * k * (position[:, None] - sample[None, :]) / old) / old
    if kept % 2 == 0:  # the Nyquist frequency of the smaller box: both signs share one plane
        k = kept // 2
        if old == kept:  # going up: its cosine at the new voxels
            matrix += (
                np.cos(2 * np.pi * k * position[:, None] / old) * np.cos(2 * np.pi * k * sample / old) / old
            )
        else:  # going down: the mean of both signs
            matrix += (
                np.cos(2 * np.pi * k * position[:, None] / old) * np.cos(2 * np.pi * k * sample / old) / old
            )
    return np.einsum("za,yb,xc,abc->zyx", matrix, matrix, matrix, volume, optimize=True)


@pytest.mark.parametrize(
    ("old", "new"), [(12, 8), (12, 7), (13, 8), (13, 9), (8, 12), (9, 12), (9, 13), (8, 13)]
)
def test_crop_equals_direct_sums(old, new):
    rng = np.random.default_rng(old * 100 + new)
    smooth = rng.normal(size=(old, old, old))
    spectrum = np.fft.fftn(
        smooth
    )  # without frequencies at the smaller box's edge, where conventions could differ
    k = np.abs(np.rint(np.fft.fftfreq(old) * old))
    inside = k < min(old, new) / 2
    spectrum *= inside[:, None, None] * inside[None, :, None] * inside[None, None, :]
    smooth = np.fft.ifftn(spectrum).real
    np.testing.assert_allclose(fourier_crop(smooth, new), _direct(smooth, new), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(old=st.integers(4, 15), new=st.integers(4, 15), seed=st.integers(0, 1000))
def test_crop_keeps_the_mean_and_is_linear(old, new, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, old, old, old)).astype(np.float32)
    cropped = fourier_crop(a, new)
    assert cropped.shape == (new,) * 3
    assert cropped.dtype == np.float32
    assert cropped.mean() == pytest.approx(a.mean(), abs=1e-4)
    np.testing.assert_allclose(fourier_crop(a + 2 * b, new), cropped + 2 * fourier_crop(b, new), atol=2e-4)


@settings(max_examples=20, deadline=None)
@given(old=st.integers(4, 12), more=st.integers(1, 9), seed=st.integers(0, 1000))
def test_going_up_and_back_changes_nothing(old, more, seed):
    volume = np.random.default_rng(seed).normal(size=(old,) * 3).astype(np.float32)
    np.testing.assert_allclose(fourier_crop(fourier_crop(volume, old + more), old), volume, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [(48, 32), (49, 32), (48, 31), (49, 31)])
def test_crop_keeps_a_ball_where_it_is(old, new):
    centre = np.array([[3.0, -2.0, 1.0]])
    volume = render(centre, np.ones(1), box=old, width=2.5)
    expected = render(centre * new / old, np.ones(1), box=new, width=2.5 * new / old)
    np.testing.assert_allclose(fourier_crop(volume, new), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("old", "new", "ratio"), [(40, 40, 1.0), (40, 33, 1.3), (33, 48, 0.8), (41, 30, 1.0)]
)
def test_resample_keeps_a_ball_where_it_is(old, new, ratio):
    centre = np.array([[3.0, -2.0, 1.0]])
    volume = render(centre, np.ones(1), box=old, width=3.0)
    expected = render(centre / ratio, np.ones(1), box=new, width=3.0 / ratio)
    got = fourier_resample(volume, voxel_size_angstrom=2.0, box=new, target_voxel_size_angstrom=2.0 * ratio)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=3e-3)


def test_resample_to_the_same_grid_changes_nothing():
    volume = np.random.default_rng(0).normal(size=(10, 10, 10)).astype(np.float32)
    got = fourier_resample(volume, voxel_size_angstrom=1.5, box=10, target_voxel_size_angstrom=1.5)
    np.testing.assert_allclose(got, volume, atol=1e-5)


@pytest.mark.parametrize("box", [8, 9])
def test_sampled_spectrum_is_the_direct_sum(box):
    volume = np.random.default_rng(box).normal(size=(box,) * 3).astype(np.float32)
    cube = sampled_spectrum(volume, spacing=0.5 / box, reach=5, compensate=False)
    position = np.arange(box) - box // 2
    for kz, ky, kx in [(0, 0, 0), (3, -2, 5), (-5, 4, 1)]:
        wave = np.exp(
            -1j
            * np.pi
            / box
            * (kz * position[:, None, None] + ky * position[None, :, None] + kx * position[None, None, :])
        )
        assert cube[kz + 5, ky + 5, kx] == pytest.approx((volume * wave).sum(), abs=1e-3)


@pytest.mark.parametrize("box", [8, 9, 16])
def test_shells_cover_the_full_spectrum(box):
    k = np.rint(np.fft.fftfreq(box) * box)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2))
    expected = np.bincount(shell.astype(int).ravel())[: box // 2 + 1]
    np.testing.assert_array_equal(shell_counts(box), expected)
    assert half_spectrum_shells(box)[0].max() == box // 2 + 1
    volume = np.random.default_rng(box).normal(size=(box,) * 3)
    power = np.abs(np.fft.fftn(volume)) ** 2
    slow = np.bincount(shell.astype(int).ravel(), weights=power.ravel())[: box // 2 + 1]
    np.testing.assert_allclose(shell_power(volume), slow, rtol=1e-10)


@pytest.mark.parametrize("box", [8, 9])
def test_spectrum_about_the_origin_voxel_is_real_for_a_point_there(box):
    volume = np.zeros((box,) * 3)
    volume[box // 2, box // 2, box // 2] = 1
    np.testing.assert_allclose(centred_spectrum(volume), 1.0, atol=1e-12)
    np.testing.assert_allclose(centred_volume(centred_spectrum(volume), box), volume, atol=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="cube"):
        fourier_crop(np.zeros((4, 5, 4)), 4)
    with pytest.raises(InputError, match="at least 2"):
        fourier_crop(np.zeros((4, 4, 4)), 1)
    with pytest.raises(InputError, match="positive"):
        fourier_resample(np.zeros((4, 4, 4)), voxel_size_angstrom=0, box=4, target_voxel_size_angstrom=1)
