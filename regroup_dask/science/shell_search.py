"""Search for the likeliest partition of the shell model, from several starts."""

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.shell_model import (
    PreparedShells,
    ShellModel,
    State,
    fit_shell_model,
    signal_and_structures,
    structures,
    total_cost,
)


def search_shell_model(
    shells: PreparedShells,
    starts: list[NDArray[np.int64]],
    *,
    attempts: int = 12,
) -> ShellModel:
    """Likeliest partition found from several starts, by moving maps, and splitting one while uniting two.

    Parameters
    ----------
    shells : PreparedShells
    starts : list of int[N]
        Partitions, all with the same number of structures.
    attempts : int
        At most so many splits with a union are kept.
    """
    unique = {labels.tobytes(): labels for labels in map(_canonical, starts)}
    fitted = [fit_shell_model(shells, labels) for labels in unique.values()]
    best = min(fitted, key=lambda model: model.cost)
    tried: set[bytes] = {_canonical(model.labels).tobytes() for model in fitted}
    for _ in range(attempts):
        better = None
        for labels in _split_and_unite(shells, best):
            key = _canonical(labels).tobytes()
            if key in tried:
                continue
            tried.add(key)
            model = fit_shell_model(shells, labels, rounds=3)
            tried.add(_canonical(model.labels).tobytes())
            if model.cost < best.cost - 1e-3 and (better is None or model.cost < better.cost):
                better = model
        if better is None:
            break
        best = fit_shell_model(shells, better.labels)
    return best


def _canonical(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _split_and_unite(
    shells: PreparedShells, model: ShellModel, n_unions: int = 2
) -> list[NDArray[np.int64]]:
    """Partitions with one superclass split in two and the two united whose union costs least."""
    k = model.structure_correlation.shape[-1]
    if k < 2:
        return []
    state, _ = signal_and_structures(shells, model.labels, k)
    unions = []
    for a in range(k):
        for b in range(a + 1, k):
            united = _canonical(np.where(model.labels == b, a, model.labels))
            gamma, gamma_cost = structures(state, united, k - 1)
            cost = total_cost(state, gamma, united) + gamma_cost
            unions.append((cost, united))
    unions.sort(key=lambda pair: pair[0])
    proposals = []
    for _, united in unions[:n_unions]:
        for c in range(k - 1):
            members = np.flatnonzero(united == c)
            if len(members) < 2:
                continue
            for part in _halves(state, members):
                labels = united.copy()
                labels[part] = k - 1
                proposals.append(labels)
    return proposals


def _halves(state: State, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Ways to part a superclass: by the leading direction of its residuals, and its oddest map alone."""
    r = state.r[:, members]
    c = state.correlation[:, members][:, :, members]
    product = r[:, :, None] * r[:, None, :]
    inverse_snr = np.where(r > 0, state.noise[:, members] / np.maximum(r, 1e-6) ** 2, 1e3)
    sd = np.sqrt(inverse_snr + 1e-3)
    residual = np.where(product > 0, c / np.maximum(product, 1e-6) - 1, 0)
    score = (state.coefficients[:, None, None] * residual / (sd[:, :, None] * sd[:, None, :])).sum(axis=0)
    np.fill_diagonal(score, 0)
    score = score - score.mean(axis=0) - score.mean(axis=1)[:, None] + score.mean()
    vectors = np.linalg.eigh((score + score.T) / 2)[1]
    leading = vectors[:, -1]
    parts = [members[leading > 0], members[[int(np.abs(leading).argmax())]]]
    return [part for part in parts if 0 < len(part) < len(members)]
