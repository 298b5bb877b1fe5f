"""The contrast of two maps is what a matched filter makes of their shells, and tells what a distance over all shells does not."""

import numpy as np

from regroup_dask.science.noise import shell_coefficients
from regroup_dask.science.reliability import pair_variance, shared_variance
from regroup_dask.science.shell_contrast import shell_contrast
from regroup_dask.science.sparse_similarity import estimate_sparse_similarity


def compared(seed: int, n_maps: int = 30, box: int = 32):
    """Maps of two structures that are alike but for their fine shells, with noise that rises over the signal there."""
    rng = np.random.default_rng(seed)
    coefficients = shell_coefficients(box)
    shells = np.arange(len(coefficients))
    signal = np.exp(-shells / 4)
    noise = 0.05 * 10 ** rng.uniform(-0.5, 0.5, (n_maps, 1)) * np.ones(len(shells))
    structure = np.arange(n_maps) % 2
    apart = 0.3 * (shells / shells[-1])
    pairs = np.array([(i, j) for i in range(n_maps) for j in range(i + 1, n_maps)])
    i, j = pairs.T
    power = (signal + noise) * coefficients
    spread = np.sqrt(coefficients / 2) * np.sqrt(noise[i] * noise[j])
    cross = signal * coefficients * np.where(structure[i] == structure[j], 1.0, 1.0 - apart[:, None]).T
    cross += spread * rng.normal(size=cross.shape)
    given = {"solvent_power": noise * coefficients, "solvent_fraction": np.full(n_maps, 0.6)}
    found = estimate_sparse_similarity(pairs, cross, power[i], power[j], n_maps=n_maps, coefficients=coefficients, **given)
    return pairs, found, structure[i] == structure[j]


def test_same_structures_have_no_contrast_and_others_more_than_their_distance_tells():
    pairs, found, same = compared(1)
    contrast = shell_contrast(pairs, found)
    assert abs(contrast.contrast[same].mean()) < 0.05 * contrast.contrast[~same].mean()
    assert (contrast.contrast[~same].mean() > 0.05).all()

    def told(values: np.ndarray) -> float:
        return float((values[~same].mean() - values[same].mean()) / values[same].std())

    assert told(contrast.contrast) > 1.3 * told(found.distance)


def test_it_is_a_weighted_sum_over_shells():
    """Against the sum written out for one pair."""
    pairs, found, _ = compared(2, n_maps=8)
    contrast = shell_contrast(pairs, found)
    q, own = found.reliability.signal_fraction, shared_variance(found.reliability, found.coefficients)
    i, j = pairs.T
    variance = pair_variance(q[i], q[j], found.coefficients) + own[i] + own[j]
    apart = 1 - found.fsc / np.sqrt(q[i] * q[j])
    known = np.isfinite(apart) & np.isfinite(variance)
    known[:, 0] = False
    far = found.distance > np.median(found.distance)
    expected = np.array(
        [
            max((apart[use, s] / variance[use, s]).sum() / max((1 / variance[use, s]).sum(), 1e-300), 1e-3) if use.any() else 1e-3
            for s, use in enumerate((known & far[:, None]).T)
        ]
    )
    for row in (0, 5, len(pairs) - 1):
        use = known[row]
        weight = expected[use] / variance[row, use]
        scale = expected[1:].mean() / (weight * expected[use]).sum()
        np.testing.assert_allclose(contrast.contrast[row], (weight * apart[row, use]).sum() * scale, rtol=1e-9)
        np.testing.assert_allclose(contrast.sigma[row], np.sqrt((weight**2 * variance[row, use]).sum()) * scale, rtol=1e-9)
    assert contrast.shared_sigma.shape == (8,)
    assert (contrast.shared_sigma > 0).all()


def test_a_pair_without_a_shell_in_common_says_nothing():
    pairs, found, _ = compared(3, n_maps=6)
    blind = found._replace(fsc=np.where(np.arange(len(pairs))[:, None] == 4, np.nan, found.fsc))
    contrast = shell_contrast(pairs, blind)
    assert contrast.contrast[4] == contrast.sigma[4] == 1.0
    assert np.isfinite(contrast.shared_sigma).all()
