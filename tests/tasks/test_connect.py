"""Where a run works: what is asked for, what is wrong with it in a sentence, and what the jobs would be."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from regroup_dask.errors import ClusterError, InputError, RegroupWarning
from regroup_dask.tasks import cluster_settings, connect, versions
from regroup_dask.tasks.cluster_file import KNOWN, cluster_options, read_cluster_file, started
from regroup_dask.tasks.connect import Where, connected, is_private

NOBODY = "tcp://127.0.0.1:9"


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as started_cluster:
        yield started_cluster


def test_a_scheduler_is_joined_by_address_and_by_file(cluster, tmp_path):
    with connected(Where(scheduler=cluster.scheduler_address)) as client:
        assert client.submit(sum, (1, 2)).result() == 3
    file = tmp_path / "scheduler.json"
    with Client(cluster, set_as_default=False) as client:
        client.write_scheduler_file(str(file))
    with connected(Where(scheduler_file=str(file))) as client:
        assert len(client.nthreads()) == 1


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"scheduler": "tcp://a:1", "slurm": True}, "Give only one of"),
        ({"scheduler": "tcp://a:1", "cluster_file": "c.yaml"}, "Give only one of"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(where, text):
    with pytest.raises(InputError, match=text):
        Where(**where)


def test_nobody_answers():
    with (
        dask.config.set({"regroup.scheduler-timeout": "1 s"}),
        pytest.raises(InputError, match=f"No Dask scheduler answers at {NOBODY} within 1 s"),
        connected(Where(scheduler=NOBODY)),
    ):
        pass


def test_a_scheduler_file_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match=r"scheduler\.json does not exist"), connected(
        Where(scheduler_file=str(tmp_path / "scheduler.json"))
    ):
        pass


def test_no_worker_comes():
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty,
        dask.config.set({"regroup.workers-timeout": "1 s"}),
        pytest.raises(ClusterError, match="has no workers after 1 s"),
        connected(Where(scheduler=empty.scheduler_address)),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "no cluster is named"),
        ("cluster: [", "cannot be read"),
        ("cluster: KubernetesCluster", "it is one of LocalCluster"),
        ("cluster: SLURMCluster\nadapt: {maximum: 3}\nscale: {jobs: 2}", "both scale and adapt"),
        ("cluster: SLURMCluster\nscales: {jobs: 2}", "'scales', which is none of"),
        ("cluster: LocalCluster\noptions: many", "options is 'many'"),
    ],
)
def test_a_cluster_file_that_is_wrong(text, message, tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_cluster_file(file)
    assert "cluster.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cluster_file_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_cluster_file(tmp_path / "none.yaml")


def test_options_that_a_cluster_does_not_take(tmp_path):
    pytest.importorskip("dask_jobqueue")
    description = read_cluster_file({"cluster": "SLURMCluster", "options": {"memory": "4 GiB"}})
    with pytest.raises(InputError, match=r"SLURMCluster does not take its options: .*cores"), started(description):
        pass


def test_a_cluster_whose_package_is_missing():
    description = read_cluster_file({"cluster": "no_such_package:Cluster"})
    with pytest.raises(InputError, match="needs no-such-package"), started(description):
        pass


def test_a_cluster_of_dasks_configuration_is_started():
    wanted = {
        "cluster": "LocalCluster",
        "options": {"processes": False, "n_workers": 0, "dashboard_address": None},
        "scale": 2,
        "configuration": {"distributed.scheduler.allowed-failures": 9},
    }
    with dask.config.set({"regroup.cluster": wanted}), connected(Where()) as client:
        client.wait_for_workers(2, timeout=20)
        assert dask.config.get("distributed.scheduler.allowed-failures") == 9
    assert dask.config.get("distributed.scheduler.allowed-failures") == 3


@pytest.mark.parametrize("name", [name for name in KNOWN if KNOWN[name].startswith("dask_jobqueue")])
def test_queueing_systems_get_tls_and_one_thread_a_process(name):
    options = cluster_options(read_cluster_file({"cluster": name, "options": {"cores": 8, "memory": "32 GiB"}}))
    assert options["security"] is True
    assert options["protocol"] == "tls://"
    assert options["processes"] == 8
    assert Path(options["shared_temp_directory"]).is_dir()
    plain = cluster_options(read_cluster_file({"cluster": name, "options": {"security": False}}))
    assert "security" not in plain


def test_public_and_private_addresses():
    assert is_private("tcp://127.0.0.1:8786")
    assert is_private("tcp://10.1.2.3:8786")
    assert is_private("tcp://[::1]:8786")
    assert is_private("tcp://scheduler:8786")
    assert not is_private("tcp://8.8.8.8:8786")


def test_a_plain_scheduler_on_a_public_address_is_warned_of(monkeypatch):
    monkeypatch.setattr(connect, "_address", lambda client: "tcp://8.8.8.8:8786")
    with pytest.warns(RegroupWarning, match="plain text on a public network address"):
        connect._warn_of_open_scheduler(None)


def test_versions_that_differ_are_named():
    mine = versions.installed_versions()
    assert versions.differences(mine, {"tcp://a:1": dict(mine)}) == ([], [])
    must, should = versions.differences(
        mine, {"a": {**mine, "regroup-dask": None, "numpy": "1.0"}, "b": {**mine, "regroup-dask": None}}
    )
    assert must == [f"regroup-dask is {mine['regroup-dask']} here and missing on a and 1 more"]
    assert should == [f"numpy is {mine['numpy']} here and 1.0 on a"]


def test_workers_unlike_this_process_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(versions, "installed_versions", lambda: {**versions._ask_worker((), ()), "python": "3.99"})
    with (
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"python is 3\.99 here and 3\..* on .*Install the same on both"),
    ):
        versions.check_versions(client)


def test_a_folder_that_workers_do_not_see(cluster, tmp_path):
    with Client(cluster, set_as_default=False) as client:
        versions.check_shared_folder(client, tmp_path)
        with pytest.raises(ClusterError, match="does not see the output folder"):
            versions.check_shared_folder(client, tmp_path / "elsewhere")


def test_settings_come_from_dasks_configuration(monkeypatch):
    assert cluster_settings.seconds("workers-timeout") == 300
    with dask.config.set({"regroup.workers-timeout": "2 minutes", "regroup.map-cache": "1 GiB"}):
        assert cluster_settings.seconds("workers-timeout") == 120
        assert cluster_settings.n_bytes("map-cache") == 2**30
    with dask.config.set({"regroup.map-cache": "much"}), pytest.raises(InputError, match=r"regroup\.map-cache .* 'much'"):
        cluster_settings.n_bytes("map-cache")
    with dask.config.set({"regroup.units-per-thread": 0}), pytest.raises(InputError, match="whole number, 1 or more"):
        cluster_settings.count("units-per-thread")
