"""Masks that follow a particle: not taken for a quiet solvent, and not for a sphere."""

import numpy as np
from scipy import ndimage

from regroup_dask.science import noise

BOX = 32


def _rod(rng, masked):
    """A rod of density in noise that fills the box, with or without a mask two voxels wider than the rod."""
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    away = np.maximum(np.hypot(x, y) - 3, np.maximum(np.abs(z) - 9, 0))
    volume = np.where(away <= 0, 5.0, 0.0) + rng.normal(size=(BOX,) * 3)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((away - 2) / 2.5, 0, 1))
    return (volume * mask if masked else volume).astype(np.float32), mask


def test_mask_that_follows_its_particle_leaves_no_solvent():
    """Taken for solvent, the blank beside the rod would say that the map has next to no noise."""
    for seed in range(4):
        volume, mask = _rod(np.random.default_rng(seed), True)
        found = noise.map_statistics(volume, voxel_size_angstrom=3.0)
        assert np.isnan(found.solvent_power).all()
        assert found.solvent_fraction == 0
        true = float(np.mean(mask**2))
        assert 0.6 * true < found.mask_volume_fraction < 1.7 * true  # a sphere about it holds six times as much
        whole = noise.map_statistics(_rod(np.random.default_rng(seed), False)[0], voxel_size_angstrom=3.0)
        assert whole.solvent_fraction > 0.5


def test_spherical_mask_keeps_its_solvent():
    """Noise of one level all the way to the mask, white or blurred."""
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    radius = np.sqrt(x**2 + y**2 + z**2)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 13) / 2, 0, 1))
    for seed, blur in ((0, 0.0), (1, 0.8), (2, 1.2)):
        field = np.random.default_rng(seed).normal(size=(BOX,) * 3) + np.where(radius < 7, 4.0, 0.0)
        volume = (ndimage.gaussian_filter(field, blur, mode="wrap") * mask).astype(np.float32)
        found = noise.map_statistics(volume, voxel_size_angstrom=3.0)
        assert found.solvent_fraction > 0.01
        assert abs(found.mask_volume_fraction / np.mean(mask**2) - 1) < 0.15
