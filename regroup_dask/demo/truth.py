"""What the simulation knows and a run has to find again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from regroup_dask.errors import InputError

TRUTH_FILE = "truth.json"
PARTICLES_FILE = "truth_particles.parquet"


@dataclass(frozen=True)
class ClassTruth:
    """One class.

    Attributes
    ----------
    class_id : int
    state : int
        -1 for junk.
    share : float
        Of the particles.
    resolution_angstrom : float
    gain : float
    rotation : list of list of float
        R of y = R x + t, which takes the frame of the states into the class map.
    shift_angstrom : list of float
    """

    class_id: int
    state: int
    share: float
    resolution_angstrom: float
    gain: float
    rotation: list[list[float]]
    shift_angstrom: list[float]


@dataclass(frozen=True)
class DemoTruth:
    """The whole simulation.

    Attributes
    ----------
    folder : str
        Holds the job, `truth.json` and `truth_particles.parquet` (uid, state).
    seed, box : int
    voxel_size_angstrom : float
    n_particles : int
    states : list of str
    classes : list of ClassTruth
        By class id.
    """

    folder: str
    seed: int
    box: int
    voxel_size_angstrom: float
    n_particles: int
    states: list[str]
    classes: list[ClassTruth]


def write_truth(truth: DemoTruth) -> None:
    """Write truth.json into the truth's folder."""
    content = asdict(truth)
    del content["folder"]
    (Path(truth.folder) / TRUTH_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_truth(folder: str | Path) -> DemoTruth:
    """Read the truth of an earlier demo.

    Raises
    ------
    InputError
        The folder was not made by the demo.
    """
    path = Path(folder) / TRUTH_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["classes"] = [ClassTruth(**one) for one in content["classes"]]
        return DemoTruth(folder=str(folder), **content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the truth of a demo: {error}.") from error
