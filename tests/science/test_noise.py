import numpy as np
import pytest
from scipy import fft

from regroup_dask.science import fourier, noise


def _white(box, seed=0):
    return np.random.default_rng(seed).normal(size=(box, box, box)).astype(np.float32)


def _ball(box, radius, centre=(0, 0, 0)):
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis - centre[0], axis - centre[1], axis - centre[2], indexing="ij")
    return (1 / (1 + np.exp(2 * (np.sqrt(x**2 + y**2 + z**2) - radius)))).astype(np.float32)


@pytest.mark.parametrize("box", [31, 32])
def test_shell_coefficients_count_the_sphere(box):
    counts = noise.shell_coefficients(box)
    k = np.arange(box) - box // 2
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    expected = np.bincount(np.rint(radius).astype(int).ravel())[: box // 2 + 1] / 2
    np.testing.assert_allclose(counts, expected)


def test_power_is_parseval():
    volume = _white(16)
    power = noise._shell_sums(np.abs(fft.rfftn(volume)) ** 2, 16)
    full = np.abs(fft.fftn(volume)) ** 2
    k = np.abs(fft.fftfreq(16, 1 / 16))
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    direct = np.bincount(np.rint(radius).astype(int).ravel(), full.ravel())[:9]
    np.testing.assert_allclose(power, direct, rtol=1e-5)


@pytest.mark.parametrize("edge", [1.0, 2.0])
@pytest.mark.parametrize("inner", [9.0, 11.5])
def test_noise_that_a_soft_mask_leaves_counts_its_edge(inner, edge):
    box = 32
    axis = np.arange(box) - box // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - inner) / edge, 0, 1))
    shares = [
        noise.map_statistics((_white(box, seed) + 3 * _ball(box, 6.0)) * mask, voxel_size_angstrom=2.0).mask_volume_fraction
        for seed in range(4)
    ]
    assert np.mean(shares) == pytest.approx((mask**2).mean(), rel=0.06)


@pytest.mark.parametrize(("level", "blur"), [(0.1, 0.9), (0.5, 0.9), (0.1, 0.0)])
@pytest.mark.parametrize("box", [36, 48])
def test_mask_is_told_from_the_fall_of_the_particle_and_from_the_ringing_of_a_crop(box, level, blur):
    axis = (np.arange(box) - box // 2) * 36 / box
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 13.5) / 2, 0, 1))
    filtered = np.exp(-2 * np.pi**2 * (blur * box / 36) ** 2 * sum(k**2 for k in np.meshgrid(*[fft.fftfreq(box)] * 3)))
    smooth = fft.ifftn(fft.fftn(level * _white(box)) * filtered).real
    volume = ((4 * np.exp(-(radius**2) / 18) + smooth) * mask).astype(np.float32)
    found = noise.map_statistics(fourier.fourier_crop(volume, 36) if box > 36 else volume, voxel_size_angstrom=2.0)
    assert found.mask_volume_fraction == pytest.approx((mask**2).mean(), rel=0.2)


@pytest.mark.parametrize("box", [24, 33, 48])
@pytest.mark.parametrize("width", [0.16, 0.2, 0.24])
def test_a_blurred_particle_that_falls_off_as_far_as_the_corners_has_no_mask(box, width):
    axis = np.arange(box) - box // 2
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    volume = np.exp(-squared / (2 * (width * box) ** 2)).astype(np.float32)
    found = noise.map_statistics(volume, voxel_size_angstrom=2.0)
    assert found.mask_radius_angstrom == np.inf
    assert found.mask_volume_fraction == 1.0


@pytest.mark.parametrize("radius", [3.0, 8.0, 12.0])
@pytest.mark.parametrize("masked", [False, True])
def test_solvent_power_finds_coloured_noise(radius, masked):
    """Mean over draws of the solvent estimate equals the power that the noise was made with."""
    box = 32
    shells = noise.shell_index(box)
    colour = 1 / (1 + (np.minimum(shells, 17) / 5.0) ** 2)
    coefficients = 2 * noise.shell_coefficients(box)
    true = np.array([colour[shells == s][0] ** 2 for s in range(17)]) * box**3 * coefficients
    estimates = []
    for seed in range(12):
        volume = fft.irfftn(fft.rfftn(_white(box, seed)) * colour, (box,) * 3).astype(np.float32)
        volume += 3 * _ball(box, radius)
        if masked:
            volume *= _ball(box, 15.5)
        statistics = noise.map_statistics(volume, voxel_size_angstrom=2.0)
        assert np.isfinite(statistics.mask_radius_angstrom) == masked
        assert abs(statistics.particle_radius_angstrom / 2 - radius) < 5
        if statistics.solvent_fraction:
            estimates.append(statistics.solvent_power / true / statistics.mask_volume_fraction)
    if not masked or radius < 12:
        assert len(estimates) == 12
        assert np.abs(np.mean(estimates, axis=0)[3:] - 1).max() < (0.35 if masked else 0.2)
        assert abs(np.mean(np.mean(estimates, axis=0)[3:]) - 1) < 0.05


def test_half_maps_give_signal_fraction():
    box = 32
    signal = _ball(box, 8) * 10
    first, second = signal + _white(box, 1), signal + _white(box, 2)
    statistics = noise.map_statistics(
        (first + second) / 2, voxel_size_angstrom=2.0, half_maps=(first, second)
    )
    power = noise._shell_sums(np.abs(fft.rfftn(signal)) ** 2, box)
    expected = power / (power + box**3 * noise.shell_coefficients(box))
    np.testing.assert_allclose(statistics.signal_fraction[1:4], expected[1:4], atol=0.1)
    assert statistics.half_map_fsc[1] > 0.9


def test_half_maps_of_known_power_give_the_signal_fraction_of_their_mean():
    box, noise_variance = 32, 1.5
    signal = _white(box, 3)
    first, second = (signal + np.sqrt(noise_variance) * _white(box, seed) for seed in (4, 5))
    got = noise.map_statistics((first + second) / 2, voxel_size_angstrom=2.0, half_maps=(first, second))
    shells = slice(6, 15)  # thousands of coefficients each
    assert np.mean(got.half_map_fsc[shells]) == pytest.approx(1 / (1 + noise_variance), abs=0.02)
    assert np.mean(got.signal_fraction[shells]) == pytest.approx(1 / (1 + noise_variance / 2), abs=0.02)


def test_identical_maps_correlate_fully():
    volume = _white(16)
    np.testing.assert_allclose(noise.fourier_shell_correlation(volume, 3 * volume), 1, atol=1e-5)


def test_noise_free_and_empty_maps_do_not_fail():
    for volume in (_ball(32, 8), np.zeros((32, 32, 32), np.float32), _white(32)):
        statistics = noise.map_statistics(volume, voxel_size_angstrom=2.0)
        assert statistics.particle_radius_angstrom > 0
        assert statistics.resolution_angstrom >= 4.0 - 1e-6
    with pytest.raises(ValueError, match="cube"):
        noise.map_statistics(np.zeros((4, 4, 5)), voxel_size_angstrom=1.0)
