"""Evidence that groups of maps differ, against normal densities of the coefficients themselves."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from regroup_dask.science.group_differences import (
    INDEPENDENT_IN_WINDOW,
    MODEL_ERROR,
    UNEXPLAINED_MISFIT,
    evidence_of_difference,
    least_difference,
    window_differences,
)
from regroup_dask.science.local_covariance import LocalCovariance, local_windows
from regroup_dask.science.local_model import LocalModel

LABELS = np.array([0, 0, 1, 1, 1, 2])


def drawn(seed, *, differing=0, size=1.0, n_windows=30, coefficients=12, shared=3.0):
    """Coefficients float[band, window, map, coefficient]; structure 1 differs from 0 and 2 in the first windows."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.3, 1.0, (2, len(LABELS)))
    rows = np.repeat(rng.normal(size=(2, n_windows, 1, coefficients)) * np.sqrt(shared), len(LABELS), axis=2)
    own = rng.normal(size=(2, differing, 1, coefficients)) * np.sqrt(size * shared)
    rows[:, :differing, LABELS == 1] += own
    rows += rng.normal(size=rows.shape) * np.sqrt(noise)[:, None, :, None]
    product = (rows @ np.swapaxes(rows, -1, -2) / coefficients).astype(np.float32)
    have = np.ones((2, len(LABELS)), bool)
    have[1, 5] = False
    product[1, :, 5], product[1, :, :, 5] = 0, 0
    counted = np.full((2, n_windows), coefficients / INDEPENDENT_IN_WINDOW)
    error = np.full(noise.shape, 0.05)
    return rows, LocalModel(LocalCovariance(product, have, counted, noise, error, np.array([0.5, 1.0]), np.ones(n_windows)))


def test_bayes_factors_are_ratios_of_normal_densities():
    rows, model = drawn(0, differing=3)
    found = window_differences(model, LABELS)
    weight = 1 / (1 / model.precision[:, :, :5] + MODEL_ERROR * model.shared[..., None])  # [band, window, map]
    last = 1 / (1 / model.precision[:1, :, 5:] + MODEL_ERROR * model.shared[:1, :, None])
    weight = np.concatenate([weight, np.concatenate([last, 0 * last])], axis=2)
    for first, second, bands in ((0, 1, (0, 1)), (1, 2, (0,))):  # nobody knows the second band of the last map
        for window in (0, 2, 11):
            terms = np.zeros(len(model.sizes))
            for band in bands:
                means, noise = [], 0.0
                for group in (first, second):
                    w = weight[band, window] * (group == LABELS)
                    means.append(w @ rows[band, window] / w.sum())
                    noise += 1 / w.sum()
                contrast = means[0] - means[1]
                for number, relative in enumerate(model.sizes[:, band]):
                    wide = np.sqrt(noise + 2 * relative * model.shared[band, window])
                    terms[number] += (norm.logpdf(contrast, scale=wide) - norm.logpdf(contrast, scale=np.sqrt(noise))).sum()
            expected = logsumexp(terms) - np.log(len(terms))
            assert np.isclose(found[window, first, second], expected, rtol=2e-3, atol=2e-3)
            assert np.isclose(found[window, second, first], expected, rtol=2e-3, atol=2e-3)


def test_one_window_of_many_is_charged_for_having_been_looked_for():
    for n_windows in (20, 200):
        windows = np.full(n_windows, -5.0)
        windows[7] = 40.0
        found = float(evidence_of_difference(windows))
        assert 40 - np.log(n_windows) - np.log(12) < found < 40 - np.log(n_windows) + 1
        assert evidence_of_difference(np.full(n_windows, -5.0)) < 0
        assert evidence_of_difference(np.zeros(n_windows)) == pytest.approx(0)  # windows that say nothing


def test_what_is_alike_gets_no_evidence_and_what_differs_in_few_places_does():
    alike = [least_difference(drawn(seed)[1], LABELS) for seed in range(40)]
    # By Markov's inequality a Bayes factor of x comes by chance at most once in x.
    assert np.mean(np.array(alike) > np.log(20)) <= 0.05
    assert np.median(alike) < 0
    apart = [least_difference(drawn(seed, differing=2)[1], np.minimum(LABELS, 1)) for seed in range(5)]
    assert min(apart) > np.log(20)
    assert least_difference(drawn(0)[1], np.zeros(6, np.int64)) == 0


def test_a_map_that_no_pose_explains_is_no_structure_of_its_own():
    model = drawn(0, differing=8)[1]
    assert least_difference(model, np.minimum(LABELS, 1)) > np.log(20)
    model.misfit = np.where(LABELS == 1, 2 * UNEXPLAINED_MISFIT, model.misfit)
    assert abs(least_difference(model, np.minimum(LABELS, 1) * (LABELS == 1))) < 1e-9


def test_a_window_holds_as_many_independent_values_as_its_weights_say():
    window = max(local_windows(24, 4.0, np.ones((24, 24, 24))), key=lambda one: one.sum()).astype(np.float64)
    assert np.isclose(window.sum() ** 2 / np.square(window).sum() / window.sum(), INDEPENDENT_IN_WINDOW, rtol=1e-3)
