"""Gaussian random-effects model of maps in one frame: shared density, differences of structures in places, noise.

In a band and a window every coefficient of map i is ``a_i (g + d_c(i) + m_i) + e_i``: what all structures share,
what sets the structures of cluster c apart there, what a misfit of its pose costs map i, and noise. With variances P,
D, M and n the covariance of the maps is ``D C C' + P 1 1' + diag(v)`` in units of a; D is P times one of a few relative
sizes, and the structures fall into clusters that are alike in the window, which are tried for each window and averaged
over (a missing subunit fills its windows in all bands; see `window_clusters`). Nothing of the structures themselves has
to be estimated, so partitions into any numbers of superclasses compare fairly. This is the
one-way analysis of variance with random effects (Searle, Casella and McCulloch, 1992, Variance Components), map by
map weighted; gains, noise and misfit are improved by expectation maximization (Dempster, Laird and Rubin, 1977).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from regroup_dask.science.local_covariance import LocalCovariance
from regroup_dask.science.window_clusters import (
    clusters_after_unions,
    contrast_scores,
    log_prior_of_unions,
    partition_terms,
    placement_evidence,
)

SIZES = np.array([0.003, 0.02, 0.1, 0.4, 1.5])
GUIDING_SIZE = 0.1
LEAST_SIZE_SHARE = 1e-3
LEAST_MISFIT = 1e-3
EXPECTED_MISFIT = 5e-3
LARGEST_MISFIT = 0.3
GAIN_ERROR = 0.02


class Arrangement(NamedTuple):
    """A partition and what it gives before any map is moved.

    Attributes
    ----------
    labels : int64[N]
    weight : float64[B, W, K]
        Precision of each group.
    gram : float64[B, W, K, K]
        Products of the groups' weighted sums.
    product : float64[B, W, N, K]
        Products of each map with them.
    scores : float64[W, K, P]
        Of the contrasts between groups (see `window_clusters`).
    evidence : float64[W]
        Log evidence of the partition.
    """

    labels: NDArray[np.int64]
    weight: NDArray[np.float64]
    gram: NDArray[np.float64]
    product: NDArray[np.float64]
    scores: NDArray[np.float64]
    evidence: NDArray[np.float64]


class LocalModel:
    """Gains, noise, misfits and sizes of difference, and the evidence of partitions under them.

    Attributes
    ----------
    gain, noise : float64[B, N]
        Of each map in each band, relative to what it was divided by.
    misfit : float64[N]
        Share of the shared density, in the finest band, that a map loses to errors of its pose.
    log_share : float64[G]
        Log of how common each size of difference is.
    """

    def __init__(self, local: LocalCovariance) -> None:
        self.local = local
        n_bands, _, n_maps, _ = local.product.shape
        self.n_maps = n_maps
        self.gain = np.ones((n_bands, n_maps))
        self.noise = local.noise.copy()
        self.misfit = np.full(n_maps, EXPECTED_MISFIT)
        flat, rising = np.ones(n_bands), np.minimum(2 * local.fineness**2, 1)
        self.sizes = np.array([size * shape for shape in (flat, rising) for size in SIZES])
        self.log_share = np.full(len(self.sizes), -np.log(len(self.sizes)))
        self._prepare()

    def copy(self) -> LocalModel:
        """The same, to be changed on its own."""
        other = object.__new__(LocalModel)
        other.__dict__.update(self.__dict__)
        return other

    def _prepare(self) -> None:
        """What follows from gains, noise and misfits for every band and window."""
        local, have = self.local, self.local.have
        noise = self.noise / self.gain**2
        self.scaled = local.product / (self.gain[:, None, :, None] * self.gain[:, None, None, :])
        weight = have / (noise + 0.3)
        pair = weight[:, :, None] * weight[:, None, :] * ~np.eye(self.n_maps, dtype=bool)
        mean = np.einsum("bwij,bij->bw", self.scaled, pair) / np.maximum(pair.sum(axis=(1, 2)), 1e-12)[:, None]
        self.shared = np.maximum(mean, 1e-4)
        self.reach = local.fineness[:, None] ** 2 * local.lever * self.shared
        variance = noise[:, None] + LEAST_MISFIT * self.shared[:, :, None] + self.reach[:, :, None] * self.misfit
        self.precision = np.where(have[:, None], 1 / variance, 0.0)
        power = np.einsum("bwii->bwi", self.scaled)
        # The maps were divided by their gains: the density of what was measured has them in its volume.
        volume = np.log(variance) + 2 * np.log(self.gain)[:, None]
        self.base = (np.where(have[:, None], volume, 0.0) + power * self.precision).sum(axis=2)

    def sums(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Precision of each group, products of the groups' weighted sums, and of each map with them."""
        member = labels[:, None] == np.arange(int(labels.max()) + 1)
        load = self.precision[..., None] * member
        product = self.scaled @ load
        return load.sum(axis=2), np.swapaxes(load, -1, -2) @ product, product

    def _terms(
        self, weight: NDArray[np.float64], gram: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Log joint probability of sizes and unions in each window, float64[W, G, K], and the order of unions."""
        guide = np.full(len(self.shared), GUIDING_SIZE)
        prior = log_prior_of_unions(weight.shape[-1])
        gram = np.ascontiguousarray(gram)
        coefficients = self.local.coefficients
        terms, order = partition_terms(weight, gram, self.shared, self.sizes, guide, coefficients, self.base, prior)
        return terms + self.log_share[:, None], order

    def window_evidence(self, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log evidence of a partition in each window, float64[W]."""
        weight, gram, _ = self.sums(labels)
        return np.asarray(logsumexp(self._terms(weight, gram)[0], axis=(1, 2)))

    def evidence(self, labels: NDArray[np.int64]) -> float:
        """Log evidence of a partition."""
        return float(self.window_evidence(labels).sum())

    def log_prior(self) -> float:
        """Log density, up to a constant, of gains, noise and misfits before the maps were compared place by place."""
        local = self.local
        noise = (self.noise / local.noise - 1) / np.maximum(local.noise_error, 1e-3)
        gain = (self.gain - 1) ** 2 / (GAIN_ERROR**2 + (0.5 * local.noise * local.noise_error) ** 2)
        misfit = float((self.misfit / EXPECTED_MISFIT - 1).sum())
        return -0.5 * float((noise**2 + gain)[local.have].sum()) - misfit

    def arrange(self, labels: NDArray[np.int64]) -> Arrangement:
        """What placing the maps of a partition, one after the other, has in common."""
        weight, gram, product = self.sums(labels)
        gram = np.ascontiguousarray(gram)
        guide = np.full(len(self.shared), GUIDING_SIZE)
        scores = contrast_scores(weight, gram, self.shared, guide, self.local.coefficients)
        return Arrangement(labels.copy(), weight, gram, product, scores, self.window_evidence(labels))

    def placements(self, arrangement: Arrangement, index: int) -> NDArray[np.float64]:
        """Log evidence in each window with one map in each group and all others where they are, float64[W, K]."""
        labels, weight, gram, product, scores, here = arrangement
        home, own = int(labels[index]), np.ascontiguousarray(self.precision[:, :, index])
        square = self.scaled[:, :, index, index]
        with_groups = product[:, :, index].copy()
        with_groups[:, :, home] -= square * own
        return np.asarray(
            placement_evidence(
                *(weight, gram, own[..., None] * with_groups, own, own**2 * square, home, here, self.shared, self.sizes),
                *(np.full(len(self.shared), GUIDING_SIZE), self.local.coefficients, self.base),
                *(log_prior_of_unions(weight.shape[-1]), self.log_share, scores),
            )
        )

    def improve(self, labels: NDArray[np.int64], rounds: int = 2) -> None:
        """Improve gains, noise, misfits and the shares of sizes, for a partition, by expectation maximization."""
        k = int(labels.max()) + 1
        local = self.local
        coefficients = local.coefficients[:, :, None]
        prior_noise = 2 / np.maximum(local.noise_error, 1e-3) ** 2
        prior_gain = 1 / (GAIN_ERROR**2 + (0.5 * local.noise * local.noise_error) ** 2)
        for _ in range(rounds):
            weight, gram, product = self.sums(labels)
            terms, order = self._terms(weight, gram)
            share = np.exp(terms - logsumexp(terms, axis=(1, 2), keepdims=True))
            together = clusters_after_unions(order, k)
            prior = np.einsum("wgj,gb,wjac->bwac", share, self.sizes, together, optimize=True) + 1 + 1e-6 * np.eye(k)
            prior = self.shared[..., None, None] * prior
            covariance = np.linalg.solve(np.eye(k) + prior * weight[..., None, :], prior)
            seen = np.einsum("bwnl,bwln->bwn", product, covariance[..., labels])
            squared = np.einsum("bwkk->bwk", covariance @ gram @ covariance + covariance)[..., labels]
            power = np.einsum("bwii->bwi", self.scaled)
            informative = coefficients * self.precision
            gain = (informative * seen).sum(axis=1) + prior_gain / self.gain
            gain = gain / ((informative * squared).sum(axis=1) + prior_gain)
            gain = np.where(local.have, np.clip(gain, 0.7, 1.4), 1.0)
            residual = power - 2 * gain[:, None] * seen + gain[:, None] ** 2 * squared
            residual -= LEAST_MISFIT * self.shared[:, :, None]
            noise = self.noise / self.gain**2
            informative = coefficients * self.precision**2
            shape = self.reach[:, :, None]
            total = (informative * shape * (residual - noise[:, None])).sum(axis=(0, 1)) + 1 / EXPECTED_MISFIT
            total /= (informative * shape**2).sum(axis=(0, 1)) + 1 / EXPECTED_MISFIT**2
            self.misfit = np.clip(total, 1e-4, LARGEST_MISFIT)
            informative = informative * noise[:, None] ** 2
            found = (informative * (residual - shape * self.misfit)).sum(axis=1) * self.gain**2
            found = (found + prior_noise * local.noise) / (informative.sum(axis=1) + prior_noise)
            self.noise = np.where(local.have, np.clip(found, 0.2 * local.noise, 5 * local.noise), local.noise)
            self.gain = self.gain * gain
            mean = share.sum(axis=2).mean(axis=0) + LEAST_SIZE_SHARE
            self.log_share = np.log(mean / mean.sum())
            self._prepare()

    def pair_evidence(self) -> NDArray[np.float64]:
        """Log Bayes factor, per window and pair, that two maps show one structure, float64[W, N, N]."""
        n_windows = self.shared.shape[1]
        out = np.zeros((n_windows, self.n_maps, self.n_maps))
        i, j = np.triu_indices(self.n_maps, 1)
        terms = np.zeros((2, n_windows, len(i), len(self.sizes)))
        with np.errstate(divide="ignore"):
            variance = 1 / self.precision
        for band, have in enumerate(self.local.have):
            both = np.flatnonzero(have[i] & have[j])
            a, b = i[both], j[both]
            shared = self.shared[band][:, None, None]
            size = shared * self.sizes[:, band]
            first, second = (variance[band][:, index, None] + shared + size for index in (a, b))
            yaa, ybb, yab = (self.scaled[band][:, x, y][..., None] for x, y in ((a, a), (b, b), (a, b)))
            for same, off in enumerate((shared, shared + size)):
                determinant = first * second - off**2
                value = np.log(determinant) + (second * yaa + first * ybb - 2 * off * yab) / determinant
                terms[same][:, both] -= 0.5 * self.local.coefficients[band][:, None, None] * value
        different, same = logsumexp(terms + self.log_share, axis=3)
        out[:, i, j] = out[:, j, i] = same - different
        return out
