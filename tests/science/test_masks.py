"""Masks have the shape they say; the particle is found where it lies, through noise and masks."""

import numpy as np
import pytest

from regroup_dask.science.masks import estimate_extent, soft_sphere
from tests.science.particles import blobs, render


@pytest.mark.parametrize("box", [32, 33])
def test_soft_sphere_is_one_inside_and_zero_outside(box):
    mask = soft_sphere(box, inner_radius_fraction=0.6, edge_fraction=0.2)
    assert mask.dtype == np.float32
    axis = np.arange(box) - box // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    assert (mask[radius <= 0.3 * box] == 1).all()
    assert (mask[radius >= 0.4 * box] == 0).all()
    middle = np.abs(radius - 0.35 * box) < 0.02 * box
    np.testing.assert_allclose(mask[middle], 0.5, atol=0.35)


@pytest.mark.parametrize(("snr", "masked"), [(None, True), (0.1, True), (0.1, False)])
def test_particle_is_found(snr, masked):
    rng = np.random.default_rng(4)
    centres, masses = blobs(rng, radius=14.0, count=80)
    centre = masses @ centres / masses.sum() + np.array([5.0, -4.0, 2.0])
    volume = render(centres, masses, box=64, shift=np.array([5.0, -4.0, 2.0]))
    if snr is not None:
        inside = volume > 0.05 * volume.max()
        volume = volume + rng.normal(scale=np.sqrt(volume[inside].var() / snr), size=volume.shape)
    if masked:
        volume = volume * soft_sphere(64, inner_radius_fraction=0.85)
    extent = estimate_extent(volume.astype(np.float32))
    assert np.linalg.norm(extent.centre_voxels - centre) < 2.5
    assert 10.0 < extent.radius_voxels < 20.0


def test_an_empty_map_has_an_extent_too():
    extent = estimate_extent(np.zeros((16, 16, 16), np.float32))
    np.testing.assert_array_equal(extent.centre_voxels, 0)
    assert extent.radius_voxels == 8.0
