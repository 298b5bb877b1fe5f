"""How stable a grouping is when the windows that it rests on are drawn anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.local_model import LocalModel
from regroup_dask.science.local_search import evidence_linkage
from regroup_dask.science.model_selection import agreement


def draw_windows(n_windows: int, n_draws: int, seed: int) -> NDArray[np.float64]:
    """How often each window is in each draw with replacement (Efron, 1979, Ann. Stat. 7, 1-26), float64[R, W]."""
    return np.random.default_rng(seed).multinomial(n_windows, np.full(n_windows, 1 / n_windows), n_draws).astype(float)


def resampled_placements(model: LocalModel, labels: NDArray[np.int64], draws: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Where every map belongs by the windows of each draw, all others held.

    Parameters
    ----------
    model : LocalModel
        Improved with ``labels``.
    labels : int[N]
    draws : float[R, W]
        From `draw_windows`.

    Returns
    -------
    list of int64[N]
    """
    arrangement = model.arrange(labels)
    placed = np.array([draws @ model.placements(arrangement, index) for index in range(model.n_maps)])
    return list(placed.argmax(axis=2).T.astype(np.int64))


def stability_of_numbers(model: LocalModel, largest: int, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean adjusted Rand index, for 1 .. ``largest`` groups, of linkage by each draw against that by all windows."""
    evidence = model.pair_evidence()
    whole = evidence_linkage(evidence.sum(axis=0))
    found = np.array([evidence_linkage(np.tensordot(draw, evidence, 1)) for draw in draws])
    return np.array([agreement(whole[k], found[:, k]).mean() for k in range(min(largest, len(whole)))])
