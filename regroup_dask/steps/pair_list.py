"""The results of all tiles as a list of pairs: what is kept of thousands of maps of which only some pairs were compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from regroup_dask.science.rotations import matrix_to_quaternion
from regroup_dask.tasks.execute import Result

# Tables of more maps than this are kept in single precision: they are most of the driver's memory.
DOUBLE_UP_TO = 1000


class PairList(NamedTuple):
    """P pairs (i, j), i < j, of N maps with S shells; a row superposes map j onto map i.

    Attributes
    ----------
    pairs
        int64 (P, 2), sorted.
    rotation, shift_angstrom, mirrored
        float64 (P, 3, 3), float64 (P, 3), bool (P,): ``x_i = R (+-x_j) + t``.
    correlation, correlation_other_hand, confidence, hand_lead
        float64 (P,).
    corrected
        bool (P,): the other pairs contradicted the pose that was found first, and it was replaced.
    cross_power, power_fixed, power_moving
        float32 (P, S), sums over the coefficients of each shell.
    """

    pairs: np.ndarray
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


SINGLE = ("cross_power", "power_fixed", "power_moving")


def list_pairs(results: list[Result]) -> PairList:
    """Put the rows of all tiles into one list; empties `results` on the way, so that nothing is held twice."""
    found = {}
    pairs = np.concatenate([result["pairs"] for result in results])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    for name in PairList._fields:
        if name in ("pairs", "corrected"):
            continue
        kind = np.float32 if name in SINGLE else results[0][name].dtype
        rows = np.concatenate([result.pop(name).astype(kind, copy=False) for result in results])
        found[name] = rows[order]
    results.clear()
    return PairList(pairs=pairs[order], corrected=np.zeros(len(pairs), bool), **found)


def replace_rows(pairs: PairList, rows: np.ndarray, result: Result) -> None:
    """Write results over some rows of a list; changes its arrays in place."""
    for name in PairList._fields:
        if name in result and name != "pairs":
            getattr(pairs, name)[rows] = result[name]


def square(n_maps: int, pairs: np.ndarray, values: np.ndarray, *, blank: float, diagonal: float) -> np.ndarray:
    """A symmetric table (N, N) of values that are known for some pairs."""
    kind = bool if values.dtype == bool else _kind(n_maps)
    table: np.ndarray = np.full((n_maps, n_maps), blank, kind)
    i, j = pairs.T
    table[i, j] = table[j, i] = values
    np.fill_diagonal(table, diagonal)
    return table


def square_poses(n_maps: int, pairs: PairList) -> tuple[np.ndarray, np.ndarray]:
    """Quaternions (N, N, 4) and shifts (N, N, 3) with the other triangle filled in; the identity where not compared."""
    kind = _kind(n_maps)
    quaternion: np.ndarray = np.zeros((n_maps, n_maps, 4), kind)
    quaternion[..., 3] = 1.0
    shift: np.ndarray = np.zeros((n_maps, n_maps, 3), kind)
    i, j = pairs.pairs.T
    back = np.swapaxes(pairs.rotation, 1, 2)
    sign = np.where(pairs.mirrored, -1.0, 1.0)[:, None]
    quaternion[i, j], quaternion[j, i] = matrix_to_quaternion(pairs.rotation), matrix_to_quaternion(back)
    shift[i, j], shift[j, i] = pairs.shift_angstrom, -sign * np.einsum("kab,kb->ka", back, pairs.shift_angstrom)
    return quaternion, shift


def driver_bytes(n_maps: int, n_pairs: int, n_shells: int) -> int:
    """Memory that the driver needs at most for so many pairs: as rows, and as the tables that are grouped and written."""
    # Results as they come, rows in their order beside them, and the shell correlations.
    per_pair = (8 * 3 * n_shells + 160) + (4 * 3 * n_shells + 160) + 8 * n_shells
    # Nine numbers, a quaternion and a shift, three yes or no; grouping, adding pairs, writing and the report make more of
    # them: eight times as much was measured, with 500 and with 2000 maps.
    per_entry = 8 * (16 * np.dtype(_kind(n_maps)).itemsize + 3)
    return n_pairs * per_pair + n_maps**2 * per_entry


def _kind(n_maps: int) -> type:
    return np.float32 if n_maps > DOUBLE_UP_TO else np.float64
