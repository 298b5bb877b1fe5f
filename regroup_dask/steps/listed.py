"""Comparing more maps than methods for all pairs together can take: pairs stay a list until they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regroup_dask.grouping import MOST_DENSE_CLASSES, weights_of_correlations
from regroup_dask.science import align, fourier, hands, sparse_frames
from regroup_dask.settings import Settings
from regroup_dask.steps.pair_list import PairList, replace_rows
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.tasks import pairs

ROUNDS = 3
PAIRS_PER_UNIT = 64


def are_listed(n_maps: int, settings: Settings) -> bool:
    """Whether pairs are kept as a list: some are not compared, or there are too many for all at once."""
    return n_maps > MOST_DENSE_CLASSES or (settings.n_nearest is not None and settings.n_nearest < n_maps - 1)


def trust_in_listed_hands(table: PairList, box: int, mask_volume_fraction: np.ndarray) -> np.ndarray:
    """How surely each pair tells whether its maps are of one hand, float64 (P,); 0 where it cannot."""
    independent = hands.independent_coefficients(
        table.power_fixed, table.power_moving, fourier.shell_counts(box), filled_fraction=float(np.mean(mask_volume_fraction))
    )
    evidence = hands.hand_evidence(table.correlation, np.nan_to_num(table.correlation_other_hand), independent)
    return np.where(np.isfinite(table.correlation_other_hand), hands.hand_weights(evidence), 0.0)


def agree_on_listed_poses(
    table: PairList,
    selection: Selection,
    plan: align.AlignmentPlan,
    store: Path,
    run: RunContext,
    *,
    token: str,
    hand_trust: np.ndarray,
    names: Sequence[str],
) -> None:
    """Align again, from the pose that all the others predict, every pair that the others contradict.

    As `consistency.agree_on_poses`, within each part of the graph of pairs; changes the table's arrays in place.
    """
    tried = np.zeros(len(table.pairs), bool)
    for number in range(ROUNDS):
        solved = sparse_frames.synchronize_pairs(
            table.pairs,
            table.rotation,
            table.shift_angstrom,
            table.mirrored,
            weights_of_correlations(table.correlation),
            priority=selection.kept_sizes,
            hand_weight=hand_trust,
        )
        rows = solved.inconsistent[~tried[solved.inconsistent]]
        if not len(rows):
            break
        tried[rows] = True
        # Pairs of nearby maps together, so that few maps are read for each unit.
        rows = np.sort(rows)
        rotation, shift, mirrored = sparse_frames.predicted_pairs(solved, *table.pairs[rows].T)
        chunks = [slice(start, start + PAIRS_PER_UNIT) for start in range(0, len(rows), PAIRS_PER_UNIT)]
        units = []
        for chunk in chunks:
            chosen = tuple((int(i), int(j)) for i, j in table.pairs[rows[chunk]])
            starts = tuple(zip(rotation[chunk], shift[chunk], mirrored[chunk].tolist(), strict=True))
            name = f"round_{number}_{chunk.start:07d}"
            units.append(
                pairs.TileUnit(name, chosen, store, token, plan, True, starts, pairs.name_maps(chosen, names))
            )
        for chunk, result in zip(chunks, run.run("mend", "Mending pairs", pairs.compare_tile, units), strict=True):
            _keep_better(table, rows[chunk], result, hand_trust)


def _keep_better(table: PairList, rows: np.ndarray, result: dict[str, np.ndarray], hand_trust: np.ndarray) -> None:
    other_hand = (result["mirrored"] != table.mirrored[rows]) & (hand_trust[rows] == 0)
    better = other_hand | (result["correlation"] > table.correlation[rows])
    # A refinement knows neither confidence nor the other hand: what the search found of them stays.
    result["correlation_other_hand"] = np.where(other_hand, table.correlation[rows], table.correlation_other_hand[rows])
    result["confidence"] = table.confidence[rows]
    replace_rows(table, rows[better], {name: values[better] for name, values in result.items()})
    table.corrected[rows[better]] = True
