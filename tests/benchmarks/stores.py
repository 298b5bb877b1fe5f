"""The same run on disk and in an object store: time, requests and peak memory.

    python -m tests.benchmarks.stores --particles 100000 --maps 6 --box 64 [--endpoint URL]

Without an endpoint (and the usual AWS variables) a moto server is started beside, in a process of its own: it answers in
some milliseconds and writes nothing to disk, so that what is measured is the program's side. Each run is a process of its
own that does all the work itself; its highest resident memory is taken when it ends. The outputs are compared byte by
byte but for what tells of time and place.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from tests.cluster.conftest import free_ports
from tests.object_store import ObjectStore, environment
from tests.small_job import make_job, write_cryosparc
from tests.store_runs import RunOnDisk, assert_same, regroup_job


class Measured(NamedTuple):
    """Seconds of one run, and the highest resident memory of its process in bytes."""

    seconds: float
    peak: int


def one_run(source: str, output: str) -> None:
    """Regroup, and print what it took as JSON."""
    began = time.perf_counter()
    regroup_job(source, output)
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))


def measured(source: str, output: str, more: dict[str, str]) -> Measured:
    """Regroup in a process of its own."""
    words = [sys.executable, "-m", "tests.benchmarks.stores", "--one", source, output]
    done = subprocess.run(words, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=100_000)
    parser.add_argument("--maps", type=int, default=6)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--endpoint", default=None)
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "OUTPUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one_run(*given.one)
        return
    server, port = None, str(free_ports(1)[0])
    with tempfile.TemporaryDirectory(prefix="regroup_stores_") as name:
        folder = Path(name)
        try:
            if given.endpoint is None:
                with open(folder / "moto.log", "wb") as log:
                    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", port], stdout=log, stderr=log)
                time.sleep(5)
            store = ObjectStore(given.endpoint or f"http://127.0.0.1:{port}", f"benchmark-{uuid.uuid4().hex[:8]}")
            variables = environment(store)
            store.client().create_bucket(Bucket=store.bucket)
            job = make_job(structures=2, members=given.maps // 2, box=given.box, n_particles=given.particles)
            source = write_cryosparc(job, folder / "J10")
            url = store.put(source, "J10")
            n_bytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
            print(f"{given.maps} maps of box {given.box}, {given.particles} particles, {n_bytes / 2**20:.0f} MiB of input")
            print("from      to        seconds  peak, MiB  requests")
            places = (("disk", str(source), str(folder / "OUT")), ("store", url, f"{store.url}/OUT"))
            measured(str(source), str(folder / "first"), {})  # kernels compiled, files read once
            for kind, job_place, output in places:
                before = _requests(folder) if server else 0
                found = measured(job_place, output, variables)
                requests = f"{_requests(folder) - before:9d}" if server else "        -"
                print(f"{kind:8s}  {kind:8s}  {found.seconds:7.1f}  {found.peak / 2**20:9.0f}  {requests}", flush=True)
            output = f"{store.url}/OUT"
            assert_same(RunOnDisk("cryosparc", source, folder / "OUT"), store.contents("OUT"), prefix=output, job=url)
            print("the outputs are the same")
        finally:
            if server is not None:
                server.terminate()
                server.wait(30)


def _requests(folder: Path) -> int:
    return (folder / "moto.log").read_bytes().count(b'HTTP/1.1"')


if __name__ == "__main__":
    main()
