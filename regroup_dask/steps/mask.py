"""The mask that was used, written beside the superclass maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regroup_dask.formats.mrc_writer import write_mrc
from regroup_dask.formats.volumes import open_map
from regroup_dask.science import masks
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import Inputs


def write_mask(inputs: Inputs, settings: Settings, folder: Path) -> Path | None:
    """Write ``mask.mrc``, the spherical mask times the given one, in 0..1; None when nothing was masked."""
    box = inputs.series.box
    mask = None
    if settings.mask_inner_radius is not None:
        mask = masks.soft_sphere(box, inner_radius_fraction=settings.mask_inner_radius)
    if inputs.mask is not None:
        given = np.clip(np.asarray(open_map(inputs.mask)), 0, 1)
        mask = given if mask is None else mask * given
    if mask is None:
        return None
    path = folder / "mask.mrc"
    write_mrc(path, mask, voxel_size_angstrom=inputs.series.voxel_size_angstrom)
    return path
