"""OME-Zarr metadata for a store of maps, so that napari, neuroglancer and other viewers open it with axes and scale.

OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5): one multiscale image of one level, its first axis the superclasses as
channels, then z, y, x in angstrom. To xarray it is an attribute of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

VERSION = "0.5"
SPACE = ("z", "y", "x")


def ome_attributes(
    array: str,
    *,
    channel_axis: str,
    box: int,
    voxel_size_angstrom: float,
    channels: Sequence[str],
    colours: Sequence[str],
    windows: Sequence[tuple[float, float]],
) -> dict[str, Any]:
    """Return the ``ome`` attribute of a group that holds one array (channel, z, y, x).

    Parameters
    ----------
    array
        Path of the array in the group.
    channel_axis
        Name of its first dimension.
    box
        Voxels per axis; coordinates count from the origin voxel ``box // 2``.
    voxel_size_angstrom
        Of the maps.
    channels, colours
        Name and ``#rrggbb`` of each map.
    windows
        Lowest and highest density of each map.
    """
    first = -(box // 2) * float(voxel_size_angstrom)
    scale = [1.0, *[float(voxel_size_angstrom)] * len(SPACE)]
    return {
        "version": VERSION,
        "multiscales": [
            {
                "name": array,
                "axes": [
                    {"name": channel_axis, "type": "channel"},
                    *({"name": name, "type": "space", "unit": "angstrom"} for name in SPACE),
                ],
                "datasets": [
                    {
                        "path": array,
                        "coordinateTransformations": [
                            {"type": "scale", "scale": scale},
                            {"type": "translation", "translation": [0.0, *[first] * len(SPACE)]},
                        ],
                    }
                ],
            }
        ],
        "omero": {
            "channels": [
                {
                    "label": name,
                    "color": colour.lstrip("#").upper(),
                    "active": True,
                    # What is less dense than nothing is noise.
                    "window": {"min": low, "max": high, "start": max(low, min(0.0, high)), "end": high},
                }
                for name, colour, (low, high) in zip(channels, colours, windows, strict=True)
            ]
        },
    }


def write_ome_metadata(path: str | Path, attributes: dict[str, Any]) -> None:
    """Write the ``ome`` attribute of a group; the store opens in xarray as before."""
    group = zarr.open_group(str(path), mode="r+", zarr_format=3, use_consolidated=False)
    group.attrs["ome"] = attributes
