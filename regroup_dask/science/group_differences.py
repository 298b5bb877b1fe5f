"""Whether two groups of maps differ: in few places, nobody knows which or how much.

The means of two groups differ in a band and a window by noise alone, or by the difference of two structures too, of one
of a few relative sizes (`local_model.SIZES`). Structures of one sample are alike nearly everywhere, so that the windows
are a mixture: a share of them shows a difference, and all shares from half a window to half of all are tried (the higher
criticism of sparse mixtures: Donoho and Jin, 2004, Ann. Stat. 32, 962-994; here with a Bayes factor for each window).
A difference in one place of a hundred is charged for having been looked for in a hundred, and no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from regroup_dask.science.local_model import EXPECTED_MISFIT, LocalModel

# The mean over a window w, a product of three raised cosines, is one over (sum of w)^2 / (sum of w^2) = (4 / 3)^3 times the
# sum of w independent values. Sums over all windows, which overlap, are to count every value once; one window on its own is not.
INDEPENDENT_IN_WINDOW = (4 / 3) ** 3
# No error of a pose that alignment leaves is as large: what such a map differs by says nothing of structures.
UNEXPLAINED_MISFIT = 10 * EXPECTED_MISFIT
# Share of the density by which maps differ for what is in no model: poses beyond small errors, filters, interpolation. Two maps
# of one simulated structure, almost without noise, were told apart by less.
MODEL_ERROR = 0.01
SHARES = 12
LARGEST_SHARE = 0.5


def window_differences(model: LocalModel, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log Bayes factor, per window, that two groups differ there, float64[W, K, K]; no size of difference is favoured.

    A group of nothing but maps whose misfit no pose explains gets 0.
    """
    model = model.copy()
    believed = np.where(model.misfit > UNEXPLAINED_MISFIT, 0.0, model.precision)
    model.precision = believed / (1 + MODEL_ERROR * model.shared[:, :, None] * believed)
    weight, gram, _ = model.sums(labels)
    n_bands, n_windows, k = weight.shape
    found = np.full((len(model.sizes), n_windows, k, k), 0.0)
    for band in range(n_bands):
        known = weight[band] > 0
        variance = np.where(known, 1 / np.where(known, weight[band], 1.0), 0.0)
        power = np.einsum("wkk->wk", gram[band]) * variance**2
        contrast = power[:, :, None] + power[:, None, :] - 2 * gram[band] * variance[:, :, None] * variance[:, None, :]
        both = known[:, :, None] & known[:, None, :]
        noise = np.where(both, variance[:, :, None] + variance[:, None, :], 1.0)
        excess = np.where(both, 2 * model.shared[band][:, None, None] / noise, 0.0)
        contrast = contrast / noise
        half = 0.5 * INDEPENDENT_IN_WINDOW * model.local.coefficients[band][:, None, None]
        for number, size in enumerate(model.sizes[:, band]):
            ratio = size * excess
            found[number] += half * (contrast * ratio / (1 + ratio) - np.log1p(ratio))
    return np.asarray(logsumexp(found, axis=0) - np.log(len(found)))


def evidence_of_difference(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log Bayes factor that some share of the windows differs, from that of each window along the first axis."""
    shares = np.exp(np.linspace(np.log(0.5 / len(windows)), np.log(LARGEST_SHARE), SHARES))
    of_share = [np.logaddexp(np.log1p(-share), np.log(share) + windows).sum(axis=0) for share in shares]
    return np.asarray(logsumexp(of_share, axis=0) - np.log(SHARES))


def least_difference(model: LocalModel, labels: NDArray[np.int64]) -> float:
    """Log Bayes factor that the two groups least sure to differ do; 0 for a single group."""
    k = int(labels.max()) + 1
    if k < 2:
        return 0.0
    return float(evidence_of_difference(window_differences(model, labels))[np.triu_indices(k, 1)].min())
