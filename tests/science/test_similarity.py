"""The distance is unbiased and its sigma calibrated, on maps made by closed form."""

import numpy as np
import pytest
from scipy import fft

from regroup_dask.science import noise
from regroup_dask.science.similarity import estimate_similarity
from regroup_dask.science.sparse_similarity import transfer_loss, transfer_slopes

BOX = 24
COEFFICIENTS = noise.shell_coefficients(BOX)


def _structure(seed, box=BOX):
    """A structure whose power falls with the shell, in a ball, as a map."""
    rng = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    r2 = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    shell = noise.shell_index(box)
    smooth = fft.irfftn(fft.rfftn(rng.normal(size=(box,) * 3)) / (1 + (shell / 3.0) ** 2), (box,) * 3)
    return smooth * np.exp(-r2 / (2 * (box / 6) ** 2)) * 10


def _powers(maps):
    n = len(maps)
    cross = np.zeros((n, n, BOX // 2 + 1))
    spectra = [fft.rfftn(m) for m in maps]
    for i in range(n):
        for j in range(n):
            cross[i, j] = noise._shell_sums((spectra[i] * spectra[j].conj()).real, BOX)
    power = cross[np.arange(n), np.arange(n)]
    return cross, np.repeat(power[:, None], n, 1), np.repeat(power[None], n, 0)


def _noise_power(sigma):
    return sigma**2 * BOX**3 * 2 * COEFFICIENTS


@pytest.mark.parametrize("gain", [1.0, 7.0])
def test_distance_is_unbiased_and_sigma_calibrated(gain):
    """Two maps of one structure, one three times as noisy: zero on average, and z of unit spread."""
    structure = _structure(0)
    sigmas = np.array([0.3, 0.9]) * structure.std() * 2
    distances, z = [], []
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        maps = [structure + s * rng.normal(size=structure.shape) for s in sigmas]
        maps[1] = maps[1] * gain
        known = np.stack([_noise_power(sigmas[0]), _noise_power(sigmas[1]) * gain**2])
        found = estimate_similarity(
            *_powers(maps), coefficients=COEFFICIENTS, solvent_power=known, solvent_fraction=np.ones(2)
        )
        distances.append(found.distance[0, 1])
        z.append(found.distance[0, 1] / found.distance_sigma[0, 1])
        assert found.correlation[0, 1] < 0.95
    assert abs(np.mean(distances)) < 4 * np.std(distances) / np.sqrt(len(distances)) + 0.002
    assert 0.2 < np.std(z) < 1.5


def test_similarity_is_the_correlation_without_noise():
    """Two structures of known correlation, at unequal noise: the estimate is near it."""
    first, other = _structure(1), _structure(2)
    second = first + 0.5 * other
    true = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    rng = np.random.default_rng(0)
    maps, known = [], []
    for structure in (first, first, second, second):
        sigma = first.std() * rng.uniform(0.3, 1.0)
        maps.append(structure + sigma * rng.normal(size=first.shape))
        known.append(_noise_power(sigma))
    found = estimate_similarity(
        *_powers(maps),
        coefficients=COEFFICIENTS,
        solvent_power=np.stack(known),
        solvent_fraction=np.ones(4),
    )
    assert abs(found.similarity[0, 2] - true) < 0.06
    assert found.similarity[0, 1] > 0.97
    assert found.distance[0, 2] / found.distance_sigma[0, 2] > 4
    np.testing.assert_array_equal(found.similarity, found.similarity.T)
    np.testing.assert_array_equal(np.diag(found.similarity), 1)


def test_sources_of_noise_in_order_of_trust():
    structure = _structure(3)
    rng = np.random.default_rng(0)
    maps = [structure + 0.2 * structure.std() * rng.normal(size=structure.shape) for _ in range(4)]
    known = np.stack([_noise_power(0.2 * structure.std())] * 4)
    fsc, ssnr = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    signal = _powers([structure])[1][0, 0]
    ssnr[:2] = signal / known[:2]
    fsc[0] = signal / (signal + 2 * known[0])
    known[3] = np.nan
    found = estimate_similarity(
        *_powers(maps), coefficients=COEFFICIENTS, solvent_power=known, half_map_fsc=fsc, ssnr=ssnr
    )
    assert found.noise_source == ("half_maps", "ssnr", "solvent", "maps")
    assert np.abs(found.distance).max() < 0.05


def test_pairs_that_were_not_compared_stay_unknown():
    maps = [_structure(4)] * 3
    cross, fixed, moving = (x.copy() for x in _powers(maps))
    for array in (cross, fixed, moving):
        array[0, 2] = array[2, 0] = np.nan
    found = estimate_similarity(cross, fixed, moving, coefficients=COEFFICIENTS)
    assert np.isnan(found.similarity[0, 2])
    assert np.isfinite(found.similarity[0, 1])


def test_one_triangle_is_enough():
    rng = np.random.default_rng(0)
    maps = [_structure(4) + 0.1 * rng.normal(size=(BOX,) * 3) for _ in range(3)]
    whole = _powers(maps)
    upper = np.triu(np.ones((3, 3), bool))[:, :, None]
    half = [np.where(upper, array, np.nan) for array in whole]
    first = estimate_similarity(*whole, coefficients=COEFFICIENTS)
    second = estimate_similarity(*half, coefficients=COEFFICIENTS)
    np.testing.assert_allclose(first.distance, second.distance, atol=1e-12)
    np.testing.assert_allclose(first.correlation, second.correlation, atol=1e-12)


def test_pure_noise_has_no_information():
    structure = _structure(5)
    sigma = structure.std()
    rng = np.random.default_rng(1)
    maps = [structure + 0.2 * sigma * rng.normal(size=structure.shape) for _ in range(3)]
    maps.append(sigma * rng.normal(size=structure.shape))
    known = np.stack([_noise_power(0.2 * sigma)] * 3 + [_noise_power(sigma)])
    found = estimate_similarity(
        *_powers(maps), coefficients=COEFFICIENTS, solvent_power=known, solvent_fraction=np.ones(4)
    )
    assert found.information[3] < 3 < found.information[:3].min()
    assert np.isfinite(found.similarity).all()


def test_transfer_loss_is_what_slopes_within_a_shell_cost():
    """Correlation over a unit interval of exp(t x) and exp(u x), against the closed form for small slopes."""
    x = np.linspace(-0.5, 0.5, 2001)
    shells = np.arange(12)
    slopes = np.array([-0.6, 0.1])
    f = np.exp(slopes[:, None] * x)
    lost = (f[0] * f[1]).mean() / np.sqrt((f[0] ** 2).mean() * (f[1] ** 2).mean())
    power = np.exp(2 * slopes[:, None] * shells[None])
    found = transfer_slopes(power, np.ones_like(power))
    np.testing.assert_allclose(found[:, 5], slopes)
    assert abs(lost / transfer_loss(found[0] - found[1])[5] - 1) < 0.1 * (1 - lost)
