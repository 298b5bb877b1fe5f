"""What a run says of pairs whose shift was cut short by the longest that is looked for."""

from __future__ import annotations

import numpy as np
import xarray as xr

from regroup_dask.settings import Settings

# A pair with little in common ends anywhere, at the limit too: only those that are sure of their pose are counted.
SURE_CONFIDENCE = 3.0
LEAST_PART = 0.02


def cut_shift_sentences(pairs: xr.Dataset, settings: Settings) -> list[str]:
    """Say so where some of the pairs that are sure of their pose end at the maximum shift.

    Parameters
    ----------
    pairs
        As in pairs.zarr.
    settings
        Parameters of the run.
    """
    if not settings.align or "confidence" not in pairs or pairs.sizes["class_i"] < 2:
        return []
    upper = np.triu_indices(pairs.sizes["class_i"], 1)
    sure = np.nan_to_num(pairs["confidence"].values[upper]) >= SURE_CONFIDENCE
    length = np.linalg.norm(np.nan_to_num(pairs["shift_angstrom"].values[upper]), axis=-1)
    limit = settings.maximum_shift_angstrom
    cut = int(np.count_nonzero(sure & (length > limit - 0.5 * pairs.attrs["working_voxel_size_angstrom"])))
    if cut == 0 or cut < LEAST_PART * np.count_nonzero(sure):
        return []
    whose = "1 pair of maps ends" if cut == 1 else f"{cut} pairs of maps end"
    return [
        f"{whose} at the maximum shift of {limit:g} A: where particles lie further apart in their boxes, such poses are wrong "
        f"and maps of one structure seem to differ; if so, run again with --maximum-shift {2 * limit or 20:g}."
    ]
