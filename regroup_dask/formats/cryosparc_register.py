"""Regrouped particles and maps as an external job of a running CryoSPARC.

Files are uploaded first and outputs declared after, and when anything fails the job is cleared and marked failed: no
output of a registration that broke off can be connected to another job.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from regroup_dask.errors import InstanceError
from regroup_dask.formats.cryosparc_instance import Classification, asked

if TYPE_CHECKING:
    from cryosparc.controllers.job import ExternalJobController

logger = logging.getLogger(__name__)

PARTICLES, VOLUMES = "particles", "volumes"
CHANGED = "alignments"
REPORT = "report.html"


class _Group(NamedTuple):
    """An output as its .csg describes it: name, title, type, and slots with their types."""

    name: str
    title: str
    kind: str
    slots: dict[str, str]
    table: Path
    n_rows: int


def open_external_job(found: Classification, *, workspace_uid: str | None, title: str) -> ExternalJobController:
    """Create a running external job beside a classification, with its particles and maps as inputs.

    Raises
    ------
    InstanceError
        It cannot be created; what there is of it is marked failed.
    """
    job = found.job
    workspace = workspace_uid or job.model.workspace_uids[0]
    description = f"Superclasses of the classes of {job.uid}, by regroup-dask."
    with asked(
        f"creating an external job in {job.project_uid} {workspace}",
        missing=f"There is no workspace {workspace} in {job.project_uid}: give another with --workspace.",
        failure=InstanceError,
    ):
        external = job.cs.create_external_job(job.project_uid, workspace, title=title, desc=description)
    try:
        with asked(f"connecting {job.uid} to {external.uid}", failure=InstanceError):
            slots = _optional(found, found.particles)
            external.add_input("particle", PARTICLES, min=1, slots=slots, title="Classified particles")
            external.connect(PARTICLES, job.uid, found.particles)
            first = next(iter(found.volumes.values()))
            external.add_input("volume", VOLUMES, min=1, slots=_optional(found, first), title="Class maps")
            for name in found.volumes.values():
                external.connect(VOLUMES, job.uid, name)
            external.start("running")
    except BaseException as error:
        fail_external_job(external, str(error))
        raise
    return external


def register_outputs(external: ExternalJobController, output: Path) -> tuple[str, ...]:
    """Upload the maps, declare and save every output of a finished run, and mark the job completed.

    Parameters
    ----------
    external
        A running external job.
    output
        The output folder of a run whose input was CryoSPARC.

    Returns
    -------
    tuple of str
        Names of the outputs.

    Raises
    ------
    InstanceError
        Something could not be saved; the job is cleared and marked failed, the output folder is untouched.
    """
    from cryosparc.dataset import Dataset

    groups = [group for group in _groups(output / "cryosparc") if group.n_rows]
    try:
        uploaded = _upload(external, output)
        for group in groups:
            data = Dataset.load(str(group.table))
            slots = {name: dtype for name, dtype in group.slots.items() if group.kind != "particle" or name.startswith(CHANGED)}
            passthrough = PARTICLES if group.kind == "particle" else None
            data = data.filter_prefixes(list(slots))
            _point_to_uploads(data, uploaded)
            with asked(f"saving the output {group.name} of {external.uid}", failure=InstanceError):
                external.add_output(
                    group.kind,  # type: ignore[arg-type]
                    group.name,
                    slots=[{"name": name, "dtype": dtype} for name, dtype in slots.items()],  # type: ignore[misc]
                    passthrough=passthrough,
                    title=group.title,
                )
                external.save_output(group.name, data)
        with asked(f"completing {external.uid}", failure=InstanceError):
            external.log(f"{len(groups)} outputs registered: {', '.join(group.name for group in groups)}.")
            external.stop()
    except BaseException as error:
        fail_external_job(external, str(error) or type(error).__name__)
        raise
    return tuple(group.name for group in groups)


def fail_external_job(external: ExternalJobController, sentence: str) -> None:
    """Clear what an external job has and mark it failed, as far as the instance can still be reached."""
    # Each step on its own: an instance that refuses one may do the next.
    for step in (
        lambda: external.stop(error=sentence or "stopped"),
        lambda: external.clear(),
        lambda: external.start("running"),
        lambda: external.stop(error=sentence or "stopped"),
    ):
        try:
            with asked("marking the job failed", failure=InstanceError):
                step()
        except InstanceError as error:
            logger.info("%s: %s", external.uid, error)


def say_in_log(external: ExternalJobController, text: str) -> None:
    """Add a line to the log of the job; a run does not fail because a line is lost."""
    with contextlib.suppress(InstanceError), asked("writing to the log", failure=InstanceError):
        external.log(text)


def _optional(found: Classification, output: str) -> list[Any]:
    """Slots of an output of the source job, none of them required of what is connected."""
    return [
        {"name": slot.name, "dtype": slot.dtype, "required": False} for slot in found.job.outputs[output].slots
    ] or ["?blob"]


def _groups(folder: Path) -> list[_Group]:
    found = []
    for path in sorted(folder.glob("*.csg")):
        described = yaml.safe_load(path.read_text())
        group, results = described["group"], described["results"]
        first = next(iter(results.values()))
        slots = {name: str(result["type"]).split(".", 1)[-1] for name, result in results.items()}
        table = folder / str(first["metafile"]).lstrip(">")
        found.append(_Group(group["name"], group["title"], group["type"], slots, table, int(first["num_items"])))
    if not found:
        raise InstanceError(f"{folder} has no groups to register: the input of the run was not a CryoSPARC job.")
    return found


def _upload(external: ExternalJobController, output: Path) -> dict[str, str]:
    """Upload what tables point to and the report; returns the path in the project of each file name."""
    folder = output / "cryosparc"
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".mrc", ".zip")]
    uploaded = {}
    for path in [*files, output / REPORT]:
        if path.is_file():
            with asked(f"uploading {path.name} to {external.uid}", failure=InstanceError):
                external.upload(path.name, path, overwrite=True)
            uploaded[path.name] = f"{external.uid}/{path.name}"
    return uploaded


def _point_to_uploads(data: Any, uploaded: dict[str, str]) -> None:
    import numpy as np

    for field in data.fields():
        if field.endswith("/path"):
            names = [str(value).lstrip(">") for value in np.asarray(data[field])]
            if all(name in uploaded for name in names):
                data[field] = [uploaded[name] for name in names]
