"""Regroup the classes of a cryo-EM 3D classification into superclasses of particles and maps, on Dask.

>>> import regroup_dask as rd
>>> volumes = rd.open_volumes("J42/*volume.mrc")
>>> particles = rd.open_particles("J42/J42_particles.cs")
>>> pairs = rd.compare(volumes, align=True, maximum_shift_angstrom=30)
>>> groups = rd.group(pairs, 4)
>>> result = rd.regroup(volumes, particles, n_superclasses=4, align=True, output="OUT")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regroup_dask.api import align, compare, group, open_job, regroup
    from regroup_dask.formats.particles import open_particles
    from regroup_dask.formats.volumes import open_volumes

__version__ = "0.1.0"

_HOMES = {
    "align": "regroup_dask.api",
    "compare": "regroup_dask.api",
    "group": "regroup_dask.api",
    "open_job": "regroup_dask.api",
    "regroup": "regroup_dask.api",
    "open_particles": "regroup_dask.formats.particles",
    "open_volumes": "regroup_dask.formats.volumes",
}

__all__ = ["__version__", "align", "compare", "group", "open_job", "open_particles", "open_volumes", "regroup"]


def __getattr__(name: str) -> Any:
    # What is heavy to import is imported when it is first asked for.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
