"""Windows, bands and second moments place by place, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regroup_dask.science.local_covariance import (
    band_fields,
    local_covariance,
    local_windows,
    select_local,
    shell_bands,
    window_products,
)
from regroup_dask.science.masks import squared_radius
from regroup_dask.science.noise import shell_coefficients, shell_index

BOX = 20


@pytest.mark.parametrize("box", [15, 16])
@pytest.mark.parametrize("spacing", [3.0, 4.7])
def test_windows_add_up_to_the_region(box, spacing):
    region = (squared_radius(box) < (0.4 * box) ** 2).astype(np.float32)
    windows = local_windows(box, spacing, region)
    # Windows with next to nothing of the region are left out, so its rim may miss a little.
    inside = squared_radius(box) < (0.4 * box - spacing) ** 2
    np.testing.assert_allclose(windows.sum(axis=0)[inside], 1, atol=1e-6)
    assert (windows.sum(axis=0) <= region + 1e-6).all()


@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_bands_cover_every_shell_that_two_maps_have_once(n_shells, n_maps, seed):
    rng = np.random.default_rng(seed)
    usable = np.arange(n_shells) <= rng.integers(0, n_shells, n_maps)[:, None]
    usable[:, 0] = False
    bands = shell_bands(usable)
    shared = np.flatnonzero(usable.sum(axis=0) > 1)
    expected = np.arange(1, shared[-1] + 1) if len(shared) else []
    np.testing.assert_array_equal(np.concatenate([*bands, np.empty(0)]), expected)


@pytest.mark.parametrize("box", [11, 12])
def test_products_under_one_window_are_the_powers_of_the_band(box):
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(3, box, box, box)).astype(np.float32)
    band = np.array([2, 3])
    amplitude = rng.uniform(0.5, 2, (3, box // 2 + 1))
    fields = band_fields(volumes, amplitude, band)
    product, _ = window_products(fields, np.ones((1, box, box, box), np.float32))
    # Parseval: the mean product of two fields is the mean over the band's coefficients of their products.
    k = np.fft.fftfreq(box, 1 / box)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None] ** 2)).astype(int)
    inside = np.isin(shell, band)
    spectra = np.array([np.fft.fftn(v)[inside] / a[shell[inside]] for v, a in zip(volumes, amplitude, strict=True)])
    expected = (spectra @ spectra.conj().T).real / inside.sum()
    np.testing.assert_allclose(product[0], expected, rtol=1e-4)
    assert np.isclose(inside.sum(), 2 * shell_coefficients(box)[band].sum())


def test_white_noise_is_its_power_in_every_window():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(6, BOX, BOX, BOX)).astype(np.float32) * np.arange(1, 7)[:, None, None, None] ** 0.5
    shells = BOX // 2 + 1
    signal = np.full((6, shells), float(BOX**3))
    found = local_covariance(
        noise,
        signal_power=signal,
        noise_power=signal * np.arange(1, 7)[:, None],
        noise_error=np.full(6, 0.1),
        usable=np.arange(shells) * np.ones((6, 1)) > 0,
        region=np.ones((BOX,) * 3),
        spacing_voxels=6.0,
    )
    assert found is not None
    power = np.einsum("bwii,bw->i", found.product, found.coefficients) / found.coefficients.sum()
    np.testing.assert_allclose(power, np.arange(1, 7), rtol=0.1)
    np.testing.assert_allclose(found.noise, np.repeat(np.arange(1, 7)[None], len(found.noise), axis=0), rtol=1e-6)
    inside = shell_index(BOX) <= BOX // 2
    assert found.coefficients.sum() <= 2 * inside.sum()
    chosen = select_local(found, np.array([4, 1]))
    np.testing.assert_array_equal(chosen.product, found.product[:, :, [4, 1]][..., [4, 1]])
    assert chosen.noise.shape == chosen.have.shape == (len(found.noise), 2)


def test_maps_that_share_no_band_have_nothing_to_compare():
    shells = BOX // 2 + 1
    usable = np.zeros((3, shells), bool)
    usable[0, 1:6] = True
    assert (
        local_covariance(
            np.zeros((3, BOX, BOX, BOX), np.float32),
            signal_power=np.ones((3, shells)),
            noise_power=np.ones((3, shells)),
            noise_error=np.ones(3),
            usable=usable,
            region=np.ones((BOX,) * 3),
            spacing_voxels=5.0,
        )
        is None
    )
