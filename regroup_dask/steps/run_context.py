"""What every step needs to know of the run it is part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from regroup_dask.formats import storage
from regroup_dask.formats.run_folder import WORK
from regroup_dask.progress import StageClock
from regroup_dask.tasks.checkpoint import forget_results, load_results
from regroup_dask.tasks.execute import Result, run_units


@dataclass(frozen=True)
class RunContext:
    """The folder a run writes to, the client it works with (None: this process), and its clock."""

    folder: Path
    client: Client | None
    clock: StageClock

    @property
    def work(self) -> Path:
        """Folder of what only an unfinished run needs."""
        return self.folder / WORK

    def run(self, stage: str, label: str, function: Callable[[Any], Result], units: Sequence[Any]) -> list[Result]:
        """Run the units of one stage, with progress under `label` and results kept under `stage`."""
        with self.clock.stage(label, len(units)) as advance:
            return run_units(
                function,
                units,
                client=self.client,
                checkpoint=self.units(stage),
                advance=advance,
                say=self.clock.say,
            )

    def units(self, stage: str) -> Path:
        """Folder where the results of the units of a stage are kept."""
        return self.work / "units" / stage

    def finished(self, stage: str) -> int:
        """How many units of a stage have a result that can be read."""
        folder = self.units(stage)
        return len(load_results(folder, self._kept(stage)))

    def forget(self, stage: str, names: Sequence[str] | None = None) -> None:
        """Drop the results of some units, or of all, so that they are run again."""
        folder = self.units(stage)
        forget_results(folder, self._kept(stage) if names is None else list(names))

    def _kept(self, stage: str) -> list[str]:
        """Names of the units of a stage that have a result."""
        folder = self.units(stage)
        names = storage.file_names(folder) if storage.is_folder(folder) else []
        return [name.removesuffix(".npz") for name in names if name.endswith(".npz") and not name.startswith(".")]
