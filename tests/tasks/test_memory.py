"""Memory is a contract: what a worker takes stays under what the plan of the run said, and not by being vague."""

from __future__ import annotations

import pytest

from tests.benchmarks.memory import measure

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("box", "align"), [(64, True), (192, True), (192, False)])
def test_a_worker_stays_under_what_was_projected(box, align, tmp_path):
    found = measure(tmp_path, n_maps=3, box=box, align=align)
    assert 0.5 * found.projected < found.worker < found.projected
