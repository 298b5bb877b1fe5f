"""``regroup-dask cryosparc``: a job of a running CryoSPARC, regrouped and registered there as an external job."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regroup_dask.cli.options import (
    INPUT,
    OUTPUT,
    alignment_options,
    class_options,
    cluster_options,
    dry_run_option,
    grouping_options,
    output_options,
    superclasses_option,
)
from regroup_dask.cli.stopping import says_how_to_resume
from regroup_dask.cli.teaching import TeachingCommand, titled
from regroup_dask.cli.watching import Watching, watching_options

if TYPE_CHECKING:
    from cryosparc.controllers.job import ExternalJobController

    from regroup_dask.formats.cryosparc_instance import Classification
    from regroup_dask.progress import Event, Listener

EXAMPLES = (
    ("regroup-dask cryosparc --project P3 --job J42 -k 4 --align-pairs", "fetch, regroup, register beside J42"),
    (
        "regroup-dask cryosparc --instance http://localhost:39000 --project P3 --job J42 -k auto -o J42_regrouped",
        "where CryoSPARC is and where the result goes, said here",
    ),
    (
        "regroup-dask cryosparc --project P3 --job J42 -k 4 -o J42_regrouped --resume",
        "go on; a run that is complete is only registered",
    ),
)


@click.command("cryosparc", cls=TeachingCommand, examples=EXAMPLES, short_help="Regroup a job of a running CryoSPARC there.")
@titled(INPUT, "--instance", metavar="URL", help="Address of CryoSPARC's web page.  [default: CRYOSPARC_BASE_URL]")
@titled(INPUT, "--email", help="Who you are there.  [default: CRYOSPARC_EMAIL, or the stored session]")
@titled(INPUT, "--project", "project_uid", required=True, metavar="P3", help="The project.")
@titled(INPUT, "--job", "job_uid", required=True, metavar="J42",
        help="A completed 3D Classification, Heterogeneous Refinement or Ab-Initio job.")
@titled(INPUT, "--workspace", "workspace_uid", metavar="W1",
        help="Workspace of the external job.  [default: that of the job]")
@titled(INPUT, "--class-prefix", default="auto", show_default=True, metavar="P|auto",
        help="[Legacy] Class alignment3D prefix: alignments_class3D_, alignments_class_ or alignments3D_multi.")
@class_options
@alignment_options
@superclasses_option
@grouping_options
@titled(OUTPUT, "-o", "--output", type=click.Path(), metavar="OUT", help="The folder to make.  [default: P3_J42_regrouped]")
@output_options
@dry_run_option
@cluster_options
@watching_options
def command(
    instance: str | None,
    email: str | None,
    project_uid: str,
    job_uid: str,
    workspace_uid: str | None,
    output: str | None,
    dry_run: bool,
    watching: Watching,
    **options: Any,
) -> None:
    """Regroup a job of a running CryoSPARC and register the result there as an external job.

    The files are read where they lie if this machine sees them, and fetched into OUT.inputs if not. The password
    comes from CRYOSPARC_PASSWORD or a session stored by `python -m cryosparc.tools login`, never from the command
    line, and is written nowhere. When anything fails, the external job is cleared and marked failed, and the result
    on this machine is kept.
    """
    from regroup_dask.formats import cryosparc_instance as instances

    target = Path(output or f"{project_uid}_{job_uid}_regrouped")
    _check(target, options)
    login = instances.login_from_environment(instance, email)
    session, notes = instances.connect_instance(login)
    found = instances.find_classification(session, project_uid, job_uid)
    talk = click.echo if watching.talks else _silent
    for note in notes:
        talk(f"Note: {note}", err=True)
    talk(f"{found.name}, {found.job.title or found.job.type}: {len(found.volumes)} class maps", err=True)
    if dry_run:
        _preview(found, instances.visible_folder(found), target, workspace_uid, watching, options)
        return
    with says_how_to_resume(target):
        if not (options["resume"] and _complete(target)):
            folder = instances.visible_folder(found)
            if folder is None:
                talk(f"Fetching its files into {inputs_folder(target)}", err=True)
                folder = instances.fetch_files(found, inputs_folder(target))
            elif watching.talks:
                talk(f"Its files are read in {folder}", err=True)
            _run_and_register(found, folder, target, workspace_uid, watching, options)
        else:
            _register(found, target, workspace_uid, watching)


def _preview(
    found: Classification,
    folder: Path | None,
    target: Path,
    workspace_uid: str | None,
    watching: Watching,
    options: dict[str, Any],
) -> None:
    """Say what would be done; nothing is fetched, computed or registered."""
    from regroup_dask.cli.run_command import preview_job

    talk = click.echo if watching.talks else _silent
    where = f"workspace {workspace_uid}" if workspace_uid else "the workspace of the job"
    talk(f"Would be registered in {where} as an external job: {_title(found, options['n_superclasses'])}.", err=True)
    if folder is None:
        talk(f"This machine does not see its files: they would be fetched into {inputs_folder(target)} first.", err=True)
        talk("Nothing was fetched, computed or written: the same command without --dry-run does it.", err=True)
        return
    given: dict[str, Any] = {"particles": (), "volumes": (), "passthrough": (), "voxel_size_angstrom": None}
    preview_job(str(folder), output=str(target), watching=watching, **given, **options)


def inputs_folder(output: Path) -> Path:
    """Where the files of a job on another machine are kept: `group` needs them again."""
    return output.with_name(output.name + ".inputs")


def _silent(*_given: Any, **_options: Any) -> None:
    """Say nothing."""


def _check(target: Path, options: dict[str, Any]) -> None:
    """Refuse what is wrong before anybody is asked for anything."""
    from regroup_dask.formats.run_folder import check_output
    from regroup_dask.settings import Settings

    places = {"scheduler", "scheduler_file", "cluster_file", "workers", "slurm", "resume", "overwrite"}
    Settings(**{name: value for name, value in options.items() if name not in places and name != "storage_options"})
    if not (options["resume"] and _complete(target)):
        check_output(target, resume=options["resume"], overwrite=options["overwrite"])


def _complete(target: Path) -> bool:
    """Whether a run is complete there; what else there may be, `check_output` has refused."""
    from regroup_dask.errors import InputError
    from regroup_dask.formats.run_folder import read_run

    try:
        return bool(read_run(target).get("status") == "complete")
    except InputError:
        return False


def _run_and_register(
    found: Classification,
    folder: Path,
    target: Path,
    workspace_uid: str | None,
    watching: Watching,
    options: dict[str, Any],
) -> None:
    from regroup_dask.cli.run_command import run_job
    from regroup_dask.formats.cryosparc_register import fail_external_job, open_external_job, say_in_log

    external = open_external_job(found, workspace_uid=workspace_uid, title=_title(found, options["n_superclasses"]))
    say_in_log(external, f"regroup-dask works on {found.job.uid}; its output folder is {target.absolute()}.")
    heard = dataclasses.replace(watching, also=_log_listener(external))
    try:
        run_job(str(folder), output=str(target), watching=heard, **options)
    except BaseException as error:
        fail_external_job(external, str(getattr(error, "text", "") or error))
        raise
    _finish(external, target, watching)


def _register(found: Classification, target: Path, workspace_uid: str | None, watching: Watching) -> None:
    from regroup_dask.errors import InputError
    from regroup_dask.formats.cryosparc_register import open_external_job
    from regroup_dask.formats.run_folder import read_run

    record = read_run(target)
    if Path(str(record["inputs"].get("job"))).name != found.job.uid:
        raise InputError(f"The run in {target} was not of {found.job.uid} but of {record['inputs'].get('job')}: give another -o.")
    external = open_external_job(found, workspace_uid=workspace_uid, title=_title(found, record["n_superclasses"]))
    _finish(external, target, watching)


def _finish(external: ExternalJobController, target: Path, watching: Watching) -> None:
    from regroup_dask.errors import InstanceError
    from regroup_dask.formats.cryosparc_register import register_outputs

    try:
        names = register_outputs(external, target)
    except InstanceError as error:
        raise InstanceError(
            f"{error} The external job {external.uid} is cleared and marked failed. The result in {target} is complete: "
            "the same command with --resume registers it again."
        ) from error
    if watching.as_json:
        from regroup_dask.cli.json_events import emit

        emit("registered", project=external.project_uid, job=external.uid, outputs=list(names))
    elif watching.talks:
        click.echo(f"Registered in {external.project_uid} as {external.uid}: {', '.join(names)}")


def _title(found: Classification, count: int | str) -> str:
    return f"Regroup 3D classes of {found.job.uid} (K = {count})"


def _log_listener(external: ExternalJobController) -> Listener:
    from regroup_dask.formats.cryosparc_register import say_in_log
    from regroup_dask.progress import Message, StageFinished

    def tell(event: Event) -> None:
        if isinstance(event, StageFinished):
            say_in_log(external, f"{event.stage}: {event.seconds:.1f} s")
        elif isinstance(event, Message):
            say_in_log(external, event.text)

    return tell
