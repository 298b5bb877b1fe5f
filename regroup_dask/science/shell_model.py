"""Gaussian model of shell correlations: every class map is one of K structures plus its own noise.

In a shell, map i has coefficients ``r_i G_z(i) + sqrt(1 - r_i^2) noise`` (unit power), where the K structures
G correlate by the matrix Gamma of the shell. The matrix of shell correlations between maps is then Wishart
distributed about ``R Z Gamma Z' R + 1 - R^2``, a factor analysis with the structures as factors. Its
likelihood compares a map with what all other maps together say about a structure: a matched filter, far more
sensitive than the sum of pairwise differences, in which the noise of both maps adds up.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.consensus import share_signal
from regroup_dask.science.reliability import Reliability

_FINE_VARIABILITY = 0.0
_SHELL_PRIOR = 16.0
_EXPECTATION_ROUNDS = 12


class ShellComparison(NamedTuple):
    """Shell correlations of N maps and what is known of their noise.

    Attributes
    ----------
    fsc : float64[N, N, S]
        Shell correlations; NaN where not compared.
    reliability : Reliability
        Share of signal per map and shell, with its uncertainty.
    coefficients : float64[S]
        Independent complex coefficients per shell under the mask.
    """

    fsc: NDArray[np.float64]
    reliability: Reliability
    coefficients: NDArray[np.float64]


class ShellModel(NamedTuple):
    """A partition and what it says.

    Attributes
    ----------
    labels : int64[N]
    cost : float
        Minus twice the log likelihood, up to a constant.
    structure_correlation : float64[S, K, K]
    placement_costs : float64[N, K]
        Minus twice the log likelihood of each map as each structure, all others held.
    """

    labels: NDArray[np.int64]
    cost: float
    structure_correlation: NDArray[np.float64]
    placement_costs: NDArray[np.float64]


class _State(NamedTuple):
    correlation: NDArray[np.float64]  # [S, N, N], unit diagonal
    r: NDArray[np.float64]  # [S, N]
    noise: NDArray[np.float64]  # [S, N]
    coefficients: NDArray[np.float64]  # [S]
    prior_cost: float


def fit_shell_model(
    comparison: ShellComparison, labels: NDArray[np.int64], *, variability: float = 0.002, rounds: int = 6
) -> ShellModel:
    """Improve a partition: estimate signal and structures from it, move maps to their likeliest, repeat.

    Parameters
    ----------
    comparison : ShellComparison
    labels : int[N]
        Where to start; the number of structures stays.
    variability : float
        Share of the signal power by which maps of one structure may differ.
    rounds : int
        At most so many.
    """
    labels = labels.copy()
    n, k = len(labels), int(labels.max()) + 1
    for _ in range(rounds):
        state = _state(comparison, labels, variability)
        gamma, occam = _structures(state, labels, k)
        sums = _sums(state, labels, k)
        before = labels.copy()
        for i in range(n):
            if (labels == labels[i]).sum() == 1:
                continue
            costs = _placement_costs(state, sums, gamma, labels, i)
            best = int(costs.argmin())
            if costs[best] < costs[labels[i]] - 1e-6:
                _move(state, sums, i, int(labels[i]), best)
                labels[i] = best
        if (labels == before).all():
            break
    state = _state(comparison, labels, variability)
    gamma, occam = _structures(state, labels, k)
    sums = _sums(state, labels, k)
    placements = np.stack([_placement_costs(state, sums, gamma, labels, i) for i in range(n)])
    return ShellModel(labels, _total_cost(state, gamma, labels) + occam, gamma, placements)


def _state(comparison: ShellComparison, labels: NDArray[np.int64], variability: float) -> _State:
    reliability = comparison.reliability
    same = (labels[:, None] == labels[None]).astype(np.float64)
    correction, _, prior_cost = share_signal(comparison.fsc, reliability, comparison.coefficients, same)
    q = reliability.signal_fraction * np.clip(1 + correction, 0.3, 1.7) ** 2
    q = np.clip(np.nan_to_num(q, nan=0.0), 0.0, 0.9995).T[1:]
    s = np.arange(1, comparison.fsc.shape[2]) / max(comparison.fsc.shape[2] - 1, 1)
    differing = (variability * (1 + _FINE_VARIABILITY * s**2))[:, None]
    correlation = np.nan_to_num(comparison.fsc).transpose(2, 0, 1)[1:].copy()
    n = len(labels)
    correlation[:, np.arange(n), np.arange(n)] = 1.0
    used = (q > 0).sum(axis=1) > 1
    q = q[used]
    return _State(
        correlation[used],
        np.sqrt(q),
        1 - q + differing[used] * q,
        comparison.coefficients[1:][used],
        prior_cost,
    )


def _structures(state: _State, labels: NDArray[np.int64], k: int) -> tuple[NDArray[np.float64], float]:
    """Correlations of the structures per shell, float64[S, K, K], and what having chosen them costs.

    Expectation-maximization, each shell with an inverse Wishart prior about the mean over shells (so
    correlations stay positive definite, and vary the less between shells the nearer they are to one). The
    cost is the part of the Laplace approximation of minus twice the log evidence that grows with what the
    maps tell of each correlation.
    """
    diagonal = np.arange(k)
    sums = _sums(state, labels, k)
    known = np.maximum(sums.precision, 1e-6)
    coefficients = 2 * state.coefficients[:, None, None]

    def information(gamma: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = 1 - np.clip(gamma, 0, 1) ** 2
        return coefficients / ((1 / known[:, :, None] + apart) * (1 / known[:, None, :] + apart) + 1e-6)

    crude = np.clip(sums.gram / known[:, :, None] / known[:, None, :], -1, 1)
    crude[:, diagonal, diagonal] = 1.0
    weight = np.minimum(information(crude), 1e4)
    mean = _correlation_matrix((weight * crude).sum(axis=0) / weight.sum(axis=0))
    gamma = np.broadcast_to(mean, crude.shape).copy()
    for _ in range(_EXPECTATION_ROUNDS):
        posterior = _posterior(gamma, sums.precision)
        second = posterior + posterior @ sums.gram @ posterior
        gamma = _correlation_matrix(
            (coefficients * second + _SHELL_PRIOR * mean) / (coefficients + _SHELL_PRIOR)
        )
        weight = np.minimum(information(gamma), 1e4)
        mean = _correlation_matrix((weight * gamma).sum(axis=0) / weight.sum(axis=0))
    above = np.triu(np.ones((k, k), bool), 1)
    told = information(gamma)
    spread = np.maximum(1 - mean**2, 0.005) ** 2
    occam = (
        np.log1p(told * spread / _SHELL_PRIOR)[:, above].sum()
        + np.log1p(0.01 * told.sum(axis=0))[above].sum()
    )
    return gamma, float(occam)


def _correlation_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive definite matrix with unit diagonal, by clipping eigenvalues; over the last two axes."""
    values, vectors = np.linalg.eigh((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    matrix = (vectors * np.maximum(values, 1e-4)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    scale = np.sqrt(np.einsum("...kk->...k", matrix))
    return np.asarray(matrix / scale[..., :, None] / scale[..., None, :])


def _posterior(gamma: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the structures given maps, ``(Gamma^-1 + diag(precision))^-1``, per shell."""
    k = gamma.shape[-1]
    return np.asarray(np.linalg.solve(np.eye(k) + gamma * precision[:, None, :], gamma))


class _Sums(NamedTuple):
    load: NDArray[np.float64]  # [S, N]: r / noise
    weight: NDArray[np.float64]  # [S, N]: r^2 / noise
    projection: NDArray[np.float64]  # [S, N, K]: sum over the maps of a structure of load times correlation
    gram: NDArray[np.float64]  # [S, K, K]
    precision: NDArray[np.float64]  # [S, K]


def _sums(state: _State, labels: NDArray[np.int64], k: int) -> _Sums:
    member = (labels[:, None] == np.arange(k)[None]).astype(np.float64)
    load = state.r / state.noise
    weight = state.r * load
    loaded = load[:, :, None] * member[None]
    projection = state.correlation @ loaded
    return _Sums(load, weight, projection, loaded.transpose(0, 2, 1) @ projection, weight @ member)


def _move(state: _State, sums: _Sums, i: int, source: int, target: int) -> None:
    """Update the sums in place for map i going from one structure to another."""
    for structure, sign in ((source, -1.0), (target, 1.0)):
        change = sign * sums.load[:, i]
        own = change[:, None] * sums.projection[:, i, :]
        sums.gram[:, structure, :] += own
        sums.gram[:, :, structure] += own
        sums.gram[:, structure, structure] += change**2
        sums.projection[:, :, structure] += change[:, None] * state.correlation[:, :, i]
        sums.precision[:, structure] += sign * sums.weight[:, i]


def _placement_costs(
    state: _State, sums: _Sums, gamma: NDArray[np.float64], labels: NDArray[np.int64], i: int
) -> NDArray[np.float64]:
    """Minus twice the log likelihood of map i as each structure, given all other maps, float64[K]."""
    own = int(labels[i])
    load = sums.load[:, i]
    projection = sums.projection[:, i, :].copy()
    projection[:, own] -= load
    gram = sums.gram.copy()
    gram[:, own, :] -= load[:, None] * projection
    gram[:, :, own] -= load[:, None] * projection
    gram[:, own, own] -= load**2
    precision = sums.precision.copy()
    precision[:, own] = np.maximum(precision[:, own] - sums.weight[:, i], 0)
    posterior = _posterior(gamma, precision)
    predicted = (posterior @ projection[:, :, None])[:, :, 0]
    power = ((posterior @ gram) * posterior).sum(axis=2)
    r = state.r[:, i, None]
    variance = state.noise[:, i, None] + r**2 * np.einsum("skk->sk", posterior)
    misfit = 1 - 2 * r * predicted + r**2 * power
    return np.asarray((2 * state.coefficients[:, None] * (np.log(variance) + misfit / variance)).sum(axis=0))


def _total_cost(state: _State, gamma: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Minus twice the log likelihood of all maps (Wishart), with the cost of correcting signal shares."""
    k = gamma.shape[-1]
    sums = _sums(state, labels, k)
    posterior = _posterior(gamma, sums.precision)
    log_determinant = (
        np.log(state.noise).sum(axis=1) + np.linalg.slogdet(np.eye(k) + gamma * sums.precision[:, None, :])[1]
    )
    trace = (1 / state.noise).sum(axis=1) - np.einsum("skl,slk->s", posterior, sums.gram)
    return float((2 * state.coefficients * (log_determinant + trace)).sum() + state.prior_cost)


def search_shell_model(
    comparison: ShellComparison,
    starts: list[NDArray[np.int64]],
    *,
    variability: float = 0.002,
    attempts: int = 12,
) -> ShellModel:
    """Likeliest partition found from several starts, by moving maps, and splitting one while uniting two.

    Parameters
    ----------
    comparison : ShellComparison
    starts : list of int[N]
        Partitions, all with the same number of structures.
    attempts : int
        At most so many splits with a union are kept.
    """
    unique = {labels.tobytes(): labels for labels in map(_canonical, starts)}
    fitted = [fit_shell_model(comparison, labels, variability=variability) for labels in unique.values()]
    best = min(fitted, key=lambda model: model.cost)
    tried: set[bytes] = {_canonical(model.labels).tobytes() for model in fitted}
    for _ in range(attempts):
        better = None
        for labels in _split_and_unite(comparison, best, variability):
            key = _canonical(labels).tobytes()
            if key in tried:
                continue
            tried.add(key)
            model = fit_shell_model(comparison, labels, variability=variability, rounds=3)
            tried.add(_canonical(model.labels).tobytes())
            if model.cost < best.cost - 1e-3 and (better is None or model.cost < better.cost):
                better = model
        if better is None:
            break
        best = fit_shell_model(comparison, better.labels, variability=variability)
    return best


def _canonical(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _split_and_unite(
    comparison: ShellComparison, model: ShellModel, variability: float, n_unions: int = 2
) -> list[NDArray[np.int64]]:
    """Partitions with one superclass split in two and the two united whose union costs least."""
    k = model.structure_correlation.shape[-1]
    if k < 2:
        return []
    state = _state(comparison, model.labels, variability)
    unions = []
    for a in range(k):
        for b in range(a + 1, k):
            united = _canonical(np.where(model.labels == b, a, model.labels))
            gamma, occam = _structures(state, united, k - 1)
            cost = _total_cost(state, gamma, united) + occam
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


def _halves(state: _State, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
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
