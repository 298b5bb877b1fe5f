"""What a run says of the hands of its maps: which are of the other one, and of which it cannot be told."""

from __future__ import annotations

import numpy as np
import xarray as xr

from regroup_dask import superclass_frames
from regroup_dask.settings import Settings


def hand_sentences(pairs: xr.Dataset, groups: xr.Dataset, settings: Settings) -> list[str]:
    """Say which classes are of the opposite hand, and which keep theirs because no pair tells it.

    Parameters
    ----------
    pairs
        As in pairs.zarr.
    groups
        From grouping.
    settings
        Parameters of the run.
    """
    if "hand_trust" not in pairs or settings.hand == "off":
        return []
    if not (pairs["hand_trust"].values > 0).any():
        return ["At the resolution of these maps their hand cannot be told: every class keeps the hand it has."]
    sentences = []
    opposite = groups["class_id"].values[groups["opposite_hand"].values]
    if len(opposite):
        sentences.append(
            f"Of the opposite hand to most of the particles: class {_listed(opposite)}; inverted before maps are averaged, and "
            "the poses of particles follow when they are updated. Which of the two hands is the right one the maps do not say."
        )
    untold = _untold(pairs, groups)
    if len(untold):
        sentences.append(
            f"Whether class {_listed(untold)} is of the hand of the rest of its superclass cannot be told: it keeps its own."
        )
    return sentences


def _listed(class_ids: np.ndarray) -> str:
    return ", ".join(map(str, class_ids.tolist()))


def _untold(pairs: xr.Dataset, groups: xr.Dataset) -> np.ndarray:
    """Class ids that no chain of pairs compares in hand with most of their superclass."""
    labels = groups["superclass"].values
    sizes = groups["n_particles"].values if "n_particles" in groups.coords else np.ones(len(labels), np.int64)
    part = superclass_frames.agreed_hands(pairs, sizes).part
    apart = np.zeros(len(labels), bool)
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        count = np.bincount(part[members], weights=np.maximum(sizes[members], 1))
        apart[members] = part[members] != int(np.argmax(count))
    return groups["class_id"].values[apart]
