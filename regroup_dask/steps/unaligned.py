"""What a run says of maps that were compared as they lie, and seem to lie in different orientations."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from regroup_dask.settings import Settings

# Maps of one particle in one frame have most of their structure in common even where a subunit is missing (0.65 and more
# between a whole and half a ribosome); in unlike orientations they share little more than that they are round (below 0.25).
LITTLE_IN_COMMON = 0.5


def unaligned_sentences(pairs: xr.Dataset, settings: Settings) -> list[str]:
    """Say so where classes were not aligned and most of them resemble no other one.

    Parameters
    ----------
    pairs
        As in pairs.zarr.
    settings
        Parameters of the run.
    """
    if settings.align or pairs.sizes["class_i"] < 2 or "similarity" not in pairs:
        return []
    similarity = pairs["similarity"].values.astype(np.float64)
    np.fill_diagonal(similarity, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a map of noise has no similarity to any
        best = np.nanmax(similarity, axis=1)
    best = best[np.isfinite(best)]
    if not len(best) or np.median(best) >= LITTLE_IN_COMMON:
        return []
    return [
        "The maps were compared as they lie, and most resemble no other (the best similarity of a class is "
        f"{np.median(best):.2f} in the median; 1 is the same structure): if they are not all in one orientation, as after "
        "ab-initio, run again with --align-pairs."
    ]
