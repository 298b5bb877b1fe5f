"""A running CryoSPARC, through cryosparc-tools: find a classification there and get at its files."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from regroup_dask.errors import InputError, InstanceError, RegroupError
from regroup_dask.formats.job_folder import recognise_job

if TYPE_CHECKING:
    from cryosparc.controllers.job import JobController
    from cryosparc.tools import CryoSPARC

logger = logging.getLogger(__name__)

DEFAULT_PORT = 39000
LOGIN = "python -m cryosparc.tools login"

_POSTERIORS = re.compile(r"^(alignments3D_multi|alignments_class(3D)?_\d+)$")
_CLASS_MAP = re.compile(r"^volume_class_(\d+)$")
_ALL_CLASSES = "particles_all_classes"


class Login(NamedTuple):
    """Where an instance answers and who asks; the password is in no sentence and no record."""

    address: str
    email: str | None
    password: str | None
    license_id: str | None

    def __repr__(self) -> str:
        """Leave out what is secret."""
        return f"Login({self.address!r}, {self.email!r})"


class Classification(NamedTuple):
    """A finished classification of an instance.

    Attributes
    ----------
    job
        Its controller.
    particles
        Name of the output with the class posteriors.
    volumes
        Name of the output with the map of each class.
    """

    job: JobController
    particles: str
    volumes: dict[int, str]

    @property
    def name(self) -> str:
        """Project and job."""
        return f"{self.job.project_uid} {self.job.uid}"


def login_from_environment(address: str | None, email: str | None) -> Login:
    """Complete what was given from the variables that cryosparc-tools knows, CRYOSPARC_BASE_URL and so on.

    Raises
    ------
    InputError
        Nothing says where the instance is.
    """
    environment = os.environ
    host, port = environment.get("CRYOSPARC_MASTER_HOSTNAME"), environment.get("CRYOSPARC_BASE_PORT")
    address = address or environment.get("CRYOSPARC_BASE_URL")
    if address is None and (host or port):
        address = f"http://{host or 'localhost'}:{port or DEFAULT_PORT}"
    if address is None:
        raise InputError(
            "It is not said where CryoSPARC is: give --instance http://HOST:39000 (the address of its web page), or set "
            "CRYOSPARC_BASE_URL."
        )
    if not re.match(r"^https?://[^/\s]+", address):
        raise InputError(f"--instance is {address!r}: it is an address such as http://localhost:39000.")
    return Login(
        address.rstrip("/"),
        email or environment.get("CRYOSPARC_EMAIL"),
        environment.get("CRYOSPARC_PASSWORD"),
        environment.get("CRYOSPARC_LICENSE_ID"),
    )


def connect_instance(login: Login, *, timeout_seconds: int = 300) -> tuple[CryoSPARC, tuple[str, ...]]:
    """Log in.

    Returns
    -------
    CryoSPARC, tuple of str
        The session, and what a person should know of it (versions that differ).

    Raises
    ------
    InputError
        Nothing answers there, it is no CryoSPARC, or it does not accept the login.
    """
    import httpx
    from cryosparc.errors import APIError
    from cryosparc.tools import CryoSPARC

    given: dict[str, Any] = {"email": login.email, "password": login.password}
    if not (login.email and login.password) and login.license_id:
        given["license"] = login.license_id
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            session = CryoSPARC(login.address, host=None, base_port=None, timeout=timeout_seconds, **given)
        except ValueError as error:
            if isinstance(error, APIError):
                raise
            raise InputError(
                f"There is no login for {login.address}: set CRYOSPARC_EMAIL and CRYOSPARC_PASSWORD, or make a session "
                f"with `{LOGIN}`."
            ) from None
        except RuntimeError as error:
            cause = error.__cause__
            # Shown without its cause: what the server says back can hold what was sent.
            if isinstance(cause, httpx.TransportError):
                sentence = (
                    f"No CryoSPARC answers at {login.address} ({_kind(cause)}): check the address, and that it runs."
                )
            elif isinstance(cause, APIError) and cause.code in (400, 401, 403, 422):
                who = login.email or ("the license ID" if login.license_id else "the stored session")
                sentence = (
                    f"CryoSPARC at {login.address} does not accept the login of {who} (code {cause.code}): check "
                    f"CRYOSPARC_EMAIL and CRYOSPARC_PASSWORD, or make a session with `{LOGIN}`."
                )
            else:
                sentence = (
                    f"What answers at {login.address} is no CryoSPARC that cryosparc-tools understands "
                    f"({_kind(cause)}): give the address of CryoSPARC's web page, and a cryosparc-tools of its version."
                )
            raise InputError(sentence) from None
    notes = []
    for entry in heard:
        text = str(entry.message)
        if "may not be compatible" in text:
            notes.append(" ".join(text.split("\n\n", 1)[0].split()))
        else:
            logger.info("cryosparc-tools: %s", text)
    return session, tuple(notes)


def find_classification(session: CryoSPARC, project_uid: str, job_uid: str) -> Classification:
    """Find a finished job with particles that have class posteriors, and a map for each class.

    Raises
    ------
    InputError
        There is no such project or job, it is not finished, or it is not a classification.
    """
    for name, value, letter in (("--project", project_uid, "P"), ("--job", job_uid, "J")):
        if not re.match(rf"^{letter}\d+$", value):
            raise InputError(f"{name} is {value!r}: it is a number with its letter, such as {letter}3.")
    with asked(f"looking for the project {project_uid}", missing=f"There is no project {project_uid} that you can see."):
        session.api.projects.find_one(project_uid)
    with asked(f"looking for {job_uid} in {project_uid}", missing=f"There is no job {job_uid} in the project {project_uid}."):
        job = session.find_job(project_uid, job_uid)
    if job.status != "completed":
        raise InputError(f"{project_uid} {job_uid} ({job.type}) is {job.status}, not completed: wait for it, or run it again.")
    outputs = job.outputs
    with_posteriors = [
        name
        for name, output in outputs.items()
        if output.type == "particle" and any(_POSTERIORS.match(result.name) for result in output.results)
    ]
    volumes = {
        int(match[1]): name
        for name, output in outputs.items()
        if output.type == "volume" and (match := _CLASS_MAP.match(name))
    }
    known = ", ".join(f"{name} ({output.type})" for name, output in outputs.items()) or "none"
    if not with_posteriors:
        raise InputError(
            f"{project_uid} {job_uid} ({job.type}) has no particles with class posteriors (alignments3D_multi or a slot "
            f"for each class); its outputs are: {known}. Give a 3D Classification, Heterogeneous Refinement or Ab-Initio job."
        )
    if len(volumes) < 2:
        raise InputError(
            f"{project_uid} {job_uid} ({job.type}) has {len(volumes)} class maps (volume_class_N), and at least 2 are "
            f"needed; its outputs are: {known}."
        )
    for name in volumes.values():
        if not any(result.name == "map" and result.metafiles for result in outputs[name].results):
            raise InputError(f"The output {name} of {project_uid} {job_uid} has no slot map: clear the job and run it again.")
    whole = _ALL_CLASSES in with_posteriors
    particles = _ALL_CLASSES if whole else max(with_posteriors, key=lambda name: outputs[name].num_items)
    return Classification(job, particles, dict(sorted(volumes.items())))


def visible_folder(found: Classification) -> Path | None:
    """Folder of the job where this machine sees the file system of the instance, else None."""
    with asked(f"asking for the folder of {found.name}"):
        folder = Path(str(found.job.dir))
    try:
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
            recognise_job(folder)
            return folder
    except (OSError, RegroupError) as error:
        logger.info("%s is not used as it lies there: %s", folder, error)
    return None


def fetch_files(found: Classification, folder: Path) -> Path:
    """Download what the job's outputs name: particles, passthrough, maps and half maps; what is there is not fetched again.

    Parameters
    ----------
    found
        The job.
    folder
        Where to; made when it does not exist.

    Returns
    -------
    pathlib.Path
        A folder with these files as in the job's own.

    Raises
    ------
    InstanceError
        A file cannot be fetched.
    """
    import numpy as np

    target = folder / found.job.uid
    target.mkdir(parents=True, exist_ok=True)
    for result in found.job.outputs[found.particles].results:
        if result.metafiles:
            _fetch(found, result.metafiles[-1], target)
    for name in found.volumes.values():
        metafile = next(one.metafiles[-1] for one in found.job.outputs[name].results if one.name == "map")
        table = _fetch(found, metafile, target)
        try:
            rows = _rows(table)
        except (OSError, ValueError, KeyError) as error:
            raise InstanceError(f"{metafile} of {found.name} is no table of a map: {error}.") from error
        for slot in ("map", "map_half_A", "map_half_B"):
            if f"{slot}/path" in rows:
                path = np.asarray(rows[f"{slot}/path"])[0]
                _fetch(found, path.decode() if isinstance(path, bytes) else str(path), target)
    return target


def _rows(table: Path) -> Any:
    from cryosparc.dataset import Dataset

    return Dataset.load(str(table))


def _fetch(found: Classification, path: str, target: Path) -> Path:
    """Download one file of the project; it appears under its name when it is whole."""
    final = target / PurePosixPath(path).name
    if final.exists():
        return final
    partial = final.with_name(f".{final.name}.partial")
    try:
        with asked(f"fetching {path} of {found.job.project_uid}", failure=InstanceError), open(partial, "wb") as stream:
            found.job.cs.download_file(found.job.project_uid, path, stream)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)
    return final


def forget_files(folder: Path) -> None:
    """Remove what was fetched."""
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def asked(doing: str, *, missing: str | None = None, failure: type[RegroupError] = InputError) -> Iterator[None]:
    """Turn what goes wrong between here and an instance into one sentence, without what was sent.

    Parameters
    ----------
    doing
        What was being done.
    missing
        What it means when there is no such thing (code 404).
    failure
        The error to raise.
    """
    import httpx
    from cryosparc.errors import APIError, DatasetLoadError, ExternalJobError

    try:
        with warnings.catch_warnings():
            # Each attempt that fails is warned of; the last one is an error anyway.
            warnings.filterwarnings("ignore", message=r"\*\*\* API client")
            yield
    except APIError as error:
        if error.code == 404 and missing is not None:
            raise failure(missing) from None
        raise failure(f"CryoSPARC refused {doing} (code {error.code}{_detail(error)}).") from None
    except httpx.TransportError as error:
        raise failure(f"The connection to CryoSPARC was lost while {doing} ({_kind(error)}).") from None
    except (DatasetLoadError, ExternalJobError, ValueError, TypeError) as error:
        raise failure(f"CryoSPARC's answer is not understood while {doing}: {error}.") from error


def _detail(error: Any) -> str:
    """What the server says in words; other parts of an answer can hold what was sent."""
    detail = error.data.get("detail") if isinstance(error.data, dict) else None
    return f": {detail}" if isinstance(detail, str) else ""


def _kind(error: BaseException | None) -> str:
    words = {"ConnectError": "connection refused", "ConnectTimeout": "no answer in time", "ReadTimeout": "no answer in time"}
    name = type(error).__name__
    return words.get(name, name)
