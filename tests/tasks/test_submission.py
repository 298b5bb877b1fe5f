"""Units on a cluster: what is lost is submitted again, what fails is named, and a worker's death is not for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from regroup_dask.errors import ClusterError, InputError, UnitError
from regroup_dask.tasks.execute import run_units
from regroup_dask.tasks.one_thread import one_thread


class Piece(NamedTuple):
    name: str
    folder: Path
    kind: str = "square"
    about: str = ""


def work(unit: Piece) -> dict[str, np.ndarray]:
    tried = unit.folder / f"{unit.name}.tried"
    with open(tried, "a") as stream:
        stream.write("x")
    if unit.kind == "kernel fails":
        raise FloatingPointError("a shell without power")
    if unit.kind == "wrong input":
        raise InputError("map 3 is constant")
    if unit.kind == "full disk":
        raise OSError(28, "No space left on device")
    if unit.kind == "storm" and tried.stat().st_size == 1:
        raise TimeoutError("the store answered 500")
    if unit.kind == "memory":
        raise MemoryError
    if unit.kind == "dies" or (unit.kind == "dies once" and tried.stat().st_size == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return {"value": np.asarray(len(unit.name))}


@pytest.fixture(scope="module")
def threads():
    """A cluster in this process."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_results_come_in_order_and_are_kept(threads, tmp_path):
    units = [Piece(f"{'u' * number}", tmp_path) for number in range(1, 20)]
    results = run_units(work, units, client=threads, checkpoint=tmp_path / "kept")
    assert [int(result["value"]) for result in results] == list(range(1, 20))
    done = []
    again = run_units(
        work, units, client=threads, checkpoint=tmp_path / "kept", advance=lambda n, restored=0: done.append(restored)
    )
    assert done == [19]
    assert [result["value"] for result in again] == [result["value"] for result in results]
    assert all((tmp_path / f"{unit.name}.tried").stat().st_size == 1 for unit in units)


@pytest.mark.parametrize("kind", ["kernel fails", "wrong input", "full disk", "memory"])
@pytest.mark.parametrize("where", ["cluster", "here"])
def test_what_fails_is_named_and_not_tried_again(kind, where, threads, tmp_path):
    expected = {
        "kernel fails": (UnitError, r"class_03\.mrc: FloatingPointError: a shell without power"),
        "wrong input": (InputError, "map 3 is constant"),
        "full disk": (OSError, "No space left"),
        "memory": (ClusterError, r"ran out of memory at class_03\.mrc.*--resume"),
    }
    error, text = expected[kind]
    units = [Piece("good", tmp_path), Piece("bad", tmp_path, kind, "class_03.mrc")]
    with pytest.raises(error, match=text) as raised:
        run_units(work, units, client=threads if where == "cluster" else None, checkpoint=tmp_path / "kept")
    if kind == "full disk":
        assert raised.value.errno == 28
    assert (tmp_path / "bad.tried").stat().st_size == 1


def test_a_store_that_stumbles_is_tried_again(threads, tmp_path):
    assert run_units(work, [Piece("once", tmp_path, "storm")], client=threads)[0]["value"] == 4


def test_another_version_on_a_worker_is_said(threads, tmp_path, monkeypatch):
    monkeypatch.setattr("regroup_dask.tasks.submission.__version__", "9.9")
    with pytest.raises(ClusterError, match=r"A worker has regroup-dask .* and this process 9\.9"):
        run_units(work, [Piece("any", tmp_path)], client=threads)


def test_without_workers_a_run_waits_and_then_says_so(tmp_path):
    said = []
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        threading.Timer(2.5, lambda: cluster.scale(1)).start()
        results = run_units(work, [Piece("late", tmp_path)], client=client, say=said.append)
        assert results[0]["value"] == 4
        assert "All workers are gone; waiting for others." in said
        cluster.scale(0)
        while client.nthreads():
            time.sleep(0.1)
        with (
            dask.config.set({"regroup.no-workers-timeout": "1 s"}),
            pytest.raises(ClusterError, match=r"no workers for 1 s.*--resume"),
        ):
            run_units(work, [Piece("never", tmp_path)], client=client, checkpoint=tmp_path / "kept")


def test_the_scheduler_goes_away(tmp_path):
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with dask.config.set({"distributed.comm.timeouts.connect": "1 s"}):
        client = Client(cluster.scheduler_address, set_as_default=False, timeout=5)
        threading.Timer(0.5, cluster.close).start()
        units = [Piece(f"unit{number}", tmp_path) for number in range(500)]
        with pytest.raises(ClusterError, match=r"went away.*--resume"):
            run_units(work, units, client=client, checkpoint=tmp_path / "kept")
        client.close()


def test_one_thread_whoever_is_inside():
    from threadpoolctl import threadpool_info

    def threads_now() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info()}

    before = threads_now()
    with one_thread():
        with one_thread():
            assert threads_now() == {1}
        assert threads_now() == {1}, "a neighbour lifted the limit"

        def in_another_thread() -> set[int]:
            with one_thread():
                return threads_now()

        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(in_another_thread).result() == {1}, "OpenMP's limit belongs to a thread"
    assert threads_now() == before
