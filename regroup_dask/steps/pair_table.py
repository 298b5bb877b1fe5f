"""The results of all tiles as dense arrays over pairs, with the other triangle filled in by symmetry."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from regroup_dask.tasks.execute import Result


class PairTable(NamedTuple):
    """Arrays over pairs (i, j) of N maps, S shells; entry (i, j) superposes map j onto map i.

    Attributes
    ----------
    rotation, shift_angstrom, mirrored
        float64 (N, N, 3, 3), float64 (N, N, 3), bool (N, N): ``x_i = R (+-x_j) + t``.
    correlation, correlation_other_hand, confidence, hand_lead
        float64 (N, N).
    corrected
        bool (N, N): the other pairs contradicted the pose that was found first, and it was replaced.
    cross_power, power_fixed, power_moving
        float64 (N, N, S), sums over the coefficients of each shell.
    """

    rotation: np.ndarray
    shift_angstrom: np.ndarray
    mirrored: np.ndarray
    correlation: np.ndarray
    correlation_other_hand: np.ndarray
    confidence: np.ndarray
    hand_lead: np.ndarray
    corrected: np.ndarray
    cross_power: np.ndarray
    power_fixed: np.ndarray
    power_moving: np.ndarray


def collect_pairs(n_maps: int, results: list[Result]) -> PairTable:
    """Put the rows of all tiles in their places; pairs that were not compared stay NaN."""
    shells = results[0]["cross_power"].shape[1]
    square = (n_maps, n_maps)
    table = PairTable(
        rotation=np.broadcast_to(np.eye(3), (*square, 3, 3)).copy(),
        shift_angstrom=np.zeros((*square, 3)),
        mirrored=np.zeros(square, bool),
        correlation=np.full(square, np.nan),
        correlation_other_hand=np.full(square, np.nan),
        confidence=np.full(square, np.nan),
        hand_lead=np.zeros(square),
        corrected=np.zeros(square, bool),
        cross_power=np.full((*square, shells), np.nan),
        power_fixed=np.full((*square, shells), np.nan),
        power_moving=np.full((*square, shells), np.nan),
    )
    np.fill_diagonal(table.correlation, 1.0)
    for result in results:
        place_pairs(table, result)
    _fill_own_power(table)
    return table


def place_pairs(table: PairTable, result: Result) -> None:
    """Write the rows of one tile into a table, both triangles; changes the table's arrays in place."""
    i, j = result["pairs"].T
    rotation, shift, mirrored = result["rotation"], result["shift_angstrom"], result["mirrored"]
    table.rotation[i, j], table.shift_angstrom[i, j], table.mirrored[i, j] = rotation, shift, mirrored
    inverse = np.swapaxes(rotation, 1, 2)
    # x_i = R (s x_j) + t gives x_j = s R^T (x_i - t) = R^T (s x_i) - s R^T t.
    sign = np.where(mirrored, -1.0, 1.0)[:, None]
    table.rotation[j, i], table.mirrored[j, i] = inverse, mirrored
    table.shift_angstrom[j, i] = -sign * np.einsum("nab,nb->na", inverse, shift)
    for name in ("correlation", "correlation_other_hand", "confidence", "hand_lead", "cross_power"):
        array = getattr(table, name)
        array[i, j] = array[j, i] = result[name]
    table.power_fixed[i, j] = table.power_moving[j, i] = result["power_fixed"]
    table.power_moving[i, j] = table.power_fixed[j, i] = result["power_moving"]


def driver_bytes(n_maps: int, n_pairs: int, n_shells: int) -> int:
    """Memory that the driver needs at most for tables of all pairs, with what similarity and grouping make of them."""
    return n_pairs * (8 * 3 * n_shells + 160) + n_maps**2 * 8 * (10 * n_shells + 60)


def _fill_own_power(table: PairTable) -> None:
    """On the diagonal a map meets itself: its power is what it had as the fixed map of a pair."""
    for index in range(len(table.correlation)):
        compared = np.flatnonzero(np.isfinite(table.power_fixed[index, :, 0]))
        # The power of a fixed map is exact, that of a moved one interpolated; later maps are the moved ones.
        later = compared[compared > index]
        other = later[0] if len(later) else compared[0]
        for array in (table.cross_power, table.power_fixed, table.power_moving):
            array[index, index] = table.power_fixed[index, other]
