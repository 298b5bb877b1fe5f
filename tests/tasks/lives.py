"""Drivers that die: each life is a clean process, forked from one that has everything imported."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import regroup_dask as rd
from regroup_dask import api  # noqa: F401  imported once, before the forks
from regroup_dask.formats.particles import open_particles
from regroup_dask.formats.run_folder import run_folder
from regroup_dask.tasks import execute
from tests.tasks.small_job import SmallJob

KILLED = 77

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def live(action: Callable, *args, **options) -> int:
    """Run an importable function in a process of its own; returns how it ended."""
    process = _context.Process(target=action, args=args, kwargs=options)
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise TimeoutError("a life took longer than two minutes")
    return process.exitcode


def regroup(job: SmallJob, output: Path, *, die_at: int | None = None, computed: Path | None = None, **options):
    """Regroup the small job in this process; `die_at` and `computed` as in the functions below."""
    if computed is not None:
        _count_units(computed)
    if die_at is not None:
        _die_at_rename(die_at)
    source = open_particles(job.particles, fragment_rows=150)
    given = {"n_superclasses": 2, "align": True, "maximum_shift_angstrom": 8.0, **options}
    # The report is drawn at the very end, and takes longer than all else of so small a job.
    with mock.patch("regroup_dask.pipeline.write_page"):
        return rd.regroup(job.volumes, source, output=output, **given)


def make_output(output: Path, text: str, *, die_at: int | None = None) -> None:
    """Make an output folder that holds one file."""
    if die_at is not None:
        _die_at_rename(die_at)
    with run_folder(output, resume=False, overwrite=output.exists(), identity={"settings": {}}) as folder:
        (folder / "work").mkdir()
        (folder / "data").write_text(text)


def _die_at_rename(number: int) -> None:
    """End this process, with no goodbye, when it is about to rename or remove something for the given time."""
    left = [number]

    def counted(function):
        def call(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os._exit(KILLED)
            return function(*args, **options)

        return call

    os.replace = counted(os.replace)
    shutil.rmtree = counted(shutil.rmtree)


def _count_units(path: Path) -> None:
    """Write the name of each unit that is computed to a file."""
    run_unit = execute.run_unit

    def counted(function, unit, checkpoint, version=None):
        result = run_unit(function, unit, checkpoint, version)
        with open(path, "a") as stream:
            stream.write(f"{checkpoint.name}/{unit.name}\n")
        return result

    execute.run_unit = counted
