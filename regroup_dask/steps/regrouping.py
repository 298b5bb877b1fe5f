"""Superclasses of classes that are compared: found here, or told by a person, from this run's pairs or an earlier one's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from regroup_dask import grouping
from regroup_dask.errors import RegroupWarning
from regroup_dask.formats import storage, storing
from regroup_dask.formats.class_store import read_classes, write_classes
from regroup_dask.formats.pairs_store import read_pairs, write_pairs
from regroup_dask.formats.run_folder import read_run
from regroup_dask.hand_edits import ToldGroups, describe_mapping
from regroup_dask.settings import Settings
from regroup_dask.steps import bridging
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.told_groups import group_as_told

PAIRS, CLASSES = "pairs.zarr", "classes.zarr"


def copy_comparison(earlier: Path, folder: Path, selection: Selection) -> xr.Dataset:
    """Take over what an earlier run found out of every pair and class that still takes part."""
    pairs, kept = read_pairs(earlier / PAIRS), selection.class_ids[selection.kept]
    if np.array_equal(pairs["class_i"].values, kept):
        for name in (PAIRS, CLASSES):
            if storage.is_folder(earlier / name):
                storing.copy_folder(earlier / name, folder / name)
        return pairs
    pairs = pairs.sel(class_i=kept, class_j=kept)
    write_pairs(pairs, folder / PAIRS)
    write_classes(read_classes(earlier / CLASSES).sel(class_id=kept).drop_encoding(), folder / CLASSES)
    return pairs


def group_classes(
    pairs: xr.Dataset,
    selection: Selection,
    settings: Settings,
    run: RunContext,
    *,
    earlier: Path | None,
    told: ToldGroups | None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Group the classes, or take the groups that were told, and see that each has one frame.

    Parameters
    ----------
    pairs
        Pairs of the classes that take part.
    selection
        Their sizes.
    settings
        Parameters of the run.
    run
        The run; its folder holds pairs.zarr and classes.zarr.
    earlier
        Folder of the run that the pairs are from, if they are not this one's.
    told
        Superclasses that a person made, or None to group the classes here.

    Returns
    -------
    xarray.Dataset, xarray.Dataset
        The pairs, with those that had to be aligned now, and the groups.
    """
    sizes = selection.kept_sizes if selection.n_particles is not None else None
    if told is None:
        # every partition is looked at place by place: with tens of classes that takes as long as aligning them
        with run.clock.stage("Grouping classes", 1) as advance:
            groups = grouping.group_pairs(
                pairs,
                settings.n_superclasses,
                n_particles=sizes,
                similarity=settings.similarity,
                frame=settings.frame,
                seed=settings.seed,
            )
            advance()
    else:
        warnings.warn(f"Grouped by hand: {'; '.join(told.edits)}.", RegroupWarning, stacklevel=2)
        groups = group_as_told(
            pairs,
            told,
            n_particles=sizes,
            similarity=settings.similarity,
            frame=settings.frame,
            curves=None if earlier is None else read_run(earlier).get("grouping"),
        )
    store = run.folder / CLASSES
    if not settings.align or not store.is_dir():
        return pairs, groups
    joined, groups = bridging.join_superclasses(pairs, groups, read_classes(store), store, settings, run)
    if joined is not pairs:
        write_pairs(joined, run.folder / PAIRS)
    return joined, groups


def record_by_hand(earlier: Path, told: ToldGroups, groups: xr.Dataset) -> list[dict[str, Any]]:
    """Every change by hand that led to this grouping, the earliest first."""
    before = list(read_run(earlier).get("by_hand") or [])
    after = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    this = {
        "of": str(earlier.absolute()),
        "edits": list(told.edits),
        "superclasses": describe_mapping(told.before, after),
    }
    return [*before, this]
