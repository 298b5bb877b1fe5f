"""What a mask does to noise, against noise that was drawn and masked."""

import numpy as np
from scipy import fft

from regroup_dask.science import noise
from regroup_dask.science.masked_noise import shell_leak, ssnr_under_mask
from tests.benchmarks.grouping_problems import soft_sphere

BOX = 24
SHELLS = BOX // 2 + 1
INDEX = noise.shell_index(BOX)
COUNT = 2 * noise.shell_coefficients(BOX)
STEEP = 1 / (1 + (np.arange(SHELLS) / 4.0) ** 8)


def _power(volume):
    return noise._shell_sums(np.abs(fft.rfftn(volume)) ** 2, BOX) / COUNT


def _drawn(rng):
    amplitude = np.sqrt(np.append(STEEP, 0.0))[np.minimum(INDEX, SHELLS)]
    return fft.irfftn(fft.rfftn(rng.normal(size=(BOX,) * 3)) * amplitude, (BOX,) * 3)


def test_leak_is_that_of_drawn_noise():
    rng = np.random.default_rng(0)
    mask = soft_sphere(BOX, 7.0, 2.0)
    drawn = np.mean([_power(_drawn(rng) * mask) for _ in range(60)], axis=0) / BOX**3
    leak = shell_leak(_power(mask) / BOX**6)
    np.testing.assert_allclose((leak @ STEEP)[1:], drawn[1:], rtol=0.12)
    # White noise keeps the share of the mask, but for what comes from beyond the finest shell.
    np.testing.assert_allclose(leak.sum(axis=1)[:6], np.mean(mask**2), rtol=0.05)


def test_ratio_of_whole_maps_becomes_that_of_masked_ones():
    mask = soft_sphere(BOX, 7.0, 2.0)
    leak = shell_leak(_power(mask) / BOX**6)
    signal = 30 * STEEP / (1 + np.arange(SHELLS)) ** 2
    masked_noise = leak @ STEEP
    ssnr = np.stack([signal / STEEP, np.full(SHELLS, np.nan), np.zeros(SHELLS)])
    found = ssnr_under_mask(ssnr, np.stack([signal + masked_noise] * 3), leak)
    np.testing.assert_allclose(found[0, :9], (signal / masked_noise)[:9], rtol=0.05)
    # Above that there was next to nothing of either.
    assert (found[0, 9:] < 0.5 * (ssnr[0] / np.mean(mask**2))[9:]).all()
    assert np.isnan(found[1]).all()
    assert (found[2] == 0).all()
