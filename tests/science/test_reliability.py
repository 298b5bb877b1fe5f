"""Share of signal in a shell, from each of its sources, against its closed form; variances against drawn noise."""

import numpy as np
import pytest

from regroup_dask.science.reliability import estimate_reliability, pair_variance

SHELLS = 8
COEFFICIENTS = np.full(SHELLS, 4000.0)
SHARE = np.array([0.9, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4])


@pytest.mark.parametrize("source", ["half_maps", "ssnr", "solvent"])
def test_signal_fraction_is_that_of_rosenthal_and_henderson(source):
    # A whole map of signal S and noise N has the share S / (S + N); its halves have noise 2 N each.
    noise = (1 - SHARE) / SHARE
    given = {
        "half_maps": {"half_map_fsc": 1 / (1 + 2 * noise)},
        "ssnr": {"ssnr": 1 / noise},
        "solvent": {"solvent_power": noise, "solvent_fraction": np.array([0.5, 0.5])},
    }[source]
    given = {name: value if name == "solvent_fraction" else np.stack([value, value]) for name, value in given.items()}
    power = np.stack([1 + noise, 1 + noise])
    pair = np.array([[0, 1]])
    found = estimate_reliability(np.zeros((1, SHELLS)), power, coefficients=COEFFICIENTS, pairs=pair, **given)
    assert found.source == (source, source)
    np.testing.assert_allclose(found.signal_fraction[:, 1:], np.stack([SHARE, SHARE])[:, 1:], rtol=1e-6)


def test_variance_of_a_pair_is_that_of_drawn_noise():
    rng = np.random.default_rng(1)
    q, count = np.array([[0.5], [0.25]]), 20
    a, b = ((1 - q) / q)[:, 0]
    noise = rng.normal(scale=np.sqrt(0.5), size=(2, 2, 20000, count))
    first, second = (np.sqrt(power) * (part[0] + 1j * part[1]) for power, part in zip((a, b), noise, strict=True))
    product = (first * second.conj()).real.mean(axis=1)
    assert pair_variance(q[0], q[1], np.array([count]))[0] == pytest.approx(product.var(), rel=0.05)
