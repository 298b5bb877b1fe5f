"""Compare pairs of prepared maps in tiles of the upper triangle; each tile is a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regroup_dask.errors import RegroupError, UnitError
from regroup_dask.formats.volumes import VolumeReference, open_map
from regroup_dask.science import align, hands, masks
from regroup_dask.tasks import prepared_store
from regroup_dask.tasks.execute import Result
from regroup_dask.tasks.kept_memory import MAP_BYTES, kept_memory

LARGEST_TILE = 24
TILES_PER_SIDE = 8
PAIRS_PER_RUN = 256
# The last eighth of the work is cut finer, and the last thirtieth finer still: else most workers wait, at the end, for
# the few that have just begun a large tile. Small tiles read more maps for each pair, so not all are small.
FINER_FROM = (7 / 8, 29 / 30)
# But not into crumbs: each costs the scheduler and the driver 6 ms, which 64 workers would wait for at the end.
LEAST_PIECE, PIECES_OF_ALL = 100, 5000
SLAB_BYTES = 96 * 2**20
UNPACKED_BYTES = 512 * 2**20


class TileUnit(NamedTuple):
    """Pairs (i, j), i < j, of two runs of maps; `poses` holds starts of a refinement instead of a search."""

    name: str
    pairs: tuple[tuple[int, int], ...]
    store: Path
    token: str
    plan: align.AlignmentPlan
    search: bool
    starts: tuple[tuple[np.ndarray, np.ndarray, bool], ...] | None = None
    map_names: tuple[tuple[int, str], ...] = ()

    @property
    def about(self) -> str:
        """The maps of the tile."""
        return "the comparison of " + _listed([name for _, name in self.map_names]) if self.map_names else self.name


class CorrelationUnit(NamedTuple):
    """Plain correlations at the full box, in the common frame, between two runs of maps."""

    name: str
    rows: tuple[VolumeReference, ...]
    columns: tuple[VolumeReference, ...]
    mask_inner_radius: float | None
    mask: VolumeReference | None

    @property
    def about(self) -> str:
        """The maps of the block."""
        return "the correlation of " + _listed([reference.name for reference in (*self.rows, *self.columns)])


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:6]) + (f" and {len(unique) - 6} others" if len(unique) > 6 else "")


def name_maps(pairs: tuple[tuple[int, int], ...], names: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Names of the maps that some pairs are made of, for what a unit says about itself."""
    return tuple((index, names[index]) for index in sorted({index for pair in pairs for index in pair}))


def tile_pairs(n_maps: int) -> list[tuple[tuple[int, int], ...]]:
    """Cut the upper triangle into square tiles, large ones first; depends on the number of maps only.

    Rows of tiles are gone through to and fro, so that a worker still has the maps of the columns where it turns.
    """
    side = max(1, min(LARGEST_TILE, math.ceil(n_maps / TILES_PER_SIDE)))
    starts = range(0, n_maps, side)
    tiles = []
    for number, first_row in enumerate(starts):
        columns = range(first_row, n_maps, side)
        for first_column in columns if number % 2 == 0 else reversed(columns):
            pairs = tuple(
                (i, j)
                for i in range(first_row, min(first_row + side, n_maps))
                for j in range(max(first_column, i + 1), min(first_column + side, n_maps))
            )
            if pairs:
                tiles.append(pairs)
    return _finer_at_the_end(sorted(tiles, key=len, reverse=True))


def pair_runs(pairs: list[tuple[int, int]], order: Sequence[int] | None = None) -> list[tuple[tuple[int, int], ...]]:
    """Cut a list of some pairs into tasks, so that few maps are read for each.

    Parameters
    ----------
    pairs
        Pairs (i, j), i < j.
    order
        All maps, those that have many pairs with each other side by side; None as they are numbered.
    """
    n_maps = 1 + max((max(pair) for pair in pairs), default=-1)
    place = {int(index): at // LARGEST_TILE for at, index in enumerate(range(n_maps) if order is None else order)}

    def block(pair: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
        first, second = place[pair[0]], place[pair[1]]
        return min(first, second), max(first, second), pair

    ordered = sorted(pairs, key=block)
    runs = [tuple(ordered[start : start + PAIRS_PER_RUN]) for start in range(0, len(ordered), PAIRS_PER_RUN)]
    return _finer_at_the_end(runs)


def _finer_at_the_end(tiles: list[tuple[tuple[int, int], ...]]) -> list[tuple[tuple[int, int], ...]]:
    """Cut tiles near the end of a list by their maps, into pieces of half and of a quarter as many on each side."""
    n_pairs = sum(map(len, tiles))
    least = min(LEAST_PIECE, n_pairs // PIECES_OF_ALL)
    made: list[tuple[tuple[int, int], ...]] = []
    before = 0
    for tile in tiles:
        pieces = 2 ** sum(before >= start * n_pairs for start in FINER_FROM)
        while pieces > 1 and len(tile) < pieces**2 * least:
            pieces //= 2
        made.extend(_pieces(tile, pieces))
        before += len(tile)
    return sorted(made, key=len, reverse=True)


def _pieces(tile: tuple[tuple[int, int], ...], pieces: int) -> list[tuple[tuple[int, int], ...]]:
    """Cut a tile into so many runs of its rows and as many of its columns, as far as they go."""
    if pieces == 1:
        return [tile]
    places = []
    for side in (0, 1):
        maps = sorted({pair[side] for pair in tile})
        places.append({index: pieces * position // len(maps) for position, index in enumerate(maps)})
    cut: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i, j in tile:
        cut.setdefault((places[0][i], places[1][j]), []).append((i, j))
    return [tuple(pairs) for _, pairs in sorted(cut.items())]


@kept_memory(MAP_BYTES)
def compare_tile(unit: TileUnit) -> Result:
    """Compare every pair of a tile; returns one row per pair.

    Raises
    ------
    UnitError
        A pair cannot be compared; the message names its two maps.
    """
    found = []
    for position, (i, j) in enumerate(unit.pairs):
        try:
            found.append(_compare_pair(unit, position))
        except (RegroupError, OSError, MemoryError):
            raise
        except Exception as error:
            names = dict(unit.map_names)
            raise UnitError(
                f"{names.get(i, f'map {i}')} and {names.get(j, f'map {j}')} cannot be compared: "
                f"{type(error).__name__}: {error}"
            ) from error
    return {
        "pairs": np.asarray(unit.pairs, np.int64).reshape(-1, 2),
        "rotation": np.array([pair.rotation for pair in found]).reshape(-1, 3, 3),
        "shift_angstrom": np.array([pair.shift_angstrom for pair in found]).reshape(-1, 3),
        "mirrored": np.array([pair.mirrored for pair in found], bool),
        "hand_lead": np.array([hands.lead_that_tells(pair) for pair in found], np.float64),
        **{
            name: np.array([getattr(pair, name) for pair in found], np.float64)
            for name in (
                "correlation",
                "correlation_other_hand",
                "confidence",
                "cross_power",
                "power_fixed",
                "power_moving",
            )
        },
    }


def _compare_pair(unit: TileUnit, position: int) -> align.PairAlignment:
    fixed, moving = (prepared_store.cached_prepared(unit.store, index, unit.token) for index in unit.pairs[position])
    if unit.starts is not None:
        rotation, shift, mirrored = unit.starts[position]
        return align.refine_pair(fixed, moving, unit.plan, rotation=rotation, shift_angstrom=shift, mirrored=mirrored)
    if unit.search:
        return align.align_pair(fixed, moving, unit.plan)
    return align.measure_pair(fixed, moving, unit.plan)


def correlation_side(n_maps: int, box: int, *, compressed: bool) -> int:
    """Maps on each side of a block of plain correlations; compressed maps are unpacked in memory, so fewer of them.

    Depends on the maps only: what workers there are must not change a single bit.
    """
    fits = UNPACKED_BYTES // (2 * 4 * box**3) if compressed else LARGEST_TILE
    return max(1, min(LARGEST_TILE, n_maps, fits))


def correlation_bytes(n_maps: int, box: int, *, compressed: bool) -> int:
    """Memory that a block of plain correlations needs."""
    side = correlation_side(n_maps, box, compressed=compressed)
    planes = max(1, SLAB_BYTES // (2 * side * 8 * box * box))
    unpacked = 2 * side * 4 * box**3 if compressed else 0
    return unpacked + (2 * side + 6) * 8 * planes * box * box


def correlate_tile(unit: CorrelationUnit) -> Result:
    """Mask-weighted Pearson correlation of full maps, streamed slab by slab.

    With weights w (the mask) the covariance is ``sum w a b / sum w - mean(a) mean(b)``.
    """
    same = unit.rows == unit.columns
    rows = [open_map(reference) for reference in unit.rows]
    columns = rows if same else [open_map(reference) for reference in unit.columns]
    box = unit.rows[0].box
    given = None if unit.mask is None else open_map(unit.mask)
    depth = max(1, SLAB_BYTES // ((len(rows) + len(columns)) * 8 * box * box))
    weight_sum = 0.0
    sums = {side: np.zeros((2, len(maps))) for side, maps in (("rows", rows), ("columns", columns))}
    products = np.zeros((len(rows), len(columns)))
    for start in range(0, box, depth):
        planes = slice(start, min(start + depth, box))
        weight = np.ones((planes.stop - planes.start) * box * box)
        if unit.mask_inner_radius is not None:
            weight *= masks.soft_sphere(box, inner_radius_fraction=unit.mask_inner_radius, planes=planes).ravel()
        if given is not None:
            weight *= np.clip(np.asarray(given[planes], np.float64).ravel(), 0, 1)
        root = np.sqrt(weight)
        weight_sum += float(weight.sum())
        left = _weighted(rows, planes, root, sums["rows"])
        right = left if same else _weighted(columns, planes, root, sums["columns"])
        products += left @ right.T
    if same:
        sums["columns"] = sums["rows"]
    mean_row, mean_column = sums["rows"][0] / weight_sum, sums["columns"][0] / weight_sum
    variance_row = sums["rows"][1] / weight_sum - mean_row**2
    variance_column = sums["columns"][1] / weight_sum - mean_column**2
    covariance = products / weight_sum - np.outer(mean_row, mean_column)
    scale = np.sqrt(np.outer(np.maximum(variance_row, 0), np.maximum(variance_column, 0)))
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return {"correlation": np.clip(correlation, -1, 1)}


def _weighted(maps: list, planes: slice, root: np.ndarray, sums: np.ndarray) -> np.ndarray:
    stack = np.empty((len(maps), root.size))
    for index, volume in enumerate(maps):
        stack[index] = np.asarray(volume[planes], np.float64).ravel() * root
        sums[0, index] += stack[index] @ root
        sums[1, index] += stack[index] @ stack[index]
    return stack
