"""Comparing more maps than methods for all pairs together are good for: pairs stay a list until they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regroup_dask.grouping import MOST_BY_SHELL_MODEL
from regroup_dask.science import align, fourier, hands, sparse_frames, sparse_hands
from regroup_dask.settings import Settings
from regroup_dask.steps.pair_list import PairList, replace_rows
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.superclass_frames import weights_of_correlations
from regroup_dask.tasks import pairs

ROUNDS = 3
PAIRS_PER_UNIT = 64


def are_listed(n_maps: int, settings: Settings) -> bool:
    """Whether pairs are kept as a list: some are not compared, or there are many, which lists tell apart better."""
    return n_maps > MOST_BY_SHELL_MODEL or (settings.n_nearest is not None and settings.n_nearest < n_maps - 1)


def trust_in_listed_hands(
    table: PairList, box: int, mask_volume_fraction: np.ndarray, similarity: np.ndarray | None
) -> np.ndarray:
    """How surely each pair tells whether its maps are of one hand, float64 (P,); 0 where it cannot.

    Parameters are those of `consistency.trust_in_hands`, rows for tables.
    """
    independent = hands.independent_coefficients(
        table.power_fixed, table.power_moving, fourier.shell_counts(box), filled_fraction=float(np.mean(mask_volume_fraction))
    )
    correlations = table.correlation, np.nan_to_num(table.correlation_other_hand)
    evidence = hands.hand_evidence(*correlations, independent)
    if similarity is not None:
        evidence = hands.judge_by_structure(evidence, similarity, *correlations, table.confidence)
    return np.where(np.isfinite(table.correlation_other_hand), hands.hand_weights(evidence, table.hand_lead), 0.0)


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
        agreed = sparse_hands.agree_on_listed_hands(
            table.pairs, table.mirrored, hand_trust, sizes=selection.kept_sizes
        )
        solved = sparse_frames.synchronize_pairs(
            table.pairs,
            table.rotation,
            table.shift_angstrom,
            table.mirrored,
            weights_of_correlations(table.correlation),
            priority=selection.kept_sizes,
            other_hand=agreed.other_hand,
        )
        # Pairs of nearby maps together, so that few maps are read for each unit.
        rows = np.sort(solved.inconsistent[~tried[solved.inconsistent]])
        if not len(rows):
            break
        _, _, mirrored = sparse_frames.predicted_pairs(solved, *table.pairs[rows].T)
        untold = (table.mirrored[rows] != mirrored) & (hand_trust[rows] == 0)
        # Their poses are those of the other hand and say nothing of this one: they are searched, before others rely on them.
        searched = untold & ~mirrored
        refined = ~searched & (~untold if number == 0 else True)
        one_hand = plan._replace(hand="off") if searched.any() else plan
        units, homes = [], []
        for kind, chosen, its_plan in (("refine", rows[refined], plan), ("search", rows[searched], one_hand)):
            tried[chosen] = True
            for start in range(0, len(chosen), PAIRS_PER_UNIT):
                home = chosen[start : start + PAIRS_PER_UNIT]
                its_pairs = tuple((int(i), int(j)) for i, j in table.pairs[home])
                predicted = sparse_frames.predicted_pairs(solved, *table.pairs[home].T)
                starts = None if kind == "search" else tuple((r, t, bool(m)) for r, t, m in zip(*predicted, strict=True))
                name = f"round_{number}_{kind}_{start:07d}"
                maps = pairs.name_maps(its_pairs, names)
                units.append(pairs.TileUnit(name, its_pairs, store, token, its_plan, True, starts, maps))
                homes.append(home)
        for home, result in zip(homes, run.run("mend", "Mending pairs", pairs.compare_tile, units), strict=True):
            _keep_better(table, home, result, hand_trust)


def _keep_better(table: PairList, rows: np.ndarray, result: dict[str, np.ndarray], hand_trust: np.ndarray) -> None:
    other_hand = (result["mirrored"] != table.mirrored[rows]) & (hand_trust[rows] == 0)
    better = other_hand | (result["correlation"] > table.correlation[rows])
    # A refinement knows neither confidence nor the other hand, a search of one hand not the other: what is known stays.
    result["correlation_other_hand"] = np.where(other_hand, table.correlation[rows], table.correlation_other_hand[rows])
    result["confidence"] = np.where(np.isnan(result["confidence"]), table.confidence[rows], result["confidence"])
    replace_rows(table, rows[better], {name: values[better] for name, values in result.items()})
    table.corrected[rows[better]] = True
