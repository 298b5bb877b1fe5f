"""Make the relative poses of all pairs agree: find pairs that the others contradict and align them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regroup_dask.science import align, fourier, frames, hands
from regroup_dask.steps.pair_table import PairTable, place_pairs
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection
from regroup_dask.superclass_frames import pair_weights
from regroup_dask.tasks import pairs

ROUNDS = 3
PAIRS_PER_UNIT = 16


def agree_on_poses(
    table: PairTable,
    selection: Selection,
    plan: align.AlignmentPlan,
    store: Path,
    run: RunContext,
    *,
    token: str,
    hand_trust: np.ndarray,
    names: Sequence[str],
) -> PairTable:
    """Align again, from the pose that all the others predict, every pair that the others contradict.

    The better correlation wins, and the pair is marked as corrected; where the hand of a pair cannot be told, the
    hand that the others predict. Each round solves for all poses anew, so that pairs mended in one round bear witness
    in the next.

    Parameters
    ----------
    table
        All pairs; its arrays are changed in place.
    selection
        The maps that take part.
    plan
        The alignment plan.
    store, token
        Where the prepared maps are.
    run
        The run.
    hand_trust
        From `trust_in_hands`.
    names
        Names of the maps.

    Returns
    -------
    PairTable
        The same table.
    """
    if len(selection.kept) < 3 and not table.mirrored.any():
        return table
    tried: set[tuple[int, int]] = set()
    for number in range(ROUNDS):
        solved = frames.synchronize(
            table.rotation,
            table.shift_angstrom,
            table.mirrored,
            pair_weights(table.correlation, table.confidence),
            reference=selection.reference,
            other_hand=hands.agree_on_hands(table.mirrored, hand_trust, selection.kept_sizes).other_hand,
        )
        doubtful = [pair for pair in solved.inconsistent if pair not in tried]
        if not doubtful:
            break
        predicted = [frames.predicted_pair(solved, *pair) for pair in doubtful]
        same_hand = [
            entry for entry in predicted if _untold(table, hand_trust, entry) and not entry.mirrored
        ]
        # Their poses are those of the other hand and say nothing of this one: they are searched, before others rely on them.
        known = [entry for entry in predicted if entry.mirrored or not _untold(table, hand_trust, entry)]
        if number == 0:
            known = [entry for entry in known if not _untold(table, hand_trust, entry)]
        tried.update((entry.fixed, entry.moving) for entry in (*same_hand, *known))
        one_hand = plan._replace(hand="off") if same_hand else plan
        units = [
            pairs.TileUnit(
                f"round_{number}_{kind}_{start:06d}",
                tuple((entry.fixed, entry.moving) for entry in chunk),
                store,
                token,
                its_plan,
                True,
                None
                if kind == "search"
                else tuple((entry.rotation, entry.shift_angstrom, entry.mirrored) for entry in chunk),
                pairs.name_maps(tuple((entry.fixed, entry.moving) for entry in chunk), names),
            )
            for kind, entries, its_plan in (("refine", known, plan), ("search", same_hand, one_hand))
            for start in range(0, len(entries), PAIRS_PER_UNIT)
            for chunk in [entries[start : start + PAIRS_PER_UNIT]]
        ]
        for result in run.run("mend", "Mending pairs", pairs.compare_tile, units):
            _keep_better(table, result, hand_trust)
    return table


def _untold(table: PairTable, hand_trust: np.ndarray, entry: frames.PredictedPair) -> bool:
    """Whether a pair was found in another hand than is predicted, and cannot tell."""
    i, j = entry.fixed, entry.moving
    return bool(table.mirrored[i, j] != entry.mirrored and hand_trust[i, j] == 0)


def trust_in_hands(
    table: PairTable, box: int, mask_volume_fraction: np.ndarray, similarity: np.ndarray | None = None
) -> np.ndarray:
    """How surely each pair tells whether its maps are of one hand, float64 (N, N); 0 where it cannot.

    Parameters
    ----------
    table
        All pairs.
    box
        The working box.
    mask_volume_fraction
        Part of the box that the maps fill.
    similarity
        Estimated correlation of the noise-free structures, float64 (N, N): maps of different structures tell less.
    """
    independent = hands.independent_coefficients(
        np.nan_to_num(table.power_fixed),
        np.nan_to_num(table.power_moving),
        fourier.shell_counts(box),
        filled_fraction=float(np.mean(mask_volume_fraction)),
    )
    evidence = hands.hand_evidence(
        np.nan_to_num(table.correlation), np.nan_to_num(table.correlation_other_hand), independent
    )
    if similarity is not None:
        correlations = np.nan_to_num(table.correlation), np.nan_to_num(table.correlation_other_hand)
        evidence = hands.judge_by_structure(evidence, similarity, *correlations, table.confidence)
    trust = hands.hand_weights(evidence, table.hand_lead)
    trust[~np.isfinite(table.correlation_other_hand)] = 0.0
    np.fill_diagonal(trust, 0.0)
    return trust


def _keep_better(table: PairTable, result: dict[str, np.ndarray], hand_trust: np.ndarray) -> None:
    i, j = result["pairs"].T
    other_hand = (result["mirrored"] != table.mirrored[i, j]) & (hand_trust[i, j] == 0)
    better = other_hand | (result["correlation"] > table.correlation[i, j])
    # A refinement knows neither confidence nor the other hand, a search of one hand not the other: what is known stays.
    result["correlation_other_hand"] = np.where(
        other_hand, table.correlation[i, j], table.correlation_other_hand[i, j]
    )
    result["confidence"] = np.where(np.isnan(result["confidence"]), table.confidence[i, j], result["confidence"])
    place_pairs(table, {name: values[better] for name, values in result.items()})
    table.corrected[i[better], j[better]] = table.corrected[j[better], i[better]] = True
