"""The table of classes: size, resolution, noise, place, pose and how sure each is."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from regroup_dask.report.colours import superclass_colour
from regroup_dask.report.output_contents import OutputContents
from regroup_dask.science.rotations import quaternion_to_matrix, rotation_angle_degrees

CONTRADICTION_DEGREES = 10.0


def class_rows(contents: OutputContents) -> list[dict[str, Any]]:
    """One row of numbers per input class, in the order of superclass and size."""
    rows = sorted(
        contents.classes,
        key=lambda row: (row["superclass"] < 0, row["superclass"], -(row["n_particles"] or 0), row["class_id"]),
    )
    return [_row(row, contents) for row in rows]


def _row(row: dict[str, Any], contents: OutputContents) -> dict[str, Any]:
    class_id = row["class_id"]
    grouped = row["superclass"] >= 0
    statistics = class_statistics(contents.class_maps, class_id)
    pose = pose_words(row) if grouped else {}
    return {
        "class_id": class_id,
        "name": row["name"],
        "superclass": row["superclass"],
        "colour": superclass_colour(row["superclass"]),
        "particles": row["n_particles"],
        "status": str(row["status"]).replace("_", " "),
        "similarity": row.get("similarity_to_superclass"),
        "stability": row.get("stability"),
        "note": row.get("note") or "",
        "is_reference": any(entry["reference_class"] == class_id for entry in contents.superclasses),
        "confidence": alignment_confidence(contents.pairs, contents.groups, class_id) if grouped else None,
        **statistics,
        **pose,
    }


def class_statistics(class_maps: xr.Dataset | None, class_id: int) -> dict[str, float | None]:
    """Resolution, radius and share of signal of a class map, each None where not known."""
    names = ("resolution_angstrom", "particle_radius_angstrom", "signal_share")
    if class_maps is None or class_id not in class_maps["class_id"].values:
        return dict.fromkeys(names)
    entry = class_maps.sel(class_id=class_id)
    found: dict[str, float | None] = {}
    for name in names[:2]:
        value = float(entry[name]) if name in entry else np.nan
        found[name] = value if np.isfinite(value) else None
    found["signal_share"] = None
    if "map_power" in entry:
        power = entry["map_power"].values[1:]
        if "signal_fraction" in entry:
            signal = entry["signal_fraction"].values[1:] * power
        elif "solvent_power" in entry:
            signal = power - entry["solvent_power"].values[1:]
        else:
            return found
        known = np.isfinite(signal) & np.isfinite(power)
        if known.any() and power[known].sum() > 0:
            found["signal_share"] = float(np.clip(signal[known].sum() / power[known].sum(), 0, 1))
    return found


def pose_words(row: dict[str, Any]) -> dict[str, Any]:
    """Rotation angle, axis, length of the shift and hand of a class's pose into its superclass frame."""
    turn = Rotation.from_quat(row["rotation_quaternion"]).as_rotvec()
    angle = float(np.linalg.norm(turn))
    shift = [float(value) for value in row["shift_angstrom"]]
    return {
        "rotation_degrees": float(np.degrees(angle)),
        "axis": None if angle < 1e-6 else (turn / angle).round(2).tolist(),
        "shift_angstrom": float(np.linalg.norm(shift)),
        "shift": shift,
        "hand": "opposite" if row["mirrored"] else "same",
    }


def alignment_confidence(pairs: xr.Dataset | None, groups: xr.Dataset, class_id: int) -> float | None:
    """Median confidence of the alignments of a class to the other classes of its superclass; None where alone."""
    if pairs is None or "confidence" not in pairs or not pairs.attrs.get("align", 1):
        return None
    labels = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    others = [
        other for other in pairs["class_j"].values.tolist() if other != class_id and labels.get(other) == labels.get(class_id)
    ]
    if not others or class_id not in pairs["class_i"].values:
        return None
    values = pairs["confidence"].sel(class_i=class_id, class_j=others).values
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def corrected_pairs(pairs: xr.Dataset | None) -> list[dict[str, int]]:
    """Pairs whose first pose other pairs contradicted and that were aligned again: ``first``, ``second`` (class ids)."""
    if pairs is None or "corrected" not in pairs:
        return []
    class_ids = pairs["class_i"].values
    return [
        {"first": int(class_ids[first]), "second": int(class_ids[second])}
        for first, second in np.argwhere(np.triu(pairs["corrected"].values.astype(bool), 1))
    ]


def contradicting_pairs(pairs: xr.Dataset | None, groups: xr.Dataset) -> list[dict[str, Any]]:
    """Pairs of one superclass whose own alignment disagrees with the frames of their superclass, worst first.

    Returns
    -------
    list of dict
        ``first``, ``second`` (class ids) and ``degrees``, of those beyond 10 degrees or of the other hand (180).
    """
    if pairs is None or "rotation_quaternion" not in pairs or not pairs.attrs.get("align", 1):
        return []
    known = np.isin(groups["class_id"].values, pairs["class_i"].values) & (groups["superclass"].values >= 0)
    grouped = groups.isel(class_id=known)
    class_ids, labels = grouped["class_id"].values, grouped["superclass"].values
    chosen = pairs.sel(class_i=class_ids, class_j=class_ids)
    frames = quaternion_to_matrix(grouped["rotation_quaternion"].values)
    expected = np.einsum("iba,jbc->ijac", frames, frames)
    degrees = rotation_angle_degrees(quaternion_to_matrix(chosen["rotation_quaternion"].values), expected)
    hands = grouped["mirrored"].values
    degrees = np.where(chosen["mirrored"].values == (hands[:, None] ^ hands[None, :]), degrees, 180.0)
    compared = np.isfinite(chosen["correlation"].values) & (labels[:, None] == labels[None, :])
    found = [
        {"first": int(class_ids[first]), "second": int(class_ids[second]), "degrees": float(degrees[first, second])}
        for first, second in np.argwhere(np.triu(compared & (degrees > CONTRADICTION_DEGREES), 1))
    ]
    return sorted(found, key=lambda entry: (-entry["degrees"], entry["first"], entry["second"]))
