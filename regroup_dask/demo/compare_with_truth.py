"""Compare the output of a run on the demo's job with what the simulation knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from scipy.spatial.transform import Rotation

from regroup_dask.demo.truth import PARTICLES_FILE, ClassTruth, DemoTruth


class DemoComparison(NamedTuple):
    """How well a run found the truth again.

    Attributes
    ----------
    adjusted_rand_index : float
        Of the grouped classes' superclasses against their states; 1 is perfect, 0 is chance.
    worst_rotation_degrees, worst_shift_angstrom : float
        Of a class's pose into its superclass's frame; only classes that share a state with their reference
        count.
    particles_right : float
        Share of the particles in superclasses whose true state is the one that their superclass is named for:
        the state of most of its classes. Particles in a class of a wrong state cannot be right.
    lines : tuple of str
        For a person.
    """

    adjusted_rand_index: float
    worst_rotation_degrees: float
    worst_shift_angstrom: float
    particles_right: float
    lines: tuple[str, ...]


def compare_with_truth(output_folder: str | Path, truth: DemoTruth) -> DemoComparison:
    """Compare.

    Parameters
    ----------
    output_folder : str or Path
        Of the run: classes.parquet, superclasses.parquet and particles/ are read.
    truth : DemoTruth

    Returns
    -------
    DemoComparison
    """
    from sklearn.metrics import adjusted_rand_score

    output = Path(output_folder)
    rows = pyarrow.parquet.read_table(output / "classes.parquet").to_pylist()
    references = {
        row["superclass"]: row["reference_class"]
        for row in pyarrow.parquet.read_table(output / "superclasses.parquet").to_pylist()
    }
    truths = {one.class_id: one for one in truth.classes}
    grouped = [row for row in rows if row["superclass"] >= 0]
    labels = [row["superclass"] for row in grouped]
    states = [truths[row["class_id"]].state for row in grouped]
    index = float(adjusted_rand_score(states, labels)) if grouped else 0.0
    errors = [
        _pose_error(row, truths[row["class_id"]], truths[references[row["superclass"]]])
        for row in grouped
        if truths[row["class_id"]].state == truths[references[row["superclass"]]].state
    ]
    worst_rotation = max((angle for angle, _ in errors), default=float("nan"))
    worst_shift = max((distance for _, distance in errors), default=float("nan"))
    state_of_superclass = {
        superclass: _most_common(
            [state for state, label in zip(states, labels, strict=True) if label == superclass]
        )
        for superclass in sorted(set(labels))
    }
    right = _particles_right(output, truth, state_of_superclass)
    left_out = [row for row in rows if row["superclass"] < 0]
    lines = [
        f"superclass {superclass}: {_named(truth, state)}, "
        f"{sum(label == superclass for label in labels)} of "
        f"{sum(one.state == state for one in truth.classes)} classes"
        for superclass, state in state_of_superclass.items()
    ]
    lines += [
        f"class {row['class_id']} left out ({row['status'].replace('_', ' ')}): {_named(truth, truths[row['class_id']].state)}"
        for row in left_out
    ]
    lines += [
        f"superclasses against true states: adjusted Rand index {index:.3f} (1 is perfect)",
        f"poses of classes: worst rotation {worst_rotation:.2f} degrees, worst shift {worst_shift:.2f} A "
        f"(a voxel is {truth.voxel_size_angstrom:g} A)",
        f"particles in the superclass of their true state: {right:.1%} (3% were put into a wrong class on "
        "purpose)",
    ]
    return DemoComparison(index, worst_rotation, worst_shift, right, tuple(lines))


def _pose_error(row: dict[str, Any], one: ClassTruth, reference: ClassTruth) -> tuple[float, float]:
    """Angle between found and true rotation, and how far the complex's middle is from its place."""
    if row["mirrored"]:
        return 180.0, float("inf")
    found = Rotation.from_quat(row["rotation_quaternion"]).as_matrix()
    rotation, reference_rotation = np.array(one.rotation), np.array(reference.rotation)
    true = reference_rotation @ rotation.T
    angle = Rotation.from_matrix(found @ true.T).magnitude()
    # the middle of the complex lies at t in each class map
    middle = found @ np.array(one.shift_angstrom) + np.array(row["shift_angstrom"])
    return float(np.rad2deg(angle)), float(np.linalg.norm(middle - np.array(reference.shift_angstrom)))


def _particles_right(output: Path, truth: DemoTruth, state_of_superclass: dict[int, int]) -> float:
    partitioning = pyarrow.dataset.partitioning(pa.schema([("superclass", pa.int32())]), flavor="hive")
    found = pyarrow.dataset.dataset(
        output / "particles", partitioning=partitioning, format="parquet"
    ).to_table(columns=["uid", "superclass"])
    known = pyarrow.parquet.read_table(Path(truth.folder) / PARTICLES_FILE)
    uid, state = known["uid"].to_numpy(), known["state"].to_numpy()
    order = np.argsort(uid)
    place = order[np.searchsorted(uid[order], found["uid"].to_numpy())]
    superclasses = found["superclass"].to_numpy()
    given = np.array([state_of_superclass.get(int(one), -2) for one in np.unique(superclasses)])
    return float((given[np.searchsorted(np.unique(superclasses), superclasses)] == state[place]).mean())


def _most_common(states: list[int]) -> int:
    values, counts = np.unique(states, return_counts=True)
    return int(values[np.argmax(counts)])


def _named(truth: DemoTruth, state: int) -> str:
    return truth.states[state] if state >= 0 else "junk"
