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


@njit(cache=True)
def union_order(weight, gram, variance, coefficients, order):  # type: ignore[no-untyped-def]
    """Write into ``order[K - 1, 2]`` which group takes which other up, least significant contrast first.

    ``weight[B, K]`` is the precision of each group, ``gram[B, K, K]`` products of their precision-weighted sums,
    ``variance[B]`` that of a difference. The score is the log Bayes factor that the two differ not.
    """
    n_bands, k = weight.shape
    weight = weight.copy()
    gram = gram.copy()
    alive = np.ones(k, np.bool_)
    score = np.zeros((k, k))
    last = -1
    for step in range(k - 1):
        for a in range(k):
            for c in range(a + 1, k):
                if not alive[a] or not alive[c] or (step > 0 and a != last and c != last):
                    continue
                value = 0.0
                for b in range(n_bands):
                    first, second = weight[b, a], weight[b, c]
                    if first <= 0 or second <= 0:
                        continue
                    both = first * second / (first + second)
                    contrast = gram[b, a, a] / first**2 + gram[b, c, c] / second**2
                    contrast -= 2 * gram[b, a, c] / (first * second)
                    x = 2 * variance[b] * both
                    value += 0.5 * coefficients[b] * (math.log(1 + x) - both * contrast * x / (1 + x))
                score[a, c] = value
        best = -np.inf
        kept, gone = 0, 0
        for a in range(k):
            for c in range(a + 1, k):
                if alive[a] and alive[c] and (gone == 0 or score[a, c] > best):
                    best, kept, gone = score[a, c], a, c
        order[step, 0], order[step, 1] = kept, gone
        alive[gone] = False
        last = kept
        for b in range(n_bands):
            weight[b, kept] += weight[b, gone]
            for a in range(k):
                gram[b, kept, a] += gram[b, gone, a]
            for a in range(k):
                gram[b, a, kept] += gram[b, a, gone]


@njit(cache=True)
def add_union_terms(weight, gram, shared, size, coefficients, base, order, out):  # type: ignore[no-untyped-def]
    """Add to ``out[K]`` the log likelihood of one window after 0 .. K - 1 unions, for one size of difference."""
    n_bands, k = weight.shape
    alpha, along, load, log_x = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    g = np.empty((k, k))
    for b in range(n_bands):
        p = shared[b]
        d = size[b] * p
        logs, precision, within, squared = 0.0, 0.0, 0.0, 0.0
        for a in range(k):
            load[a] = weight[b, a]
            x = 1 + d * load[a]
            log_x[a] = math.log(x)
            alpha[a] = 1 / x
            logs += log_x[a]
            precision += load[a] / x
            within += d / x * gram[b, a, a]
            for c in range(k):
                g[a, c] = gram[b, a, c]
        for a in range(k):
            total = 0.0
            for c in range(k):
                total += g[a, c] * alpha[c]
            along[a] = total
            squared += alpha[a] * total
        for step in range(k):
            q = 1 + p * precision
            value = base[b] + logs + math.log(q) - within - squared * p / q
            out[step] -= 0.5 * coefficients[b] * value
            if step == k - 1:
                break
            a, c = order[step, 0], order[step, 1]
            x = 1 + d * (load[a] + load[c])
            new, new_log = 1 / x, math.log(x)
            da, dc = new - alpha[a], new - alpha[c]
            squared += 2 * da * along[a] + 2 * dc * along[c]
            squared += da * da * g[a, a] + dc * dc * g[c, c] + 2 * da * dc * g[a, c]
            precision += new * (load[a] + load[c]) - alpha[a] * load[a] - alpha[c] * load[c]
            within += d * new * (g[a, a] + g[c, c] + 2 * g[a, c]) - d * alpha[a] * g[a, a] - d * alpha[c] * g[c, c]
            logs += new_log - log_x[a] - log_x[c]
            for e in range(k):
                along[e] += g[e, a] * da + g[e, c] * dc
            alpha[a], log_x[a] = new, new_log
            load[a] += load[c]
            along[a] += along[c]
            for e in range(k):
                g[a, e] += g[c, e]
            for e in range(k):
                g[e, a] += g[e, c]


@njit(cache=True)
def partition_terms(weight, gram, shared, sizes, guide, coefficients, base, prior):  # type: ignore[no-untyped-def]
    """Log likelihood and prior of a partition per window, size and union, float64[W, G, K]; and the order of unions.

    ``weight[B, W, K]``, ``gram[B, W, K, K]``, ``shared[B, W]``, ``sizes[G, B]``, ``guide[B]`` (the size by which unions
    are ordered), ``coefficients[B, W]``, ``base[B, W]``, ``prior[K]``.
    """
    n_windows, k = weight.shape[1:]
    out = np.empty((n_windows, sizes.shape[0], k))
    order = np.zeros((n_windows, max(k - 1, 1), 2), np.int64)
    for w in range(n_windows):
        union_order(weight[:, w], gram[:, w], guide * shared[:, w], coefficients[:, w], order[w])
        for size in range(sizes.shape[0]):
            out[w, size] = prior
            add_union_terms(
                weight[:, w], gram[:, w], shared[:, w], sizes[size], coefficients[:, w], base[:, w], order[w], out[w, size]
            )
    return out, order


@njit(cache=True)
def placement_evidence(  # type: ignore[no-untyped-def]
    weight, gram, product, own, power, shared, sizes, guide, coefficients, base, prior, log_share, groups
):
    """Log evidence per window with one map, not among the sums, put in each of some groups, float64[W, len(groups)].

    ``product[B, W, K]`` is the map's own precision times its product with the sum of each group, ``own[B, W]`` its
    precision, ``power[B, W]`` its own precision squared times its square.
    """
    n_bands, n_windows, k = weight.shape
    n_sizes = sizes.shape[0]
    out = np.empty((n_windows, len(groups)))
    terms = np.empty((n_sizes, k))
    order = np.zeros((max(k - 1, 1), 2), np.int64)
    heavier = np.empty((n_bands, k))
    g = np.empty((n_bands, k, k))
    for w in range(n_windows):
        for number, group in enumerate(groups):
            heavier[:] = weight[:, w]
            g[:] = gram[:, w]
            for b in range(n_bands):
                heavier[b, group] += own[b, w]
                for a in range(k):
                    g[b, group, a] += product[b, w, a]
                for a in range(k):
                    g[b, a, group] += product[b, w, a]
                g[b, group, group] += power[b, w]
            union_order(heavier, g, guide * shared[:, w], coefficients[:, w], order)
            largest = -np.inf
            for size in range(n_sizes):
                terms[size] = prior + log_share[size]
                add_union_terms(
                    heavier, g, shared[:, w], sizes[size], coefficients[:, w], base[:, w], order, terms[size]
                )
                largest = max(largest, terms[size].max())
            out[w, number] = largest + math.log(np.exp(terms - largest).sum())
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
