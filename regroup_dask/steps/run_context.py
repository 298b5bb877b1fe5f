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
    """The folder a run writes to, the client it works with (None: this process), and its clock.

    Several outputs of one command share what is the same in each: `known` has the results of units by what they are of.
    """

    folder: Path
    client: Client | None
    clock: StageClock
    known: dict[tuple[str, bytes], Result] | None = None

    @property
    def work(self) -> Path:
        """Folder of what only an unfinished run needs."""
        return self.folder / WORK

    def run(
        self,
        stage: str,
        label: str,
        function: Callable[[Any], Result],
        units: Sequence[Any],
        *,
        same: Callable[[Any], bytes] | None = None,
    ) -> list[Result]:
        """Run the units of one stage, with progress under `label` and results kept under `stage`.

        `same` says what a unit's result depends on: where another output of this command has it already, it is taken.
        """
        known = {} if self.known is None or same is None else self.known
        keys = [(stage, str(number).encode() if same is None else same(unit)) for number, unit in enumerate(units)]
        wanted = [unit for unit, key in zip(units, keys, strict=True) if key not in known]
        if wanted or not units:
            with self.clock.stage(label, len(wanted)) as advance:
                found = run_units(
                    function,
                    wanted,
                    client=self.client,
                    checkpoint=self.units(stage),
                    advance=advance,
                    say=self.clock.say,
                )
            known.update(zip([key for key in keys if key not in known], found, strict=True))
        return [known[key] for key in keys]

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
