"""The plan of a run: it says what is needed, and refuses what cannot fit, with a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regroup_dask.errors import InputError
from regroup_dask.formats.volumes import VolumeReference, VolumeSeries
from regroup_dask.settings import Settings
from regroup_dask.steps.plan import check_memory, plan_lines, plan_run
from regroup_dask.tasks.crew import WorkerResources

GIB = 2**30


def series(n_maps: int, box: int) -> VolumeSeries:
    references = tuple(
        VolumeReference(index, f"class_{index}", f"{index}.mrc", "mrc", 0, box, 1.0) for index in range(n_maps)
    )
    return VolumeSeries(references, box, 1.0)


@pytest.mark.parametrize("align", [True, False])
def test_fifty_maps_of_256_fit_two_workers_of_2_gib(align):
    plan = plan_run(50, series(50, 256), None, Settings(n_superclasses=4, align=align))
    workers = (WorkerResources("a", 1, 2 * GIB), WorkerResources("b", 1, 2 * GIB))
    check_memory(plan, workers)
    first, second = plan_lines(plan, workers)
    assert "50 maps of box 256: 1225 pairs" in first
    assert "2 worker(s) of 1 thread(s)" in second
    # measured for these maps: 110 s aligned and 48 s without alignment
    assert second.endswith(f"up to about {6 if align else 2} min altogether, where nothing else runs.")


def test_starting_grouping_and_the_report_count_even_where_little_is_to_be_compared():
    assert "up to about 20 s altogether" in plan_lines(plan_run(3, series(3, 24), None, Settings(n_superclasses=2)), ())[1]


def test_memory_grows_with_the_box_and_the_threads():
    settings = Settings(n_superclasses=4, align=True)
    small, large = (plan_run(50, series(50, box), None, settings) for box in (256, 512))
    assert small.worker_bytes(1) < large.worker_bytes(1) < 2 * GIB
    assert large.worker_bytes(8) > large.worker_bytes(1) + 7 * 4 * 512**3


def test_only_the_nearest_pairs_are_counted_where_only_they_are_compared():
    every, nearest = (
        plan_run(400, series(400, 128), None, Settings(n_superclasses=4, align=True, pairs=pairs))
        for pairs in ("all", "nearest:20")
    )
    assert every.n_pairs == 79800
    assert nearest.n_pairs == 400 * 24
    assert nearest.n_tiles < every.n_tiles
    assert nearest.seconds < every.seconds / 2


def test_memory_of_a_worker_does_not_grow_with_the_number_of_maps():
    settings = Settings(n_superclasses=4, align=True, pairs="nearest:30")
    hundred, thousand, many = (plan_run(n, series(n, 128), None, settings) for n in (100, 1000, 10_000))
    assert hundred.worker_bytes(1) == thousand.worker_bytes(1) == many.worker_bytes(1) < 2 * GIB
    assert hundred.driver_bytes < GIB
    assert thousand.driver_bytes < many.driver_bytes < 64 * GIB
    assert "and the driver (this process) within" in plan_lines(many, ())[1]


def test_tables_that_do_not_fit_the_driver_are_refused_with_a_remedy():
    every, nearest = (
        plan_run(10_000, series(10_000, 128), None, Settings(n_superclasses=4, align=True, pairs=pairs))
        for pairs in ("all", "nearest")
    )
    refused = r"has 32.00 GiB of memory, but the driver needs up to .* 49995000 pairs .*--pairs nearest"
    with pytest.raises(InputError, match=refused):
        check_memory(every, (), driver_limit=32 * GIB)
    check_memory(nearest, (), driver_limit=64 * GIB)
    with pytest.raises(InputError, match=r"8.00 GiB .* --exclude-classes\)\.$"):
        check_memory(nearest, (), driver_limit=8 * GIB)


def test_what_cannot_fit_is_refused_with_a_remedy():
    plan = plan_run(50, series(50, 512), None, Settings(n_superclasses=4, align=True))
    with pytest.raises(InputError, match="averaging maps of box 512 needs up to") as raised:
        check_memory(plan, (WorkerResources("tcp://n1:1", 8, 4 * GIB),))
    asked = re.search(r"give each worker ([\d.]+) GiB, or (\d) thread", str(raised.value))
    assert asked
    check_memory(plan, (WorkerResources("tcp://n1:1", 8, int(float(asked[1]) * GIB)),))
    check_memory(plan, (WorkerResources("tcp://n1:1", int(asked[2]), 4 * GIB),))


def test_the_table_of_the_sizing_page_is_what_the_plan_says():
    text = (Path(__file__).parents[2] / "deploy" / "sizing.md").read_text()
    rows = [line.strip("| ").split("|") for line in text.splitlines() if re.match(r"\| [\d ]+ \|", line)]
    assert len(rows) >= 6
    for row in rows:
        n_maps, box, particles, _, core_hours, workers, hours = (cell.strip().replace(" ", "") for cell in row[:7])
        plan = plan_run(int(n_maps), series(int(n_maps), int(box)), None, Settings(n_superclasses=4, align=True))
        expected = (plan.seconds + 6e-6 * 10 ** int(particles.removeprefix("10^"))) / 3600
        assert float(core_hours) == pytest.approx(expected, rel=0.12)
        assert float(hours) == pytest.approx(expected / int(workers), rel=0.5)


def test_a_worker_without_a_limit_is_not_refused():
    check_memory(
        plan_run(5, series(5, 512), None, Settings(n_superclasses=2)), (WorkerResources("tcp://n1:1", 64, 0),)
    )
