"""An HTTP server that speaks what cryosparc-tools speaks, on a project folder, and refuses what CryoSPARC refuses.

The client builds its functions from the server's ``openapi.json``; the endpoints here have the names and parameters of
the client's own ``api.pyi``, which a test compares. Faults can be set for any endpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from cryosparc.constants import API_SUFFIX
from cryosparc.dataset import Dataset

EMAIL, PASSWORD, LICENSE, TOKEN = "ali@example.com", "a secret word", "11111111-2222-3333-4444-555555555555", "a-token"
JOB = {"$ref": "#/components/schemas/Job"}
EVENT = {"$ref": "#/components/schemas/TextEvent"}
TEXT = {"type": "string"}


class Endpoint(NamedTuple):
    """Method, path, query parameters, what the body is, what is answered."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    body: str | None = None
    answer: Any = None


ENDPOINTS = {
    "users.me": Endpoint("get", "/users/me", answer={"$ref": "#/components/schemas/User"}),
    "config.get_version": Endpoint("get", "/config/version", answer=TEXT),
    "projects.find_one": Endpoint("get", "/projects/{project_uid}", answer={"$ref": "#/components/schemas/Project"}),
    "projects.download_file": Endpoint("get", "/projects/{project_uid}/file", ("path",), answer="stream"),
    "projects.upload_file": Endpoint("post", "/projects/{project_uid}/file", ("overwrite", "path"), "stream", TEXT),
    "jobs.create": Endpoint(
        "post", "/projects/{project_uid}/workspaces/{workspace_uid}/jobs", ("type", "title", "description"), "params", JOB
    ),
    "jobs.find_one": Endpoint("get", "/projects/{project_uid}/jobs/{job_uid}", answer=JOB),
    "jobs.get_directory": Endpoint("get", "/projects/{project_uid}/jobs/{job_uid}/directory", answer=TEXT),
    "jobs.add_external_input": Endpoint("put", "/projects/{project_uid}/jobs/{job_uid}/inputs/{input_name}", (), "body", JOB),
    "jobs.add_external_output": Endpoint("put", "/projects/{project_uid}/jobs/{job_uid}/outputs/{output_name}", (), "body", JOB),
    "jobs.connect": Endpoint(
        "post", "/projects/{project_uid}/jobs/{job_uid}/inputs/{input_name}/connections",
        ("source_output_name", "source_job_uid"), None, JOB,
    ),
    "jobs.save_output": Endpoint(
        "post", "/projects/{project_uid}/jobs/{job_uid}/outputs/{output_name}/dataset", ("filename", "version"), "dataset", JOB
    ),
    "jobs.mark_running": Endpoint("post", "/projects/{project_uid}/jobs/{job_uid}/running", ("status",), None, JOB),
    "jobs.mark_completed": Endpoint("post", "/projects/{project_uid}/jobs/{job_uid}/completed", (), None, JOB),
    "jobs.mark_failed": Endpoint("post", "/projects/{project_uid}/jobs/{job_uid}/failed", ("error",), None, JOB),
    "jobs.clear": Endpoint("post", "/projects/{project_uid}/jobs/{job_uid}/clear", (), None, JOB),
    "jobs.add_event_log": Endpoint("post", "/projects/{project_uid}/jobs/{job_uid}/events", ("type",), "text", EVENT),
}  # fmt: skip
MIME = {"stream": "application/octet-stream", "dataset": "application/x-cryosparc-dataset"}


class Refused(Exception):
    """An answer with an error code."""

    def __init__(self, code: int, detail: Any) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def openapi() -> dict[str, Any]:
    """What the server says of itself."""
    paths: dict[str, Any] = {
        "/login": {
            "post": {
                "summary": "login",
                "requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": {}}}},
                "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Token"}}}}},
            }
        }
    }
    for name, endpoint in ENDPOINTS.items():
        parameters = [
            {"name": part, "in": "path", "required": True} for part in re.findall(r"{(\w+)}", endpoint.path)
        ] + [{"name": part, "in": "query", "required": False} for part in endpoint.query]
        described: dict[str, Any] = {"summary": name, "parameters": parameters}
        if endpoint.body is not None:
            mime = MIME.get(endpoint.body, "application/json")
            described["requestBody"] = {"content": {mime: {"schema": {"title": endpoint.body}}}}
        mime, schema = (MIME["stream"], {}) if endpoint.answer == "stream" else ("application/json", endpoint.answer)
        described["responses"] = {"200": {"content": {mime: {"schema": schema}}}}
        paths.setdefault(endpoint.path, {})[endpoint.method] = described
    return {"info": {"title": "stand-in"}, "paths": paths, "components": {}}


class StandIn:
    """One project, P3, with one classification, J42, of the files in a folder.

    Attributes
    ----------
    faults
        Code and detail to answer with, or "drop", by name of endpoint, or by "name:last part of the path".
    """

    def __init__(self, project: Path, *, visible: bool = False) -> None:
        self.project, self.visible = project, visible
        self.faults: dict[str, Any] = {}
        self.jobs: dict[str, dict[str, Any]] = {"J42": classification(project)}
        self.logs: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.version = "v5.0.3"
        standin = self

        class Handler(_Handler):
            owner = standin

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, name: str, parts: dict[str, str], query: dict[str, str], body: bytes) -> Any:
        """Do what an endpoint does."""
        function = getattr(self, "_" + name.replace(".", "_"))
        return function(query=query, body=body, **parts)

    def _users_me(self, **_: Any) -> Any:
        return {"_id": "1", "name": "ali", "first_name": "Ali", "last_name": "H"}

    def _config_get_version(self, **_: Any) -> Any:
        return self.version

    def _projects_find_one(self, project_uid: str, **_: Any) -> Any:
        if project_uid != "P3":
            raise Refused(404, f"Project {project_uid} not found")
        return {
            "uid": "P3", "project_dir": str(self.project), "owner_user_id": "1", "title": "a project",
            "size_last_updated": "2026-01-01T00:00:00Z", "uid_num": 3,
        }  # fmt: skip

    def _projects_download_file(self, project_uid: str, query: dict[str, str], **_: Any) -> Any:
        path = self.project / query["path"]
        if not path.is_file():
            raise Refused(404, f"{query['path']} not found")
        return path

    def _projects_upload_file(self, project_uid: str, query: dict[str, str], body: bytes, **_: Any) -> Any:
        path = self.project / query["path"]
        if path.exists() and query.get("overwrite", "false").lower() != "true":
            raise Refused(409, f"{query['path']} exists")
        if not path.parent.is_dir():
            raise Refused(404, f"{path.parent.name} is no folder")
        path.write_bytes(body)
        return query["path"]

    def _jobs_create(self, project_uid: str, workspace_uid: str, query: dict[str, str], **_: Any) -> Any:
        if workspace_uid != "W1":
            raise Refused(404, f"Workspace {workspace_uid} not found")
        uid = f"J{43 + len(self.jobs)}"
        self.jobs[uid] = new_job(uid, query["type"], query.get("title", ""))
        (self.project / uid).mkdir()
        return self.jobs[uid]

    def _job(self, job_uid: str) -> dict[str, Any]:
        if job_uid not in self.jobs:
            raise Refused(404, f"Job {job_uid} not found")
        return self.jobs[job_uid]

    def _jobs_find_one(self, project_uid: str, job_uid: str, **_: Any) -> Any:
        return self._job(job_uid)

    def _jobs_get_directory(self, project_uid: str, job_uid: str, **_: Any) -> Any:
        return str(self.project / job_uid) if self.visible else f"/a/file/system/elsewhere/{job_uid}"

    def _building(self, job_uid: str, *statuses: str) -> dict[str, Any]:
        job = self._job(job_uid)
        if job["status"] not in statuses:
            raise Refused(400, f"Job {job_uid} is {job['status']}, not {' or '.join(statuses)}")
        return job

    def _jobs_add_external_input(self, job_uid: str, input_name: str, body: bytes, **_: Any) -> Any:
        job = self._building(job_uid, "building")
        job["spec"]["inputs"][input_name] = {**json.loads(body), "connections": []}
        return job

    def _jobs_connect(self, job_uid: str, input_name: str, query: dict[str, str], **_: Any) -> Any:
        job, source = self._building(job_uid, "building"), self._job(query["source_job_uid"])
        if query["source_output_name"] not in source["spec"]["outputs"]:
            raise Refused(422, f"no output {query['source_output_name']}")
        if input_name not in job["spec"]["inputs"]:
            raise Refused(422, f"no input {input_name}")
        job["spec"]["inputs"][input_name]["connections"].append(
            {"job_uid": query["source_job_uid"], "output": query["source_output_name"], "results": []}
        )
        return job

    def _jobs_add_external_output(self, job_uid: str, output_name: str, body: bytes, **_: Any) -> Any:
        job, spec = self._building(job_uid, "building", "running", "waiting"), json.loads(body)
        through = spec.get("passthrough")
        if through is not None and through not in job["spec"]["inputs"]:
            raise Refused(422, f"no input {through} to pass through")
        job["spec"]["outputs"][output_name] = {**spec, "results": [], "num_items": 0}
        return job

    def _jobs_save_output(self, job_uid: str, output_name: str, query: dict[str, str], body: bytes, **_: Any) -> Any:
        job = self._building(job_uid, "running", "waiting")
        if output_name not in job["spec"]["outputs"]:
            raise Refused(404, f"no output {output_name}")
        output, data = job["spec"]["outputs"][output_name], Dataset.load(io.BytesIO(body))
        missing = {slot["name"] for slot in output["slots"]} - set(data.prefixes())
        if missing:
            raise Refused(422, f"slots {sorted(missing)} are missing")
        path = f"{job_uid}/{job_uid}_{output_name}.cs"
        data.save(str(self.project / path))
        output["num_items"] = len(data)
        output["results"] = [
            {**slot, "versions": [0], "metafiles": [path], "num_items": [len(data)]} for slot in output["slots"]
        ]
        return job

    def _jobs_mark_running(self, job_uid: str, query: dict[str, str], **_: Any) -> Any:
        job = self._building(job_uid, "building", "failed", "waiting", "running")
        job["status"] = query.get("status", "running")
        return job

    def _jobs_mark_completed(self, job_uid: str, **_: Any) -> Any:
        job = self._building(job_uid, "running", "waiting")
        if any(not output["results"] for output in job["spec"]["outputs"].values()):
            raise Refused(400, "an output was not saved")
        job["status"] = "completed"
        return job

    def _jobs_mark_failed(self, job_uid: str, query: dict[str, str], **_: Any) -> Any:
        job = self._building(job_uid, "running", "waiting", "building")
        job["status"] = "failed"
        job["errors_run"] = [{"message": query.get("error", "")}]
        return job

    def _jobs_clear(self, job_uid: str, **_: Any) -> Any:
        job = self._building(job_uid, "completed", "failed", "killed")
        job["status"] = "building"
        job["spec"]["outputs"] = {}
        for path in (self.project / job_uid).iterdir():
            path.unlink()
        return job

    def _jobs_add_event_log(self, job_uid: str, project_uid: str, body: bytes, **_: Any) -> Any:
        text = json.loads(body)
        self.logs.setdefault(job_uid, []).append(text)
        return {"_id": f"{len(self.logs[job_uid])}", "project_uid": project_uid, "job_uid": job_uid, "type": "text", "text": text}


class _Handler(BaseHTTPRequestHandler):
    owner: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        split = urlsplit(self.path)
        body = self._body()
        path = unquote(split.path).removeprefix(API_SUFFIX)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        try:
            self._send(200, self._result(path, query, body))
        except Refused as error:
            self._send(error.code, {"detail": error.detail})
        except ConnectionAbortedError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = _answer

    def _result(self, path: str, query: dict[str, str], body: bytes) -> Any:
        if path == "/openapi.json":
            return openapi()
        if path == "/login":
            return self._login({name: values[0] for name, values in parse_qs(body.decode()).items()})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Could not validate credentials")
        for name, endpoint in ENDPOINTS.items():
            pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", endpoint.path)
            match = re.fullmatch(pattern, path)
            if match and endpoint.method == self.command.lower():
                parts = match.groupdict()
                self.owner.calls.append(name)
                self._fault(name, [*parts.values(), Path(query.get("path", "-")).name])
                return self.owner.answer(name, parts, query, body)
        raise Refused(404, "Not Found")

    def _fault(self, name: str, parts: list[str]) -> None:
        for key in (name, *(f"{name}:{part}" for part in parts)):
            fault = self.owner.faults.get(key)
            if fault == "drop":
                raise ConnectionAbortedError
            if fault is not None:
                raise Refused(*fault)

    def _login(self, form: dict[str, str]) -> Any:
        known = {EMAIL: PASSWORD, "cryosparc": LICENSE}
        expected = hashlib.sha256(known.get(form["username"], "").encode()).hexdigest()
        if form["username"] not in known or form["password"] != expected:
            # As pydantic does it, with what was sent in the answer.
            raise Refused(401, [{"msg": "Incorrect username or password", "input": form}])
        return {"access_token": TOKEN, "token_type": "bearer"}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, code: int, content: Any) -> None:
        kind, data = "application/json", b""
        if isinstance(content, Path):
            kind, data = "application/octet-stream", content.read_bytes()
        else:
            data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def new_job(uid: str, kind: str, title: str) -> dict[str, Any]:
    """A job as the server describes it."""
    return {
        "uid": uid, "project_uid": "P3", "workspace_uids": ["W1"], "job_dir": uid, "title": title, "status": "building",
        "job_dir_size_last_updated": "2026-01-01T00:00:00Z", "uid_num": int(uid[1:]), "project_uid_num": 3, "status_num": 0,
        "build_errors": [],
        "spec": {"type": kind, "inputs": {}, "outputs": {}, "ui_tile_width": 1, "ui_tile_height": 1, "resource_spec": {}},
    }  # fmt: skip


def _result(name: str, dtype: str, metafile: str, count: int, *, passthrough: bool = False) -> dict[str, Any]:
    return {
        "name": name, "dtype": dtype, "versions": [42], "metafiles": [metafile], "num_items": [count], "passthrough": passthrough,
    }  # fmt: skip


def classification(project: Path) -> dict[str, Any]:
    """Describe the job whose files lie in the folder J42 of a project, writing the tables of its maps."""
    folder = project / "J42"
    job = new_job("J42", "class_3D", "3D Classification")
    job["status"] = "completed"
    particles = next(folder.glob("*_particles.cs"), None) or next(folder.glob("cryosparc*particles.cs"))
    primary = next(path for path in sorted(folder.glob("*particles.cs")) if "passthrough" not in path.name)
    through = next(path for path in sorted(folder.glob("*particles.cs")) if "passthrough" in path.name)
    count = len(np.load(particles))
    results = []
    for path in (primary, through):
        prefixes = sorted({name.split("/")[0] for name in np.load(path).dtype.names} - {"uid"})
        results += [
            _result(name, name, f"J42/{path.name}", count, passthrough=path is through) for name in prefixes
        ]
    slots = [{"name": entry["name"], "dtype": entry["dtype"]} for entry in results if not entry["passthrough"]]
    outputs = job["spec"]["outputs"]
    outputs["particles_all_classes"] = {
        "type": "particle", "title": "All particles", "slots": slots, "results": results, "num_items": count
    }  # fmt: skip
    for number, path in enumerate(sorted(folder.glob("*_volume.mrc"))):
        table = folder / path.name.replace("_volume.mrc", "_volume.cs")
        Dataset({"uid": [number + 1], "map/path": [f"J42/{path.name}"], "map/psize_A": np.array([5.0], "f4")}).save(str(table))
        outputs[f"volume_class_{number}"] = {
            "type": "volume", "title": f"Class {number}", "num_items": 1, "slots": [{"name": "map", "dtype": "volume_blob"}],
            "results": [_result("map", "volume_blob", f"J42/{table.name}", 1)],
        }  # fmt: skip
    return job


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project, so that what a test does to it stays in that test."""
    shutil.copytree(source, target)
    return target
