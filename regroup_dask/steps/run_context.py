"""What every step needs to know of the run it is part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

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
        return len(load_results(folder, [path.stem for path in folder.glob("[!.]*.npz")]))

    def forget(self, stage: str, names: Sequence[str] | None = None) -> None:
        """Drop the results of some units, or of all, so that they are run again."""
        folder = self.units(stage)
        forget_results(folder, [path.stem for path in folder.glob("*.npz")] if names is None else list(names))
