"""An object store that speaks S3 on this machine, and one that answers as a bad day would have it."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

KEY, SECRET, REGION = "testkey", "testsecret", "us-east-1"


class ObjectStore(NamedTuple):
    """A bucket of its own in a running store."""

    endpoint: str
    bucket: str

    @property
    def url(self) -> str:
        """The bucket."""
        return f"s3://{self.bucket}"

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that lead to it."""
        return {
            "key": KEY,
            "secret": SECRET,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": REGION},
        }

    def client(self) -> Any:
        """A client of another library than the one under test."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name=REGION
        )

    def put(self, source: Path, prefix: str) -> str:
        """Copy a file or folder into the bucket; returns its URL."""
        client = self.client()
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for path in files:
            key = prefix if source.is_file() else f"{prefix}/{path.relative_to(source)}"
            client.upload_file(str(path), self.bucket, key)
        return f"{self.url}/{prefix}"

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Every object whose name begins with ``prefix/``, by the rest of its name."""
        client = self.client()
        found = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{prefix}/"):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
                found[item["Key"][len(prefix) + 1 :]] = body
        return found

    def through(self, endpoint: str) -> ObjectStore:
        """The same bucket by another way."""
        return self._replace(endpoint=endpoint)


@pytest.fixture(scope="session")
def store_endpoint() -> Iterator[str]:
    """Address of a moto server, run for the whole session."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def object_store(store_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A new bucket, and an environment that leads to it."""
    store = ObjectStore(store_endpoint, f"test-{uuid.uuid4().hex[:12]}")
    with clean_environment(monkeypatch):
        for name, value in environment(store).items():
            monkeypatch.setenv(name, value)
        store.client().create_bucket(Bucket=store.bucket)
        yield store


@contextlib.contextmanager
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of this machine, and nothing that fsspec remembers, before or after."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    yield
    forget()


def forget() -> None:
    """Forget the options and connections of this process."""
    import fsspec.config
    import s3fs

    from regroup_dask.formats import storage

    storage.use_storage_options({})
    fsspec.config.conf.clear()
    s3fs.S3FileSystem.clear_instance_cache()


def environment(store: ObjectStore) -> dict[str, str]:
    """The usual variables."""
    return {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
    }


class Request(NamedTuple):
    """A request that passes through."""

    method: str
    path: str
    number: int


Answer = tuple[str, Any] | None
"""None lets a request through; ("status", (500, "InternalError")), ("hang", seconds), ("cut", None), ("drop", None)."""


class FaultyStore:
    """A server in front of a store that spoils the answers a rule picks out.

    A rule is told of each request, and how many like it (by method and path) came before.
    """

    def __init__(self, endpoint: str, rule: Callable[[Request], Answer]) -> None:
        self.rule = rule
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        target = endpoint.removeprefix("http://")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                outer._serve(self, target)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyStore:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, target: str) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        with self._lock:
            like = sum(one.method == handler.command and one.path == handler.path for one in self.requests)
            request = Request(handler.command, handler.path, like)
            self.requests.append(request)
        what, detail = self.rule(request) or ("pass", None)
        if what == "status":
            status, code = detail
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} of the test</Message></Error>".encode()
            self._answer(handler, status, {"Content-Type": "application/xml"}, text)
            return
        if what == "hang":
            time.sleep(detail)
            handler.close_connection = True
            return
        connection = http.client.HTTPConnection(target, timeout=60)
        connection.request(handler.command, handler.path, body=body, headers=dict(handler.headers))
        answer = connection.getresponse()
        content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in ("connection", "content-length")}
        if handler.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        self._answer(handler, answer.status, headers, content, cut=what == "cut")

    @staticmethod
    def _answer(
        handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("server", "date", "transfer-encoding"):
                handler.send_header(name, value)
        if handler.command != "HEAD":
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            handler.wfile.flush()
            handler.close_connection = True
