"""Gaussian model of shell correlations: every class map is one of K structures plus its own noise.

In a shell, map i has coefficients ``r_i G_z(i) + sqrt(1 - r_i^2) noise`` (unit power), where the K structures
G correlate by the matrix Gamma of the shell. The matrix of shell correlations between maps is then Wishart
distributed about ``R Z Gamma Z' R + 1 - R^2``, a factor analysis with the structures as factors. Its
likelihood compares a map with what all other maps together say about a structure: a matched filter, far more
sensitive than the sum of pairwise differences, in which the noise of both maps adds up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regroup_dask.science.reliability import Reliability, shared_variance

_SHELL_PRIOR = 30.0
_NEIGHBOURING_SHELLS = 2.0
_PRIOR_ROUNDS = 3
_SIGNAL_ROUNDS = 2
_MOST_SIGNAL = 0.9995
_LEAST_EIGENVALUE = 1e-4


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


class PreparedShells(NamedTuple):
    """What the model is fitted to: the shells in which at least two maps have signal, shells first.

    Attributes
    ----------
    correlation : float64[S, N, N]
        Unit diagonal.
    r : float64[S, N]
        Root of the share of signal, as measured; zero where a map has none.
    r_variance : float64[S, N]
        Variance of its relative error.
    coefficients : float64[S]
    variability : float64[S]
        Share of the signal power by which maps of one structure may differ.
    """

    correlation: NDArray[np.float64]
    r: NDArray[np.float64]
    r_variance: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    variability: NDArray[np.float64]


class State(NamedTuple):
    """Signal and noise of the maps, given a partition."""

    correlation: NDArray[np.float64]  # [S, N, N], unit diagonal
    r: NDArray[np.float64]  # [S, N]
    noise: NDArray[np.float64]  # [S, N]
    coefficients: NDArray[np.float64]  # [S]
    prior_cost: float


def prepare_shells(comparison: ShellComparison, *, variability: float = 0.002) -> PreparedShells:
    """Put the shells first and drop those without signal."""
    q = np.clip(np.nan_to_num(comparison.reliability.signal_fraction, nan=0.0), 0.0, _MOST_SIGNAL).T[1:]
    variance = shared_variance(comparison.reliability, comparison.coefficients).T[1:]
    used = (q > 0).sum(axis=1) > 1
    correlation = np.nan_to_num(comparison.fsc.transpose(2, 0, 1)[1:][used])
    n = q.shape[1]
    correlation[:, np.arange(n), np.arange(n)] = 1.0
    return PreparedShells(
        correlation,
        np.sqrt(q[used]),
        np.where(q > 0, np.nan_to_num(variance), 0.0)[used] + 1e-9,
        comparison.coefficients[1:][used],
        np.full(int(used.sum()), variability),
    )


def fit_shell_model(shells: PreparedShells, labels: NDArray[np.int64], *, rounds: int = 6) -> ShellModel:
    """Improve a partition: estimate signal and structures from it, move maps to their likeliest, repeat.

    Parameters
    ----------
    shells : PreparedShells
    labels : int[N]
        Where to start; the number of structures stays.
    rounds : int
        At most so many.
    """
    labels = labels.copy()
    n, k = len(labels), int(labels.max()) + 1
    for _ in range(rounds):
        state, gamma, sums = _signal_and_structures(shells, labels, k)
        placing = _placing(sums, gamma)
        before = labels.copy()
        for i in range(n):
            if (labels == labels[i]).sum() == 1:
                continue
            costs = _placement_costs(state, sums, placing, labels, i)
            best = int(costs.argmin())
            if costs[best] < costs[labels[i]] - 1e-6:
                _move(state, sums, i, int(labels[i]), best)
                labels[i] = best
                placing = _placing(sums, gamma)
        if (labels == before).all():
            break
    else:
        state, gamma, sums = _signal_and_structures(shells, labels, k)
    placing = _placing(sums, gamma)
    placements = np.stack([_placement_costs(state, sums, placing, labels, i) for i in range(n)])
    return ShellModel(labels, total_cost(state, gamma, labels), gamma, placements)


def signal_and_structures(
    shells: PreparedShells, labels: NDArray[np.int64], k: int
) -> tuple[State, NDArray[np.float64]]:
    """Signal of the maps and correlations of the structures, each from the other, for a partition.

    All other maps predict the structure that a map shows; how far it correlates with the prediction measures
    its signal anew, and counts by its variance against that of the signal first measured.
    """
    return _signal_and_structures(shells, labels, k)[:2]


def _signal_and_structures(
    shells: PreparedShells, labels: NDArray[np.int64], k: int
) -> tuple[State, NDArray[np.float64], _Sums]:
    """The same, and the sums over the maps of each structure."""
    r, prior_cost = shells.r, 0.0
    for _ in range(_SIGNAL_ROUNDS):
        state = _state(shells, r, prior_cost)
        sums = _sums(state, labels, k)
        r, prior_cost = _signal(shells, state, sums, structures(state, labels, k, sums)[0], labels)
    state = _state(shells, r, prior_cost)
    sums = _sums(state, labels, k)
    gamma, gamma_cost = structures(state, labels, k, sums)
    return state._replace(prior_cost=prior_cost + gamma_cost), gamma, sums


def _state(shells: PreparedShells, r: NDArray[np.float64], prior_cost: float) -> State:
    return State(
        shells.correlation, r, 1 - (1 - shells.variability[:, None]) * r**2, shells.coefficients, prior_cost
    )


def _signal(
    shells: PreparedShells, state: State, sums: _Sums, gamma: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Root of the share of signal of every map, given what all others say; and minus twice its log prior.

    Without map i the precision of its structure is less by its weight w. One entry of a diagonal changes, so the
    posterior C of the structures, of which the row l of its own structure is needed, becomes C_l / (1 - w C_ll) (Sherman
    and Morrison, 1950, Ann. Math. Stat. 21, 124-127).
    """
    maps = np.arange(len(labels))
    posterior = _posterior(gamma, sums.precision)
    own = posterior[:, labels]
    weight = np.minimum(sums.weight, sums.precision[:, labels])
    prediction = own / (1 - weight * own[:, maps, labels])[:, :, None]
    projection = sums.projection.copy()
    projection[:, maps, labels] -= sums.load
    here = prediction[:, maps, labels]
    power = ((prediction @ sums.gram) * prediction).sum(axis=2)
    power -= 2 * here * sums.load * (prediction * projection).sum(axis=2) + (here * sums.load) ** 2
    power = np.maximum(power, 1e-3)
    unsure = np.clip(here, 0, 1)
    seen = (prediction * projection).sum(axis=2) / power
    first = np.maximum(shells.r, 1e-3)
    left = 1 - np.minimum(state.r, 1) ** 2 * (1 - unsure - shells.variability[:, None])
    variance = left / (2 * shells.coefficients[:, None] * power) / first**2
    correction = np.clip(seen / first - 1, -0.5, 0.5) * shells.r_variance / (shells.r_variance + variance)
    correction = np.where((shells.r > 0) & (power > 2e-3), correction, 0.0)
    r = np.clip(shells.r * (1 + correction), 0.0, np.sqrt(_MOST_SIGNAL))
    return r, float((correction**2 / shells.r_variance).sum())


def structures(
    state: State, labels: NDArray[np.int64], k: int, sums: _Sums | None = None
) -> tuple[NDArray[np.float64], float]:
    """Correlations of the structures per shell, float64[S, K, K], and minus twice the log of their prior.

    Maps of one structure, each weighted by its signal over its noise, add up to one map of known noise; with
    the noise whitened, the likeliest covariance of the structures keeps the eigenvalues above one, less one
    (factor analysis with known noise). The prior is the mean over neighbouring shells, as if it had been seen
    in `_SHELL_PRIOR` coefficients more with the same noise.
    """
    sums = _sums(state, labels, k) if sums is None else sums
    known = np.maximum(sums.precision, 1e-6)
    root = np.sqrt(known)
    scale = root[:, :, None] * root[:, None, :]
    coefficients = 2 * state.coefficients[:, None, None]
    whitened = sums.gram / scale
    shell = np.arange(len(known))
    near = np.exp(-0.5 * ((shell[:, None] - shell[None]) / _NEIGHBOURING_SHELLS) ** 2) + 0.02

    gamma = np.clip(whitened / scale, -1, 1)
    gamma[:, np.arange(k), np.arange(k)] = 1.0
    for _ in range(_PRIOR_ROUNDS):
        apart = 1 - np.clip(gamma, 0, 1) ** 2
        weight = coefficients / ((1 / known[:, :, None] + apart) * (1 / known[:, None, :] + apart) + 1e-6)
        weight = np.minimum(weight, 1e4)
        mean = np.tensordot(near, weight * gamma, 1) / np.tensordot(near, weight, 1)
        prior = _correlation_matrix(mean) * scale + np.eye(k)
        values, vectors = np.linalg.eigh(
            (coefficients * whitened + _SHELL_PRIOR * prior) / (coefficients + _SHELL_PRIOR)
        )
        signal = (vectors * np.maximum(values - 1, 1e-6)[:, None, :]) @ vectors.transpose(0, 2, 1)
        gamma = _correlation_matrix(signal / scale)
    modelled = gamma * scale + np.eye(k)
    apart = np.trace(np.linalg.solve(modelled, prior), axis1=1, axis2=2) - k
    apart += np.linalg.slogdet(modelled)[1] - np.linalg.slogdet(prior)[1]
    return gamma, _SHELL_PRIOR * float(apart.sum())


def _correlation_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive definite matrix with unit diagonal, by clipping eigenvalues; over the last two axes."""
    matrix = (matrix + np.swapaxes(matrix, -1, -2)) / 2
    try:  # a tenth of the time of the eigenvalues, and there is often nothing to clip
        np.linalg.cholesky(matrix - _LEAST_EIGENVALUE * np.eye(matrix.shape[-1]))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        matrix = (vectors * np.maximum(values, _LEAST_EIGENVALUE)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
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


def _sums(state: State, labels: NDArray[np.int64], k: int) -> _Sums:
    member = (labels[:, None] == np.arange(k)[None]).astype(np.float64)
    load = state.r / state.noise
    weight = state.r * load
    loaded = load[:, :, None] * member[None]
    projection = state.correlation @ loaded
    return _Sums(load, weight, projection, loaded.transpose(0, 2, 1) @ projection, weight @ member)


def _move(state: State, sums: _Sums, i: int, source: int, target: int) -> None:
    """Update the sums in place for map i going from one structure to another."""
    for structure, sign in ((source, -1.0), (target, 1.0)):
        change = sign * sums.load[:, i]
        own = change[:, None] * sums.projection[:, i, :]
        sums.gram[:, structure, :] += own
        sums.gram[:, :, structure] += own
        sums.gram[:, structure, structure] += change**2
        sums.projection[:, :, structure] += change[:, None] * state.correlation[:, :, i]
        sums.precision[:, structure] += sign * sums.weight[:, i]


class _Placing(NamedTuple):
    """What placing the maps one after the other has in common, as long as none moves."""

    posterior: NDArray[np.float64]  # [S, K, K]
    diagonal: NDArray[np.float64]  # [S, K], of the posterior
    seen: NDArray[np.float64]  # [S, K, K]: posterior, gram, posterior
    power: NDArray[np.float64]  # [S, K], its diagonal


def _placing(sums: _Sums, gamma: NDArray[np.float64]) -> _Placing:
    posterior = _posterior(gamma, sums.precision)
    seen = posterior @ sums.gram @ posterior
    return _Placing(posterior, np.einsum("skk->sk", posterior), seen, np.einsum("skk->sk", seen))


def _placement_costs(
    state: State, sums: _Sums, placing: _Placing, labels: NDArray[np.int64], i: int
) -> NDArray[np.float64]:
    """Minus twice the log likelihood of map i as each structure, given all other maps, float64[K].

    With the map, of weight w, taken out of its structure l the posterior is C + u u' w / (1 - w C_ll), u the column l of
    C, and the products of the structures lose a row and a column; all that is asked of them follows from what they are
    with the map.
    """
    own = int(labels[i])
    load, weight = sums.load[:, i, None], np.minimum(sums.weight[:, i], sums.precision[:, own])[:, None]
    projection = sums.projection[:, i, :].copy()
    projection[:, own] -= sums.load[:, i]
    column = placing.posterior[:, :, own]
    left = 1 / (1 - weight * column[:, own, None])
    gain = weight * left
    along = (placing.posterior @ projection[:, :, None])[:, :, 0]
    predicted = along + gain * column * along[:, own, None]
    power = placing.power + 2 * gain * column * placing.seen[:, :, own]
    power += (gain * column) ** 2 * placing.seen[:, own, own, None]
    power -= 2 * left * column * load * predicted + (left * column * load) ** 2
    r = state.r[:, i, None]
    variance = state.noise[:, i, None] + r**2 * (placing.diagonal + gain * column**2)
    misfit = 1 - 2 * r * predicted + r**2 * power
    return np.asarray((2 * state.coefficients[:, None] * (np.log(variance) + misfit / variance)).sum(axis=0))


def total_cost(state: State, gamma: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Minus twice the log likelihood of all maps (Wishart), with the cost of correcting signal shares."""
    k = gamma.shape[-1]
    sums = _sums(state, labels, k)
    posterior = _posterior(gamma, sums.precision)
    log_determinant = (
        np.log(state.noise).sum(axis=1) + np.linalg.slogdet(np.eye(k) + gamma * sums.precision[:, None, :])[1]
    )
    trace = (1 / state.noise).sum(axis=1) - np.einsum("skl,slk->s", posterior, sums.gram)
    return float((2 * state.coefficients * (log_determinant + trace)).sum() + state.prior_cost)
