"""The whole method: read, compare pairs, group, put into frames, average, assign, write, report."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from distributed import Client

from regroup_dask import __version__, grouping
from regroup_dask.errors import RegroupWarning
from regroup_dask.formats import result_tables, volume_store
from regroup_dask.formats.class_store import read_classes
from regroup_dask.formats.consolidate import consolidate
from regroup_dask.formats.pairs_store import write_pairs
from regroup_dask.formats.run_folder import check_output, read_run, run_folder, write_run
from regroup_dask.formats.store_errors import store_errors
from regroup_dask.hand_edits import ToldGroups
from regroup_dask.progress import Listener, StageClock, silent
from regroup_dask.report.chimerax import write_view
from regroup_dask.report.page import write_page
from regroup_dask.settings import Settings
from regroup_dask.steps import averaging, comparing, particles, polishing, regrouping, tables
from regroup_dask.steps.class_maps import keep_classes
from regroup_dask.steps.cut_shifts import cut_shift_sentences
from regroup_dask.steps.hand_sentences import hand_sentences
from regroup_dask.steps.inputs import Inputs, check_inputs, fingerprints
from regroup_dask.steps.mask import write_mask
from regroup_dask.steps.plan import check_memory, plan_lines, plan_run
from regroup_dask.steps.regrouping import CLASSES, PAIRS
from regroup_dask.steps.run_context import RunContext
from regroup_dask.steps.selection import Selection, survey_and_select
from regroup_dask.steps.unaligned import unaligned_sentences
from regroup_dask.tasks.crew import workers_of
from regroup_dask.tasks.one_thread import one_thread
from regroup_dask.tasks.versions import check_shared_folder

logger = logging.getLogger(__name__)

PACKAGES = (
    *("regroup-dask", "dask", "distributed", "xarray", "zarr", "numpy"),
    *("scipy", "scikit-learn", "pyarrow", "numba", "finufft"),
)


class Regrouped(NamedTuple):
    """What a run gave.

    Attributes
    ----------
    output
        The output folder.
    pairs
        Every pair of classes, as in pairs.zarr.
    groups
        Superclass and pose of every class that took part.
    classes, superclasses
        The tables, as Arrow.
    n_remaining
        Particles of no superclass.
    warnings
        Sentences for the person who runs it.
    seconds
        Time of each stage.
    """

    output: Path
    pairs: xr.Dataset
    groups: xr.Dataset
    classes: Any
    superclasses: Any
    n_remaining: int
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    def _repr_html_(self) -> str:
        """What a notebook shows: a row per superclass, with its picture."""
        from regroup_dask.report.notebook import result_html

        return result_html(self.output)


def regroup_inputs(
    inputs: Inputs,
    settings: Settings,
    output: Path,
    *,
    client: Client | None,
    listener: Listener = silent,
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    earlier: Path | None = None,
    told: ToldGroups | None = None,
    heard_before: Sequence[str] = (),
    known: dict[tuple[str, bytes], Any] | None = None,
) -> Regrouped:
    """Regroup the classes of one job.

    Parameters
    ----------
    inputs
        Maps and particles, found and checked.
    settings
        Every parameter.
    output
        The output folder; complete when this returns.
    client
        A Dask client, or None for this process.
    listener
        Told of every event.
    resume, overwrite
        What to do with a folder that exists.
    command
        The command line, for the record.
    earlier
        Folder of an earlier run with the same inputs: its pairs are taken, nothing is aligned again.
    told
        With `earlier`: the superclasses that a person made of that run's, instead of grouping the classes anew.
    heard_before
        Warnings of finding the inputs, for the record.
    known
        Filled with what outputs of the same inputs share, and taken from there: for several outputs one after another.
    """
    check_output(output, resume=resume, overwrite=overwrite)
    identity = {"version": __version__, "settings": settings.as_dict(), "inputs": fingerprints(inputs)}
    if told is not None:
        identity["by_hand"] = {"edits": list(told.edits), "superclasses": told.superclass_of_class}
    clock = StageClock(listener)
    with (
        store_errors(str(output)),
        one_thread(),  # the driver's own sums give the same bytes too, however many cores it has
        heard_warnings(clock) as heard,
        run_folder(output, resume=resume, overwrite=overwrite, identity=identity) as folder,
    ):
        heard.extend(heard_before)
        run = RunContext(folder, client, clock, known)
        check_inputs(inputs, settings.exclude_classes)
        if client is not None:
            check_shared_folder(client, folder)
        selection = survey_and_select(inputs, settings, run)
        workers = workers_of(client)
        plan = plan_run(len(selection.kept), inputs.series, inputs.source, settings)
        for line in plan_lines(plan, workers) if earlier is None else ["The pairs are known: nothing is aligned again."]:
            clock.say(line)
        check_memory(plan, workers)
        if earlier is None:
            pairs = _compare(inputs, selection, settings, run)
            for sentence in (*unaligned_sentences(pairs, settings), *cut_shift_sentences(pairs, settings)):
                warnings.warn(sentence, RegroupWarning, stacklevel=2)
        else:
            pairs = regrouping.copy_comparison(earlier, folder, selection)
        pairs, groups = regrouping.group_classes(pairs, selection, settings, run, earlier=earlier, told=told)
        for sentence in hand_sentences(pairs, groups, settings):
            warnings.warn(sentence, RegroupWarning, stacklevel=2)
        if settings.align and inputs.mask is None:
            classes_store = folder / CLASSES
            groups = polishing.polish_poses(groups, read_classes(classes_store), classes_store, settings, run)
        counts = rules_differ = None
        if selection.class_counts is not None:
            counts, groups = _count(inputs, selection.class_counts, groups, settings, run)
        paths = averaging.average_superclasses(groups, inputs.series, run)
        consolidate(folder / "volumes.zarr")
        volume_store.write_series_zip(folder / "series.zip", paths)
        mask = write_mask(inputs, settings, folder)
        if inputs.source is not None and counts is not None:
            maps = particles.superclass_maps(
                paths,
                inputs.series.box,
                inputs.series.voxel_size_angstrom,
                output=output,
                series_zip=folder / "series.zip",
                mask=mask,
                ssnr=particles.superclass_ssnr(groups, inputs.ssnr),
            )
            rules_differ = particles.write(inputs.source, groups, counts, settings, maps, run).rules_differ
        classes = tables.class_table(inputs, selection, groups)
        superclasses = tables.superclass_table(groups, None if counts is None else counts.per_superclass)
        result_tables.write_table(classes, folder, "classes")
        result_tables.write_table(superclasses, folder, "superclasses")
        record = _record(inputs, settings, selection, groups, counts, rules_differ, clock, tuple(heard), identity, command)
        if told is not None and earlier is not None:
            record["by_hand"] = regrouping.record_by_hand(earlier, told, groups)
        write_run(folder, {**record, "status": "without report"})
        with clock.stage("Writing the report", 1):
            _report(folder)
        write_run(folder, {**record, "warnings": list(heard), "seconds": clock.seconds})
    n_remaining = 0 if counts is None else counts.remaining
    return Regrouped(output, pairs, groups, classes, superclasses, n_remaining, tuple(heard), clock.seconds)


def _report(folder: Path) -> None:
    """Write the page and the view; particles and maps are not lost because a figure could not be drawn."""
    try:
        write_page(folder)
        write_view(folder)
    except Exception:
        logger.exception("the report could not be made")
        warnings.warn(
            "The report could not be made; everything else is there. `regroup-dask --verbose report OUT` shows why.",
            RegroupWarning,
            stacklevel=2,
        )


def settings_of_run(earlier: Path) -> tuple[dict[str, Any], Settings]:
    """Return the record and the settings of an earlier run."""
    record = read_run(earlier)
    return record, Settings.from_dict(record["settings"])


def _compare(inputs: Inputs, selection: Selection, settings: Settings, run: RunContext) -> xr.Dataset:
    references = tuple(inputs.series.references[position] for position in selection.kept)
    ssnr = comparing.ssnr_table(inputs.ssnr, references)
    found = comparing.compare_maps(references, selection, settings, run, mask=inputs.mask, ssnr=ssnr)
    write_pairs(found.pairs, run.folder / PAIRS)
    keep_classes(found.classes, found.working_maps, run.folder / CLASSES, run)
    return found.pairs


def _count(
    inputs: Inputs, class_counts: particles.ClassCounts, groups: xr.Dataset, settings: Settings, run: RunContext
) -> tuple[particles.ParticleCounts, xr.Dataset]:
    """Count where particles go; superclasses are renumbered if their rule of assignment changed the order."""
    assert inputs.source is not None
    labels = dict(zip(groups["class_id"].values.tolist(), groups["superclass"].values.tolist(), strict=True))
    counts = particles.count(inputs.source, class_counts, labels, groups.sizes["superclass_id"], settings, run)
    order = np.argsort(-counts.per_superclass, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        groups = grouping.renumber(groups, order)
        counts = counts._replace(per_fragment=counts.per_fragment[:, [*order, len(order)]])
    return counts, groups


def _record(
    inputs: Inputs,
    settings: Settings,
    selection: Selection,
    groups: xr.Dataset,
    counts: particles.ParticleCounts | None,
    rules_differ: int | None,
    clock: StageClock,
    heard: tuple[str, ...],
    identity: dict[str, Any],
    command: str | None,
) -> dict[str, Any]:
    source = inputs.source
    return {
        "status": "complete",
        "command": command,
        "settings": settings.as_dict(),
        "inputs": inputs.given,
        "found": list(inputs.lines),
        "fingerprints": identity["inputs"],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "n_classes": len(selection.class_ids),
        "n_classes_kept": len(selection.kept),
        "n_superclasses": int(groups.sizes["superclass_id"]),
        "n_particles": None if source is None else source.count_rows(),
        "n_particles_remaining": None if counts is None else counts.remaining,
        "n_particles_rules_differ": rules_differ,
        "grouping": {name: value for name, value in groups.attrs.items()},
        "warnings": list(heard),
        "seconds": clock.seconds,
        "identity": identity,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def heard_warnings(clock: StageClock) -> Iterator[list[str]]:
    """Collect the warnings meant for a person, and pass each on as it comes: Python shows them if nobody listens."""
    heard: list[str] = []
    show = warnings.showwarning

    def listen(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if isinstance(category, type) and issubclass(category, RegroupWarning):
            if str(message) not in heard:
                heard.append(str(message))
                clock.say(f"Note: {message}", is_note=True)
                if clock.listener is silent:
                    show(message, category, *rest, **more)
        else:
            show(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RegroupWarning)
        warnings.showwarning = listen  # type: ignore[assignment]
        yield heard


def without_secrets(words: Sequence[str]) -> list[str]:
    """Leave out what storage options hold, which may be keys."""
    kept: list[str] = []
    for word in words:
        option, found, value = word.partition("=")
        if kept and kept[-1] == "--storage-options":
            word = f"{option}=..." if found else word
        elif found and option == "--storage-options":
            word = f"{option}={value.partition('=')[0]}=..." if "=" in value else word
        kept.append(word)
    return kept


def command_line() -> str:
    """Return the command that started this process, as a person would type it."""
    import shlex

    words = sys.argv[1:]
    if Path(sys.argv[0]).name.startswith("dask") and words[:1] == ["regroup"]:
        words = words[1:]  # `dask regroup` is the same program
    return shlex.join(["regroup-dask", *without_secrets(words)])
