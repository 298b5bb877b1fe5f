"""Cut the pairs of maps into tiles, run them, and put what comes back in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regroup_dask.formats.volumes import VolumeReference
from regroup_dask.science import align, invariants
from regroup_dask.settings import Settings
from regroup_dask.steps.preparing import PreparedMaps
from regroup_dask.steps.run_context import RunContext
from regroup_dask.tasks import pairs
from regroup_dask.tasks.execute import Result


def compare_pairs(
    maps: PreparedMaps,
    names: list[str],
    plan: align.AlignmentPlan,
    settings: Settings,
    store: Path,
    run: RunContext,
    *,
    token: str,
) -> list[Result]:
    """Compare all pairs, or each map with its nearest, as one stage of tiles; returns the rows of each."""
    n_maps = len(maps.power)
    n_nearest = settings.n_nearest
    if n_nearest is None or n_nearest >= n_maps - 1:
        tiles = pairs.tile_pairs(n_maps)
    else:
        tiles = pairs.pair_runs(
            invariants.nearest_pairs(maps.invariants, maps.reliability, n_nearest),
            invariants.order_by_likeness(maps.invariants, maps.reliability),
        )
    units = [
        pairs.TileUnit(
            f"tile_{number:06d}",
            tile,
            store,
            token,
            plan,
            settings.align,
            map_names=pairs.name_maps(tile, names),
        )
        for number, tile in enumerate(tiles)
    ]
    label = "Aligning pairs" if settings.align else "Comparing pairs"
    return run.run("pairs", label, pairs.compare_tile, units)


def full_box_correlation(
    references: tuple[VolumeReference, ...], settings: Settings, mask: VolumeReference | None, run: RunContext
) -> np.ndarray:
    """Plain correlations of the maps as they lie, at the full box, float64 (N, N)."""
    n_maps = len(references)
    compressed = any(reference.path.endswith((".gz", ".bz2", ".zst")) for reference in references)
    side = pairs.correlation_side(n_maps, references[0].box, compressed=compressed)
    runs = [range(start, min(start + side, n_maps)) for start in range(0, n_maps, side)]
    blocks = [(rows, columns) for rows in runs for columns in runs if rows.start <= columns.start]
    units = [
        pairs.CorrelationUnit(
            f"block_{rows.start:05d}_{columns.start:05d}",
            tuple(references[index] for index in rows),
            tuple(references[index] for index in columns),
            settings.mask_inner_radius,
            mask,
        )
        for rows, columns in blocks
    ]
    correlation = np.eye(n_maps)
    results = run.run("correlation", "Correlating maps", pairs.correlate_tile, units)
    for (rows, columns), result in zip(blocks, results, strict=True):
        correlation[rows.start : rows.stop, columns.start : columns.stop] = result["correlation"]
        correlation[columns.start : columns.stop, rows.start : rows.stop] = result["correlation"].T
    np.fill_diagonal(correlation, 1.0)
    return (correlation + correlation.T) / 2
