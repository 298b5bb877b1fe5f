"""The mask that was used, written beside the superclass maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from regroup_dask.formats.mrc_writer import write_mrc
from regroup_dask.formats.slabs import slab_ranges
from regroup_dask.formats.volumes import open_map
from regroup_dask.science import masks
from regroup_dask.settings import Settings
from regroup_dask.steps.inputs import Inputs


def write_mask(inputs: Inputs, settings: Settings, folder: Path) -> Path | None:
    """Write ``mask.mrc``, the spherical mask times the given one, in 0..1; None when nothing was masked."""
    if settings.mask_inner_radius is None and inputs.mask is None:
        return None
    path = folder / "mask.mrc"
    voxel_size = inputs.series.voxel_size_angstrom
    write_mrc(path, _slabs(inputs, settings), box=inputs.series.box, voxel_size_angstrom=voxel_size)
    return path


def _slabs(inputs: Inputs, settings: Settings) -> Iterator[np.ndarray]:
    box = inputs.series.box
    given = None if inputs.mask is None else open_map(inputs.mask)
    for begin, end in slab_ranges((box,) * 3):
        planes = np.ones((end - begin, box, box), np.float32)
        if settings.mask_inner_radius is not None:
            radius = settings.mask_inner_radius
            planes = masks.soft_sphere(box, inner_radius_fraction=radius, planes=slice(begin, end))
        if given is not None:
            planes = planes * np.clip(given[begin:end], 0, 1)
        yield planes
