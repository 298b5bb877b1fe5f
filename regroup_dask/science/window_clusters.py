"""Which structures look alike in a window: their densities fall into clusters, united greedily, all steps averaged over.

Structures of one sample are related: two that both lack a subunit are alike where it would be, and all are alike almost
everywhere else. Charging every structure of a window with a difference of its own makes it cheap to call two related
structures one and to part a noisy map from its own. So in each window the groups of maps start as K clusters; the two
whose contrast is least significant are united, and again until one is left (as in Ward, 1963, J. Am. Stat. Assoc. 58,
236-244, with the noise of each known). Each of the K clusterings has a marginal likelihood, and they are averaged over,
the numbers of clusters and then the clusterings of a number being equally likely before.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Sizes that are done side by side, and groups that are.
LANES, BLOCK = 16, 8
# Where in a row of `LANES` for each what is carried from union to union stands: distances that a compiler knows.
SIZE, LOGS, PRECISION, WITHIN, SQUARED, INVERSE, ALONG, BESIDE, FIRST, SECOND = range(0, 10 * LANES, LANES)
SECTIONS = 10
# Factors of a determinant that are multiplied before a logarithm is taken.
FACTORS = 8
# Terms of a sum that are smaller than the largest by more than exp of this are left out.
NEGLIGIBLE = 45.0
# A product and a sum may be rounded as one; nothing else is let go for speed.
FAST = {"contract"}



@functools.cache
def log_prior_of_unions(n_groups: int) -> NDArray[np.float64]:
    """Log prior probability of a clustering after 0 .. K - 1 unions of K groups, float64[K].

    Uniform over numbers of clusters, then over the clusterings with that number (Stirling numbers of the second kind).
    """
    count = np.zeros(n_groups + 1)
    count[0] = 1.0
    for _ in range(n_groups):
        count[1:] = count[1:] * np.arange(1, n_groups + 1) + count[:-1]
        count[0] = 0.0
    return np.asarray(-np.log(n_groups) - np.log(count[:0:-1]))


@njit(inline="always")
def _log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a positive normal number, to the last bit or two, in steps that a compiler does side by side.

    The exponent is taken off, and log((1 + f) / (1 - f)) = 2 (f + f^3 / 3 + ...) for a rest between 0.7 and 1.4.
    """
    bits = np.float64(x).view(np.int64)
    exponent = np.float64((bits >> 52) - 1023)
    rest = np.int64((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    large = rest > 1.4142135623730951
    rest = 0.5 * rest if large else rest
    exponent = exponent + 1.0 if large else exponent
    f = (rest - 1) / (rest + 1)
    s = f * f
    series = 1 / 21
    series = series * s + 1 / 19
    series = series * s + 1 / 17
    series = series * s + 1 / 15
    series = series * s + 1 / 13
    series = series * s + 1 / 11
    series = series * s + 1 / 9
    series = series * s + 1 / 7
    series = series * s + 1 / 5
    series = series * s + 1 / 3
    return exponent * 0.6931471805599453 + (2 * f + 2 * f * s * series)


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _score_row(row, inverse, gram, square, variance, coefficients, score):  # type: ignore[no-untyped-def]
    """Write into row and column of ``score[K, P]`` how little one group differs from each other one.

    ``inverse[B, P]`` is one over the precision of each group, 0 where it has none, ``gram[B, K, P]`` products of their
    precision-weighted sums, ``square`` its diagonal, ``variance[B]`` that of a difference. The score is the log Bayes
    factor that the two differ not; a group that has nothing of a band says nothing there. P is at least K.
    """
    padded = score.shape[1]
    for e in range(padded):
        score[row, e] = 0.0
    for b in range(len(inverse)):
        first = inverse[b, row]
        if first <= 0:
            continue
        mean_square, twice_first = square[b, row] * first * first, 2 * first
        half, twice = 0.5 * coefficients[b], 2 * variance[b]
        for e in range(padded):
            second = inverse[b, e]
            noise = first + second
            whole = noise + twice
            shrunk = 1 / (noise * whole)
            contrast = mean_square + square[b, e] * second * second - twice_first * second * gram[b, row, e]
            value = half * (_log(whole * whole * shrunk) - contrast * twice * shrunk)
            score[row, e] += value if second > 0 else 0.0
    for e in range(len(score)):
        score[e, row] = score[row, e]


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _begin(loads, gram, shared, sizes, coefficients, base, prior, space):  # type: ignore[no-untyped-def]
    """Put into ``space`` what the groups of one window give before any union."""
    alpha, state, terms = space
    k = alpha.shape[1]
    for a in range(k):
        terms[a] = prior[a]
    for b in range(len(shared)):
        p = shared[b]
        for s in range(LANES):
            state[b, SIZE + s] = sizes[b, s] * p
            state[b, LOGS + s] = 0.0
            state[b, PRECISION + s] = 0.0
            state[b, WITHIN + s] = 0.0
            state[b, SQUARED + s] = 0.0
            state[b, INVERSE + s] = 1.0
        for a in range(k):
            load, own = loads[b, a], gram[b, a, a]
            for s in range(LANES):
                x = 1 + state[b, SIZE + s] * load
                new = 1 / x
                state[b, FIRST + s] = new
                state[b, INVERSE + s] *= x
                state[b, PRECISION + s] += load * new
                state[b, WITHIN + s] += state[b, SIZE + s] * new * own
                state[b, ALONG + s] = 0.5 * own * new
            for e in range(a):
                value = gram[b, a, e]
                for s in range(LANES):
                    state[b, ALONG + s] += value * alpha[b, e, s]
            for s in range(LANES):
                state[b, SQUARED + s] += 2 * state[b, FIRST + s] * state[b, ALONG + s]
            for s in range(LANES):
                alpha[b, a, s] = state[b, FIRST + s]
            if a % FACTORS == FACTORS - 1:  # a product of more factors might be too large for a number
                for s in range(LANES):
                    state[b, LOGS + s] += _log(state[b, INVERSE + s])
                    state[b, INVERSE + s] = 1.0
        half, known = 0.5 * coefficients[b], base[b]
        for s in range(LANES):
            q = 1 + p * state[b, PRECISION + s]
            state[b, LOGS + s] += _log(state[b, INVERSE + s] * q)
            state[b, INVERSE + s] = 1 / q
            value = known + state[b, LOGS + s] - state[b, WITHIN + s] - state[b, SQUARED + s] * p * state[b, INVERSE + s]
            state[b, ALONG + s] = half * value
        for s in range(LANES):
            terms[0, s] -= state[b, ALONG + s]


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _unite(loads, inverse, gram, shared, guide, coefficients, base, score, order, space):  # type: ignore[no-untyped-def]
    """Unite groups of one window, least significant contrast first, after `_begin`; terms of ``space`` are added to.

    ``loads[B, P]``, ``inverse[B, P]``, ``gram[B, K, P]`` and ``score[K, P]`` (from `_score_row`) are overwritten, and
    ``order[K - 1, 2]``, which group takes which other up, is written. A union changes one group, so that determinant,
    weighted squares and their shrinkage (``alpha``) follow from those before; sizes are done side by side.
    """
    alpha, state, terms = space
    n_bands, k, padded = gram.shape
    square = np.zeros((n_bands, padded))
    for b in range(n_bands):
        for a in range(k):
            square[b, a] = gram[b, a, a]
    living = np.arange(k)
    for step in range(1, k):
        n_living = k - step + 1
        best, kept_at, gone_at = -np.inf, 0, 1
        for first in range(n_living):
            row = living[first]
            for second in range(first + 1, n_living):
                value = score[row, living[second]]
                if value > best:
                    best, kept_at, gone_at = value, first, second
        kept, gone = living[kept_at], living[gone_at]
        order[step - 1, 0], order[step - 1, 1] = kept, gone
        n_living -= 1
        for at in range(gone_at, n_living):
            living[at] = living[at + 1]
        for b in range(n_bands):
            p, half, known = shared[b], 0.5 * coefficients[b], base[b]
            load_kept, load_gone = loads[b, kept], loads[b, gone]
            load = load_kept + load_gone
            own_kept, own_gone, cross = square[b, kept], square[b, gone], gram[b, kept, gone]
            own = own_kept + own_gone + 2 * cross
            for s in range(LANES):
                state[b, ALONG + s] = 0.0
                state[b, BESIDE + s] = 0.0
            for at in range(n_living):
                e = living[at]
                if e == kept:
                    continue
                value_kept, value_gone = gram[b, kept, e], gram[b, gone, e]
                for s in range(LANES):
                    state[b, ALONG + s] += value_kept * alpha[b, e, s]
                    state[b, BESIDE + s] += value_gone * alpha[b, e, s]
                gram[b, kept, e] = gram[b, e, kept] = value_kept + value_gone
            for s in range(LANES):
                state[b, FIRST + s] = alpha[b, kept, s]
                state[b, SECOND + s] = alpha[b, gone, s]
            for s in range(LANES):
                d, first, second = state[b, SIZE + s], state[b, FIRST + s], state[b, SECOND + s]
                x = 1 + d * load
                precision = state[b, PRECISION + s] - first * load_kept - second * load_gone
                z = x * (1 + p * precision) + p * load  # the new q times x
                both = 1 / (x * z)  # one division for 1 / x and 1 / q
                new, one_over_q = z * both, x * x * both
                change = (new - first) * state[b, ALONG + s] + (new - second) * state[b, BESIDE + s]
                change = 2 * change + new * new * own - first * first * own_kept
                squared = state[b, SQUARED + s] + change - second * second * own_gone - 2 * first * second * cross
                within = state[b, WITHIN + s] + d * (new * own - first * own_kept - second * own_gone)
                logs = state[b, LOGS + s] + _log(z * first * second * state[b, INVERSE + s])
                state[b, SQUARED + s] = squared
                state[b, PRECISION + s] = precision + new * load
                state[b, WITHIN + s] = within
                state[b, LOGS + s] = logs
                state[b, INVERSE + s] = one_over_q
                state[b, FIRST + s] = new
                state[b, ALONG + s] = half * (known + logs - within - squared * p * one_over_q)
            for s in range(LANES):
                alpha[b, kept, s] = state[b, FIRST + s]
            for s in range(LANES):
                terms[step, s] -= state[b, ALONG + s]
            loads[b, kept] = load
            inverse[b, kept] = 1 / load if load > 0 else 0.0
            inverse[b, gone] = 0.0
            square[b, kept] = own
        if step < k - 1:
            _score_row(kept, inverse, gram, square, guide, coefficients, score)


@njit(cache=True, error_model="numpy")
def _space(n_bands, k):  # type: ignore[no-untyped-def]
    """Room that `_begin` and `_unite` work in: shrinkage of every group, what is carried along, and the terms."""
    return np.empty((n_bands, k, LANES)), np.empty((n_bands, SECTIONS * LANES)), np.empty((k, LANES))


@njit(cache=True, error_model="numpy")
def _in_lanes(sizes):  # type: ignore[no-untyped-def]
    """Sizes of each band, float64[B, LANES], those beyond the sizes that there are being zero."""
    out = np.zeros((sizes.shape[1], LANES))
    out[:, : len(sizes)] = sizes.T
    return out


@njit(cache=True, error_model="numpy")
def _inverted(loads):  # type: ignore[no-untyped-def]
    """One over each, 0 for those of 0."""
    out = np.zeros(loads.shape)
    for b in range(loads.shape[0]):
        for a in range(loads.shape[1]):
            if loads[b, a] > 0:
                out[b, a] = 1 / loads[b, a]
    return out


@njit(cache=True, error_model="numpy")
def contrast_scores(weight, gram, shared, guide, coefficients):  # type: ignore[no-untyped-def]
    """How little every two groups differ in each window, float64[W, K, P], as `_score_row` takes them further."""
    n_bands, n_windows, k = weight.shape
    padded = -(-k // BLOCK) * BLOCK
    out = np.zeros((n_windows, k, padded))
    loads, g, square = np.zeros((n_bands, padded)), np.zeros((n_bands, k, padded)), np.zeros((n_bands, padded))
    for w in range(n_windows):
        loads[:, :k] = weight[:, w]
        g[:, :, :k] = gram[:, w]
        for b in range(n_bands):
            for a in range(k):
                square[b, a] = g[b, a, a]
        inverse = _inverted(loads)
        for a in range(k):
            _score_row(a, inverse, g, square, guide * shared[:, w], coefficients[:, w], out[w])
    return out


@njit(cache=True, error_model="numpy")
def partition_terms(weight, gram, shared, sizes, guide, coefficients, base, prior):  # type: ignore[no-untyped-def]
    """Log likelihood and prior of a partition per window, size and union, float64[W, G, K]; and the order of unions.

    ``weight[B, W, K]`` is the precision of each group, ``gram[B, W, K, K]`` products of their precision-weighted sums,
    ``shared[B, W]``, ``sizes[G, B]`` (at most `LANES`), ``guide[B]`` (the size by which unions are ordered),
    ``coefficients[B, W]``, ``base[B, W]``, ``prior[K]``. The order is int64[W, K - 1, 2], which group takes which other up.
    """
    n_bands, n_windows, k = weight.shape
    scores = contrast_scores(weight, gram, shared, guide, coefficients)
    padded = scores.shape[2]
    wide, space = _in_lanes(sizes), _space(n_bands, k)
    out = np.empty((n_windows, len(sizes), k))
    order = np.zeros((n_windows, max(k - 1, 1), 2), np.int64)
    loads, g = np.zeros((n_bands, padded)), np.zeros((n_bands, k, padded))
    for w in range(n_windows):
        loads[:, :k] = weight[:, w]
        g[:, :, :k] = gram[:, w]
        p, c, known = shared[:, w].copy(), coefficients[:, w].copy(), base[:, w].copy()
        _begin(loads, g, p, wide, c, known, prior, space)
        _unite(loads, _inverted(loads), g, p, guide * p, c, known, scores[w], order[w], space)
        out[w] = space[2][:, : len(sizes)].T
    return out, order


@njit(cache=True, error_model="numpy")
def placement_evidence(  # type: ignore[no-untyped-def]
    weight, gram, product, own, power, home, here, shared, sizes, guide, coefficients, base, prior, log_share, scores
):
    """Log evidence per window with one map put in each group instead of its own, float64[W, K].

    ``weight``, ``gram`` and ``scores`` are those of the groups as they are, with the map in the group ``home``, of evidence
    ``here[W]``. ``product[B, W, K]`` is the map's own precision times its product with the sum of each group without it,
    ``own[B, W]`` its precision, ``power[B, W]`` its own precision squared times its square. Of the contrasts between groups
    only those with the group that it leaves and with the one that it comes to are anew.
    """
    n_bands, n_windows, k = weight.shape
    padded = scores.shape[2]
    wide, space = _in_lanes(sizes), _space(n_bands, k)
    terms = space[2]
    out = np.empty((n_windows, k))
    order = np.zeros((max(k - 1, 1), 2), np.int64)
    lighter, left, square = np.zeros((n_bands, padded)), np.zeros((n_bands, k, padded)), np.zeros((n_bands, padded))
    loads, g = np.zeros((n_bands, padded)), np.zeros((n_bands, k, padded))
    for w in range(n_windows):
        p, c, known = shared[:, w].copy(), coefficients[:, w].copy(), base[:, w].copy()
        variance, score = guide * p, scores[w].copy()
        lighter[:, :k] = weight[:, w]
        left[:, :, :k] = gram[:, w]
        for b in range(n_bands):
            lighter[b, home] = max(lighter[b, home] - own[b, w], 0.0)
            for a in range(k):
                left[b, home, a] -= product[b, w, a]
                left[b, a, home] -= product[b, w, a]
            left[b, home, home] -= power[b, w]
            for a in range(k):
                square[b, a] = left[b, a, a]
        inverse = _inverted(lighter)
        _score_row(home, inverse, left, square, variance, c, score)
        for group in range(k):
            if group == home:
                out[w, group] = here[w]
                continue
            loads[:], g[:] = lighter, left
            heavier, anew = inverse.copy(), score.copy()
            for b in range(n_bands):
                loads[b, group] += own[b, w]
                if loads[b, group] > 0:
                    heavier[b, group] = 1 / loads[b, group]
                for a in range(k):
                    g[b, group, a] += product[b, w, a]
                    g[b, a, group] += product[b, w, a]
                g[b, group, group] += power[b, w]
                square[b, group] = g[b, group, group]
            _score_row(group, heavier, g, square, variance, c, anew)
            for b in range(n_bands):
                square[b, group] = left[b, group, group]
            _begin(loads, g, p, wide, c, known, prior, space)
            _unite(loads, heavier, g, p, variance, c, known, anew, order, space)
            largest = -np.inf
            for a in range(k):
                for s in range(len(log_share)):
                    terms[a, s] += log_share[s]
                    largest = max(largest, terms[a, s])
            total = 0.0
            for a in range(k):
                for s in range(len(log_share)):
                    if terms[a, s] > largest - NEGLIGIBLE:
                        total += math.exp(terms[a, s] - largest)
            out[w, group] = largest + math.log(total)
    return out


def clusters_after_unions(order: NDArray[np.int64], n_groups: int) -> NDArray[np.bool_]:
    """Which two groups are in one cluster after 0 .. K - 1 unions of each window, bool[W, K, K, K]."""
    n_windows = len(order)
    rows = np.arange(n_windows)
    cluster = np.tile(np.arange(n_groups), (n_windows, 1))
    together = np.empty((n_windows, n_groups, n_groups, n_groups), bool)
    for step in range(n_groups):
        together[:, step] = cluster[:, :, None] == cluster[:, None, :]
        if step < n_groups - 1:
            kept, gone = cluster[rows, order[:, step, 0]], cluster[rows, order[:, step, 1]]
            cluster = np.where(cluster == gone[:, None], kept[:, None], cluster)
    return together
