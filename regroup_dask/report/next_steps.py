"""What a person does next with a result: files for the next job, all maps in a viewer, another number of superclasses."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from regroup_dask.formats import storage

MOST_NUMBERS = 8


class NextStep(NamedTuple):
    """What for, and the files or the command."""

    purpose: str
    text: str


def next_steps(folder: Path, *, n_superclasses: int, n_classes: int, shown: str) -> tuple[NextStep, ...]:
    """Say how to go on from an output folder, by what it holds.

    Parameters
    ----------
    folder
        The output folder, or the one that becomes it.
    n_superclasses, n_classes
        Superclasses of the run, and classes that took part.
    shown
        The folder as it is written in what is said.
    """
    last = n_superclasses - 1
    steps = []

    def every(name: str, ending: str) -> str:
        first = f"{shown}/{name}/particles_superclass_0{ending}"
        return first if last == 0 else f"{first} to particles_superclass_{last}{ending}"

    if storage.is_folder(folder / "cryosparc"):
        steps.append(
            NextStep(
                "Particles of each superclass, for Import Result Group in CryoSPARC",
                every("cryosparc", ".csg"),
            )
        )
    if storage.is_folder(folder / "relion"):
        steps.append(
            NextStep(
                "Particles of each superclass, for the next job in RELION",
                every("relion", ".star"),
            )
        )
    if storage.is_folder(folder / "volumes.zarr") and not storage.is_remote(folder):
        steps.append(NextStep("All maps in ChimeraX, superclasses coloured as in the report", f"chimerax {shown}/view.cxc"))
    if n_classes > 2:
        highest = min(n_classes - 1, max(MOST_NUMBERS, n_superclasses + 2))
        steps.append(NextStep("Other numbers of superclasses beside each other", f"regroup-dask group {shown} -k 2-{highest}"))
    return tuple(steps)
