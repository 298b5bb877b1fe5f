"""A store on a bad day: what can be tried again is; what cannot is said in a sentence, and the run can be resumed."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem

from regroup_dask.errors import DamagedStoreError, InputError, StoreAccessError, StoreError
from regroup_dask.formats import storage, store_parts, storing
from regroup_dask.formats.run_folder import read_run
from regroup_dask.tasks import execute
from tests.object_store import Answer, FaultyStore, ObjectStore, Request, forget
from tests.small_job import make_job, write_cryosparc
from tests.store_runs import RunOnDisk, assert_same, contents, put, regroup_job, run

IMPATIENT = {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 1}, "read_timeout": 2, "connect_timeout": 2}}
TIMES = 1
ANSWERS = [("status", (500, "InternalError")), ("status", (503, "SlowDown"))]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs tries again what its client has tried again; once is enough here."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)


@pytest.fixture
def answers(object_store: ObjectStore) -> Iterator[Callable[..., FaultyStore]]:
    """Put a faulty store in front of the real one, and lead this process to it."""
    opened = []

    def begin(rule: Callable[[Request], Answer], **options: Any) -> FaultyStore:
        between = FaultyStore(object_store.endpoint, rule)
        opened.append(between)
        between.__enter__()
        forget()
        storage.use_storage_options({**object_store.through(between.endpoint).options, **options})
        return between

    yield begin
    for between in opened:
        between.__exit__()


def about_writing(request: Request) -> bool:
    return request.method in ("PUT", "POST")


@pytest.mark.parametrize("fault", [*ANSWERS, ("cut", None), ("hang", 1.5)])
def test_a_fault_that_passes_is_not_noticed(
    object_store: ObjectStore, answers: Callable[..., FaultyStore], tmp_path: Path, fault: Any
) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 400)
    url = object_store.put(tmp_path / "a", "a")
    spoiled: list[Request] = []

    def rule(request: Request) -> Answer:
        # Of what is said to and fro, the first of each kind fails.
        if request.number < TIMES and not (fault[0] == "cut" and request.method != "GET"):
            spoiled.append(request)
            return fault
        return None

    answers(rule, config_kwargs={"read_timeout": 0.7, "connect_timeout": 0.7})
    assert storage.read_range(url, 1000, 90_000) == (tmp_path / "a").read_bytes()[1000:90_000]
    with storage.open_reading(url) as stream:
        assert stream.read() == (tmp_path / "a").read_bytes()
    storing.write_bytes(f"{url}2", b"new")
    assert object_store.client().get_object(Bucket=object_store.bucket, Key="a2")["Body"].read() == b"new"
    assert spoiled


@pytest.mark.parametrize("fault", [*ANSWERS, ("cut", None), ("hang", 3)])
def test_a_fault_that_stays_is_a_sentence(
    object_store: ObjectStore, answers: Callable[..., FaultyStore], tmp_path: Path, hasty: None, fault: Any
) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 400)
    url = object_store.put(tmp_path / "a", "a")
    answers(lambda request: fault if request.method == "GET" else None, **IMPATIENT)
    with pytest.raises(StoreError, match=rf"{url}.*does not answer as it should.*--resume") as caught:
        storage.read_range(url, 0, 50_000)
    assert not isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_nobody_is_there(object_store: ObjectStore) -> None:
    forget()
    storage.use_storage_options({**object_store.through("http://127.0.0.1:9").options, **IMPATIENT})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
        storage.exists(f"{object_store.url}/a")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_access_that_is_refused(
    object_store: ObjectStore, answers: Callable[..., FaultyStore], tmp_path: Path, code: str
) -> None:
    url = object_store.put(write_cryosparc(make_job(n_particles=30), tmp_path / "J10"), "J10")
    answers(lambda _: ("status", (403, code)))
    with pytest.raises(StoreAccessError, match="refuses access"):
        storage.read_bytes(f"{url}/a")
    # No right to write: said before anything is computed, and nothing is left.
    answers(lambda request: ("status", (403, code)) if about_writing(request) else None)
    with pytest.raises(StoreAccessError, match="the object store refuses access"):
        regroup_job(url, f"{object_store.url}/OUT")
    assert object_store.contents("OUT") == {}


def test_a_missing_bucket_on_the_command_line(object_store: ObjectStore, tmp_path: Path) -> None:
    url = object_store.put(write_cryosparc(make_job(n_particles=30), tmp_path / "J10"), "J10")
    options = ("-k", 2, "--quiet", "--workers", 1)
    assert "there is no such bucket" in run("run", "s3://no-such-bucket-1/J10", "-o", tmp_path / "OUT", *options, code=2)
    assert "there is no such bucket" in run("run", url, "-o", "s3://no-such-bucket-1/OUT", *options, code=2)
    assert "there is no such bucket" in run("info", "s3://no-such-bucket-1/J10", code=2)


def outage(request: Request | None = None) -> Answer:
    """What a store answers to everything while it is away."""
    return ("status", (500, "InternalError"))


def test_a_run_that_met_an_outage_is_resumed_and_computes_nothing_again(
    object_store: ObjectStore,
    cryosparc_on_disk: RunOnDisk,
    answers: Callable[..., FaultyStore],
    monkeypatch: pytest.MonkeyPatch,
    hasty: None,
) -> None:
    """From the moment a first slab is averaged the store answers 500 to everything."""
    url, output = object_store.put(cryosparc_on_disk.job, "J10"), f"{object_store.url}/OUT"
    computed: list[str] = []
    run_unit = execute.run_unit
    is_away = False

    def counted(function: Any, unit: Any, *rest: Any) -> Any:
        nonlocal is_away
        is_away = is_away or (not resumed and function.__name__ == "average_slab")
        result = run_unit(function, unit, *rest)
        computed.append(f"{function.__name__} {unit.name}")
        return result

    monkeypatch.setattr(execute, "run_unit", counted)
    resumed = False
    answers(lambda request: outage() if is_away else None, **IMPATIENT)
    with pytest.raises(StoreError, match=r"--resume"):
        regroup_job(url, output)
    # While the store is away nothing can be said of the run but that.
    with pytest.raises(StoreError, match="does not answer"):
        regroup_job(url, output, resume=True)
    is_away, resumed, before = False, True, len(computed)
    forget()  # straight to the store again
    assert json.loads(object_store.contents("OUT")["run.json"])["status"] == "incomplete"
    with pytest.raises(InputError, match="interrupted run"):
        regroup_job(url, output)
    with pytest.raises(InputError, match="not finished"):
        read_run(storage.location(output))
    regroup_job(url, output, resume=True)
    assert_same(cryosparc_on_disk, object_store.contents("OUT"), prefix=output, job=url)
    assert before
    assert not set(computed[:before]) & set(computed[before:])


class Outages:
    """Makes fsspec's store in memory fail from a number of writes on, as one that answers 500 does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: float = math.inf
        self.spoils = ("read", "write")
        for name in ("info", "ls", "find", "cat_file", "exists", "cp_file", "rm_file", "rm", "pipe_file", "_open"):
            monkeypatch.setattr(MemoryFileSystem, name, self.spoilt(name, getattr(MemoryFileSystem, name)))

    def spoilt(self, name: str, function: Any) -> Any:
        def call(fs: Any, *given: Any, **more: Any) -> Any:
            mode = more.get("mode") or (given[1:2] or ("rb",))[0]
            writes = name in ("cp_file", "rm_file", "rm", "pipe_file") or (name == "_open" and mode != "rb")
            self.left -= writes
            if self.left < 0 and ("write" if writes else "read") in self.spoils:
                answer = {"Error": {"Code": "InternalError", "Message": "of the test"}}
                raise OSError(errno.EIO, "of the test") from ClientError(answer, name)
            return function(fs, *given, **more)

        return call


@pytest.mark.parametrize("spoils", [("read", "write"), ("write",)], ids=["all", "writes"])
def test_outages_at_many_moments_of_a_run(
    on_disk: RunOnDisk, memory: str, monkeypatch: pytest.MonkeyPatch, spoils: tuple[str, ...]
) -> None:
    """One run that is interrupted again and again, each time somewhere else, is in the end the undisturbed one."""
    url, output = put(on_disk, memory), f"{memory}/OUT"
    outages = Outages(monkeypatch)
    outages.spoils = spoils
    refused = 0
    for writes in (2, 30, 55, 40, 70, 95, 60, math.inf):
        outages.left = writes
        there = refused > 0
        try:
            regroup_job(url, output, resume=there and storage_has(output, outages))
            break
        except StoreError as error:  # how often it happens depends on how much a run writes
            assert "--resume" in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 5
    assert_same(on_disk, contents(output), prefix=output, job=url)


def storage_has(output: str, outages: Outages) -> bool:
    """Whether a run has begun there; asked while the store answers."""
    left, outages.left = outages.left, math.inf
    try:
        return storage.exists(f"{output}/run.json")
    finally:
        outages.left = left


def test_changed_inputs_are_not_resumed(object_store: ObjectStore, answers: Callable[..., FaultyStore], tmp_path: Path) -> None:
    job = make_job(n_particles=30)
    folder = write_cryosparc(job, tmp_path / "J10")
    url = object_store.put(folder, "J10")
    output = f"{object_store.url}/OUT"
    answers(lambda request: ("status", (500, "InternalError")) if "/work/units/" in request.path else None, **IMPATIENT)
    with pytest.raises(StoreError):
        regroup_job(url, output)
    forget()
    path = folder / "cryosparc_P1_J10_class_01_00042_volume.mrc"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    object_store.put(path, f"J10/{path.name}")
    with pytest.raises(InputError, match=rf"changed since: {url}/{path.name}"):
        regroup_job(url, output, resume=True)


@pytest.mark.parametrize("damage", ["flip", "lose", "shorten"])
def test_a_corrupt_tile_in_the_store_is_noticed_and_made_again(
    cryosparc_on_disk: RunOnDisk, memory: str, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    from regroup_dask.tasks import prepare

    url, output = put(cryosparc_on_disk, memory), f"{memory}/OUT"
    reduce_map = prepare.reduce_map

    def spoilt(unit: Any) -> Any:
        result = reduce_map(unit)
        if unit.position == 1:
            (path,) = storage.files_below(f"{output}/work/maps.zarr/working/c/1")
            data = bytearray(storage.read_bytes(path))
            data[len(data) // 2] ^= 1
            if damage == "lose":
                storing.remove_file(path)
            else:
                storing.write_bytes(path, bytes(data if damage == "flip" else data[:-100]))
        return result

    monkeypatch.setattr("regroup_dask.steps.comparing.prepare.reduce_map", spoilt)
    with pytest.raises(DamagedStoreError, match=r"of map 1 in memory://.*--resume"):
        regroup_job(url, output)
    monkeypatch.undo()
    regroup_job(url, output, resume=True)
    assert_same(cryosparc_on_disk, contents(output), prefix=output, job=url)


def test_a_damaged_part_is_noticed(object_store: ObjectStore) -> None:
    random = np.random.default_rng(0)
    folder, target = f"{object_store.url}/parts", f"{object_store.url}/joined"
    pieces = [[random.bytes(size) for size in sizes] for sizes in ((5, 0, 70_000), (0, 3, 12))]
    for index in range(2):
        store_parts.write_part(folder, index, [[np.frombuffer(one, np.uint8) for one in piece] for piece in pieces], 3)
    file = store_parts.JoinedFile(target, folder, 2, 2, 3, b"before", b"after")
    store_parts.join_parts(file)
    one = pieces[0][2] + pieces[1][2]
    assert storage.read_bytes(target) == b"before" + one + one + b"after"
    storing.remove_file(target)
    path = f"{folder}/000001.rows"
    good = storage.read_bytes(path)
    for bad in (good[:100] + bytes([good[100] ^ 1]) + good[101:], good[:-8], good[:20], b"", None):
        storing.remove_file(path) if bad is None else storing.write_bytes(path, bad)
        with pytest.raises(DamagedStoreError, match=r"000001.rows is damaged or missing") as caught:
            store_parts.join_parts(file)
        assert caught.value.position == 1
        assert not storage.exists(target)
