"""Compare an output folder with the truth of a simulated ribosome job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score


class AgainstTruth(NamedTuple):
    adjusted_rand_index: float
    worst_rotation_degrees: float
    worst_shift_angstrom: float


def against_truth(output: Path, simulation: Path) -> AgainstTruth:
    """Truth: class k is the common density moved by y = R_k x + t_k, so j -> i is R_i R_j^T, t_i - R t_j."""
    truth = json.loads((simulation / "truth.json").read_text())["classes"]
    by_id = {entry["class_index_cryosparc"]: entry for entry in truth}
    rows = [row for row in pq.read_table(output / "classes.parquet").to_pylist() if row["status"] == "grouped"]
    references = {
        row["superclass"]: row["reference_class"] for row in pq.read_table(output / "superclasses.parquet").to_pylist()
    }
    rotation_errors, shift_errors = [], []
    for row in rows:
        assert not row["mirrored"]
        mine, reference = by_id[row["class_id"]], by_id[references[row["superclass"]]]
        true_rotation = np.array(reference["rotation_matrix"]) @ np.array(mine["rotation_matrix"]).T
        true_shift = np.array(reference["shift_A"]) - true_rotation @ np.array(mine["shift_A"])
        found = Rotation.from_quat(row["rotation_quaternion"])
        rotation_errors.append(np.rad2deg((found * Rotation.from_matrix(true_rotation).inv()).magnitude()))
        shift_errors.append(np.linalg.norm(np.array(row["shift_angstrom"]) - true_shift))
    true_labels = [by_id[row["class_id"]]["superclass"] for row in rows]
    return AgainstTruth(
        adjusted_rand_score(true_labels, [row["superclass"] for row in rows]),
        float(max(rotation_errors)),
        float(max(shift_errors)),
    )
