"""What was found in a job folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Job:
    """A classification job as found in its folder.

    Attributes
    ----------
    kind : {"cryosparc", "relion", "cryodrgn"}
    folder : str
    iteration : int or None
        None where the files say "final" or nothing.
    particle_files : tuple of str
        One file of all classes where there is one, else one per class.
    passthrough_files : tuple of str
    volume_files : dict of int to str
        Zero-based class id to class map, all classes.
    half_map_files : dict of int to (str, str)
        Only classes that have both.
    class_names : dict of int to str
    model_star : str or None
        RELION's.
    mask : str or None
        The one mask that lies in the folder; for information, the job may not have used it.
    voxel_size_angstrom : float or None
        Where the job's tables say it; the maps' headers are another source.
    job_type : str or None
        As the program calls it, where the folder says so.
    lines : tuple of str
        What was found, sentences for a person.
    """

    kind: Literal["cryosparc", "relion", "cryodrgn"]
    folder: str
    iteration: int | None
    particle_files: tuple[str, ...]
    passthrough_files: tuple[str, ...]
    volume_files: dict[int, str]
    half_map_files: dict[int, tuple[str, str]] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    model_star: str | None = None
    mask: str | None = None
    voxel_size_angstrom: float | None = None
    job_type: str | None = None
    lines: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from regroup_dask.formats.notebook_html import html_box, html_fold, html_list, html_rows, shortened

        rows: list[tuple[str, object]] = [
            ("folder", self.folder),
            ("iteration", "final" if self.iteration is None else self.iteration),
            ("classes", f"{len(self.volume_files)}: {shortened(sorted(self.volume_files))}"),
            ("particles", shortened([os.path.basename(path) for path in self.particle_files], 6)),
        ]
        if self.job_type:
            rows.append(("type", self.job_type))
        if self.half_map_files:
            rows.append(("half maps", f"of {len(self.half_map_files)} classes"))
        if self.voxel_size_angstrom:
            rows.append(("voxel size", f"{self.voxel_size_angstrom:.4g} Å"))
        name = {"cryosparc": "CryoSPARC", "relion": "RELION", "cryodrgn": "cryoDRGN"}[self.kind]
        maps = html_rows((f"class {number}", path) for number, path in sorted(self.volume_files.items()))
        return html_box(
            f"{name} job",
            os.path.basename(os.path.normpath(self.folder)),
            [html_rows(rows), html_fold("what was found", html_list(self.lines)), html_fold("class maps", maps)],
        )
