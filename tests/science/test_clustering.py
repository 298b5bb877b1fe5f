"""What decides between partitions: with equal noise, plain correlation's is kept unless another is very much likelier."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from regroup_dask.science import noise
from regroup_dask.science.clustering import _equally_noisy, spectral
from regroup_dask.science.grouping import group_classes
from regroup_dask.science.reliability import Reliability
from regroup_dask.science.shell_model import ShellComparison
from regroup_dask.science.similarity import estimate_similarity
from tests.benchmarks.grouping import by_place, measure
from tests.benchmarks.grouping_problems import BOX, make_problem


@pytest.mark.parametrize(("series", "index"), [(5017, 56), (5022, 194)])
def test_no_worse_than_plain_correlation_where_noise_is_equal(series, index):
    """Two problems in which another partition was a little likelier, and wrong."""
    problem = make_problem(series, index)
    measured = measure(problem)
    powers = {name: value for name, value in measured._asdict().items() if name not in ("volumes", "statistics")}
    found = estimate_similarity(**powers, coefficients=noise.shell_coefficients(BOX))
    labels = group_classes(
        found.similarity,
        problem.n_structures,
        distance=found.distance,
        distance_sigma=found.distance_sigma,
        shared_sigma=found.shared_sigma,
        shells=found.shells,
        information=found.information,
        correlation=found.correlation,
        local=by_place(measured, found, problem.voxel_size_angstrom),
        n_resamplings=0,
    ).labels
    plain = adjusted_rand_score(problem.labels, spectral(found.correlation, problem.n_structures))
    assert adjusted_rand_score(problem.labels, labels) >= plain


@pytest.mark.parametrize(("spread", "equal"), [(0.1, True), (0.2, True), (1.0, False)])
def test_equal_noise_is_told_whatever_its_level(spread, equal):
    rng = np.random.default_rng(0)
    ratio = np.geomspace(1e-4, 2, 16) * np.exp(spread * rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 16)))
    share = 1 / (1 + ratio)
    reliability = Reliability(share, share, np.zeros(8), share, ("solvent",) * 8)
    assert _equally_noisy(ShellComparison(np.zeros((8, 8, 16)), reliability, np.ones(16))) == equal
    quiet = reliability._replace(signal_fraction=np.full((8, 16), 0.999))
    assert not _equally_noisy(ShellComparison(np.zeros((8, 8, 16)), quiet, np.ones(16)))
