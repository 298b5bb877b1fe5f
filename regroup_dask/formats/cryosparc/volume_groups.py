"""Superclass maps as CryoSPARC results: volumes, the series of all of them, and the mask.

The maps are hard-linked (copied where links cannot be made) beside the groups and named with ``>``, relative
to the group, so that the folder can be moved or handed over as it is.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from regroup_dask.formats.cryosparc.record_file import write_records
from regroup_dask.formats.cryosparc.result_group import ResultSlot, write_result_group
from regroup_dask.formats.links import link_or_copy
from regroup_dask.formats.regroup_plan import SuperclassMaps


def write_volume_groups(folder: str, maps: SuperclassMaps) -> tuple[str, ...]:
    """Write ``volume_superclass_K``, ``volumes_all_superclasses`` and ``mask``; return the files made."""
    made: list[str] = []
    for number, path in enumerate(maps.paths):
        name = f"volume_superclass_{number}"
        made += _write_group(folder, maps, name, path, kind="volume", slot="map", title=f"Volume superclass {number}")
    if maps.series_zip is not None:
        name = "volumes_all_superclasses"
        made += _write_group(
            folder,
            maps,
            name,
            maps.series_zip,
            kind="volume_multi",
            slot="series",
            title="All superclass volumes",
        )
    if maps.mask is not None:
        made += _write_group(folder, maps, "mask", maps.mask, kind="mask", slot="mask", title="Mask")
    return tuple(made)


def _write_group(
    folder: str, maps: SuperclassMaps, name: str, source: str, *, kind: str, slot: str, title: str
) -> list[str]:
    target = os.path.join(folder, name + os.path.splitext(source)[1])
    link_or_copy(source, target)
    reference = f">{os.path.basename(target)}".encode()
    fields = [
        ("uid", "<u8"),
        (f"{slot}/path", f"S{len(reference)}"),
        (f"{slot}/shape", "<u4", (3,)),
        (f"{slot}/psize_A", "<f4"),
    ]
    record = np.zeros(1, np.dtype(fields))
    record["uid"] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    record[f"{slot}/path"] = reference
    record[f"{slot}/shape"] = maps.box
    record[f"{slot}/psize_A"] = maps.voxel_size_angstrom
    metafile = os.path.join(folder, f"{name}.cs")
    write_records(metafile, record)
    group = os.path.join(folder, f"{name}.csg")
    write_result_group(
        group,
        name=name,
        title=title,
        description="",
        type=kind,
        slots={slot: ResultSlot(f"{name}.cs", 1, f"{kind}.blob")},
    )
    return [target, metafile, group]
