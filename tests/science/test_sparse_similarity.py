"""The similarity of a list of pairs is that of the dense table, for the pairs that are listed."""

import numpy as np
import pytest

from regroup_dask.science.noise import shell_coefficients
from regroup_dask.science.similarity import estimate_similarity
from regroup_dask.science.sparse_similarity import estimate_sparse_similarity


@pytest.mark.parametrize("known_noise", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_same_as_the_dense_table(known_noise, share):
    rng = np.random.default_rng(int(10 * share))
    n, box = 24, 32
    coefficients = shell_coefficients(box)
    shells = len(coefficients)
    falloff = np.exp(-np.arange(shells) / 6)
    noise = falloff.mean() * 10 ** rng.uniform(-2, 0, (n, 1)) * np.ones(shells)
    gain = rng.uniform(0.5, 2, n)
    structure = np.arange(n) % 3
    power = (gain[:, None] ** 2) * (falloff + noise) * coefficients
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n) if j == i + 1 or rng.random() < share])
    cross, fixed, moving = (np.full((n, n, shells), np.nan) for _ in range(3))
    for i, j in pairs:
        same = 1.0 if structure[i] == structure[j] else 0.9
        random = rng.normal(size=shells) * np.sqrt(coefficients) * 0.05
        value = gain[i] * gain[j] * falloff * (same * coefficients + random)
        cross[i, j] = cross[j, i] = value
        fixed[i, j], moving[i, j] = power[i], power[j] * 0.999
        fixed[j, i], moving[j, i] = power[j] * 0.999, power[i]
    given = {
        "coefficients": coefficients,
        "solvent_power": (gain[:, None] ** 2) * noise * coefficients if known_noise else None,
        "solvent_fraction": np.full(n, 0.4),
        "mask_volume_fraction": 0.5,
    }
    i, j = pairs.T
    dense = estimate_similarity(cross, fixed, moving, **given)
    sparse = estimate_sparse_similarity(pairs, cross[i, j], fixed[i, j], moving[i, j], n_maps=n, **given)
    np.testing.assert_allclose(sparse.correlation, dense.correlation[i, j], atol=1e-12)
    np.testing.assert_allclose(sparse.distance, dense.distance[i, j], atol=1e-9)
    np.testing.assert_allclose(sparse.distance_sigma, dense.distance_sigma[i, j], rtol=1e-9)
    np.testing.assert_allclose(sparse.similarity, dense.similarity[i, j], atol=1e-9)
    np.testing.assert_allclose(sparse.signal_fraction, dense.signal_fraction, atol=1e-12)
    np.testing.assert_allclose(sparse.information, dense.information)
    np.testing.assert_allclose(sparse.shared_sigma, dense.shared_sigma)
