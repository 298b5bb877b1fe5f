"""Run units of work, here or on a cluster, and keep the result of each so that a run can be taken up again.

A unit is a small picklable record with a `name`; its function returns a dictionary of small arrays. Bulky results go
to stores, written by the task itself. A unit may say with `about` which inputs it works on: an error names them.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from distributed import Client

from regroup_dask import __version__
from regroup_dask.errors import ClusterError, RegroupError, UnitError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.store_errors import store_errors
from regroup_dask.tasks.checkpoint import Result, load_results, save_result
from regroup_dask.tasks.one_thread import one_thread

__all__ = ["Result", "Unit", "run_units"]

logger = logging.getLogger(__name__)


class Unit(Protocol):
    """A piece of work: picklable, and named uniquely within its stage."""

    @property
    def name(self) -> str:
        """Name of the unit, used for its checkpoint file."""


def run_units(
    function: Callable[[Any], Result],
    units: Sequence[Any],
    *,
    client: Client | None,
    checkpoint: Path | None = None,
    advance: Callable[..., None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Result]:
    """Run a function over units and return the results in the order of the units.

    Parameters
    ----------
    function
        Importable function of one unit.
    units
        The work; names must differ.
    client
        A Dask client, or None to work in this process.
    checkpoint
        Folder where each result is kept as ``NAME.npz``; units found there are not run again.
    advance
        Called as ``advance(count, restored=...)`` when units are done.
    say
        Told what a person should know meanwhile, such as that all workers are gone.

    Raises
    ------
    RegroupError
        As raised by the function: a wrong input is not tried again.
    UnitError
        The function failed otherwise; the message names the unit's inputs.
    ClusterError
        When a unit was lost with its worker too often, or the cluster went away.
    """
    results: dict[str, Result] = {}
    if checkpoint is not None:
        storing.make_folder(checkpoint)
        results = load_results(checkpoint, [unit.name for unit in units])
        if results:
            logger.info("%s: %d of %d units restored", checkpoint.name, len(results), len(units))
            if advance:
                advance(len(results), restored=len(results))
    missing = [unit for unit in units if unit.name not in results]
    if client is None:
        for unit in missing:
            results[unit.name] = run_unit(function, unit, checkpoint)
            if advance:
                advance(1)
    elif missing:
        from regroup_dask.tasks.submission import run_on_cluster

        run_on_cluster(function, missing, client, checkpoint, results, advance=advance, say=say)
    if checkpoint is not None:
        logger.info("%s: %d of %d units computed", checkpoint.name, len(missing), len(units))
    return [results[unit.name] for unit in units]


def about(unit: Any) -> str:
    """Say which inputs a unit works on."""
    return str(getattr(unit, "about", "") or unit.name)


def run_unit(
    function: Callable[[Any], Result],
    unit: Any,
    checkpoint: Path | None,
    version: str | None = None,
    options: storage.CarriedOptions | None = None,
) -> Result:
    """Run one unit in this process with one thread, and keep its result.

    Parameters
    ----------
    version
        Version of this package on the driver, compared with the worker's.
    options
        Storage options of the driver.
    """
    if version is not None and version != __version__:
        raise ClusterError(
            f"A worker has regroup-dask {__version__} and this process {version}: install the same on both."
        )
    if options is not None:
        options.adopt()
    try:
        with store_errors(about(unit)), one_thread():
            result = function(unit)
            if checkpoint is not None:
                save_result(checkpoint, unit.name, result)
    except (RegroupError, OSError):
        raise
    except MemoryError as error:
        raise ClusterError(
            f"The worker ran out of memory at {about(unit)}: give the workers more memory, or fewer threads each, "
            "then run the same command with --resume."
        ) from error
    except Exception as error:
        failure = UnitError(f"{about(unit)}: {type(error).__name__}: {error}")
        failure.add_note(traceback.format_exc())
        raise failure from error
    return result
