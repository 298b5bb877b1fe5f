"""Particles of any origin as RELION 3.1 star files.

A task writes the text of its fragment into one part of its own, sorted into the files it goes to; other tasks then only
join bytes, a file each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regroup_dask.errors import InputError
from regroup_dask.formats import storage, storing
from regroup_dask.formats.export_folder import parts_of_export
from regroup_dask.formats.export_plan import ExportPlan, FragmentPlace, image_boxes
from regroup_dask.formats.particle_facts import CTF_LABELS, OPTICS, RELION_OPTICS, ParticleFacts
from regroup_dask.formats.rotations import angles_of_matrices
from regroup_dask.formats.store_parts import JoinedFile, write_part

DECIMALS = 6
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")


@dataclass(frozen=True)
class StarExport:
    """Star files to be written: regrouped, one for each superclass, remaining; picklable."""

    folder: str
    n_superclasses: int
    plan: ExportPlan
    extent_angstrom: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files, in the order of the sections of a part file."""
        own = (f"particles_superclass_{number}" for number in range(self.n_superclasses))
        return ("regrouped_particles", *own, "remaining_particles")

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns of the particles."""
        plan = self.plan
        labels = ["rlnImageName"]
        labels += ["rlnMicrographName"] if plan.micrograph_bytes else []
        labels += ["rlnCoordinateX", "rlnCoordinateY"] if plan.has_coordinates else []
        labels += CTF_LABELS[:3] if plan.has_ctf else []
        labels += ["rlnPhaseShift"] if plan.has_phase_shift else []
        labels += ["rlnCtfBfactor"] if plan.has_b_factor else []
        labels += ["rlnCtfScalefactor"] if plan.has_scale else []
        labels += ["rlnRandomSubset"] if plan.has_halves else []
        return (*labels, "rlnOpticsGroup", "rlnClassNumber", *POSE[: 3 + plan.n_axes])

    def create(self) -> None:
        """Make the folder of the part files."""
        storing.make_folder(self._parts)

    def write_fragment(self, facts: ParticleFacts, superclass: np.ndarray, place: FragmentPlace) -> None:
        """Write the text of the rows of one fragment into a part; may run again."""
        lines = self._lines(facts, superclass)
        sections = [superclass >= 0, *(superclass == number for number in range(self.n_superclasses)), superclass < 0]
        write_part(self._parts, place.fragment, [[_text(lines.filter(pa.array(inside))) for inside in sections]], len(sections))

    def files_to_join(self, n_fragments: int) -> list[JoinedFile]:
        """The star files, put together from the parts."""
        header, n_files = self._header(), len(self.names)
        return [
            JoinedFile(f"{self.folder}/{name}.star", self._parts, n_fragments, section, n_files, header, b"")
            for section, name in enumerate(self.names)
        ]

    def finish(self) -> tuple[Path, ...]:
        """Return the files."""
        return tuple(storage.location(f"{self.folder}/{name}.star") for name in self.names)

    @property
    def _parts(self) -> str:
        return parts_of_export(self.folder)

    def _header(self) -> bytes:
        plan = self.plan
        known = [number for number, name in enumerate(OPTICS[1:], 1) if plan.knows(name) or name in ("pixel_angstrom", "box")]
        values = plan.optics.copy()
        values[:, OPTICS.index("box")] = image_boxes(plan.optics, self.extent_angstrom)
        labels = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImageDimensionality", *(RELION_OPTICS[n - 1] for n in known)]
        neutral = [1.0 if name in ("magnification_00", "magnification_11") else 0.0 for name in OPTICS]
        text = ["# version 30001", "", "data_optics", "", "loop_"]
        text += [f"_{label} #{number}" for number, label in enumerate(labels, 1)]
        for number, row in enumerate(values, 1):
            facts = [neutral[n] if np.isnan(row[n]) else row[n] for n in known]
            # Seven digits are what CryoSPARC's float32 has: 0.83, not 0.82999998.
            numbers = [f"{fact:.0f}" if OPTICS[n] == "box" else f"{fact:.7g}" for n, fact in zip(known, facts, strict=True)]
            text.append(" ".join([str(number), f"opticsGroup{number}", str(plan.n_axes), *numbers]))
        text += ["", "", "# version 30001", "", "data_particles", "", "loop_"]
        text += [f"_{label} #{number}" for number, label in enumerate(self.labels, 1)]
        return ("\n".join(text) + "\n").encode()

    def _lines(self, facts: ParticleFacts, superclass: np.ndarray) -> pa.Array:
        """Rows as text, each with its newline, a large_string array."""
        plan = self.plan
        index = pc.utf8_lpad(pa.array(facts.image_index + 1).cast(pa.string()), 6, "0")
        values = {"rlnImageName": words(pc.binary_join_element_wise(index, facts.image_path, "@"))}
        values["rlnMicrographName"] = words(pc.if_else(pc.equal(facts.micrograph, ""), "None", facts.micrograph))
        values |= _fixed(("rlnCoordinateX", "rlnCoordinateY"), facts.coordinate_pixel)
        values |= _fixed(CTF_LABELS, np.where(np.isnan(facts.ctf), [0, 0, 0, 0, 0, 1], facts.ctf))
        values |= _fixed(POSE, np.column_stack([angles_of_matrices(facts.rotation), facts.shift_angstrom]))
        whole = {
            "rlnRandomSubset": facts.half + 1,
            "rlnOpticsGroup": plan.group_of_rows(facts.optics) + 1,
            "rlnClassNumber": superclass + 1,
        }
        values |= {label: pa.array(numbers).cast(pa.string()) for label, numbers in whole.items()}
        columns = [values[label].cast(pa.large_string()) for label in self.labels]
        rows = pc.binary_join_element_wise(*columns, pa.scalar(" ", pa.large_string()))
        newline = pa.scalar("\n", pa.large_string())
        return pc.binary_join_element_wise(rows, newline, pa.scalar("", pa.large_string()))


def check_star_export(plan: ExportPlan, extent_angstrom: float | None) -> None:
    """Refuse particles that RELION could not read.

    Raises
    ------
    InputError
        The box of the images is not known.
    """
    boxes = image_boxes(plan.optics, extent_angstrom)
    if not (np.nan_to_num(boxes) > 0).all():
        raise InputError(
            "The particles do not say the box of their images (blob/shape, rlnImageSize) and the output folder has no maps "
            "to tell it by: RELION's optics groups need it."
        )


def words(texts: pa.Array) -> pa.Array:
    """Write texts as single values: in quotes where they have white space; a line break cannot be kept."""
    plain = pc.match_substring_regex(texts, r"""^[^"'#\s\x00-\x1f][^\s\x00-\x1f]*$""")
    if pc.all(plain).as_py():
        return texts
    return pc.if_else(plain, texts, pa.array([_word(text) for text in texts.to_pylist()], pa.string()))


def _word(text: str) -> str:
    clean = "".join(" " if ord(letter) < 32 or letter.isspace() else letter for letter in text)
    quote = "'" if '"' in clean else '"'
    return f"{quote}{clean.replace(quote, '_')}{quote}"


def _fixed(labels: Sequence[str], values: np.ndarray) -> dict[str, pa.Array]:
    """Columns of numbers as text of up to six decimals; 0 for what is not known."""
    rounded = np.round(np.nan_to_num(values), DECIMALS) + 0.0
    return {
        label: pa.array(np.ascontiguousarray(column)).cast(pa.string())
        for label, column in zip(labels, rounded.T, strict=False)
    }


def _text(lines: pa.Array) -> memoryview:
    """The bytes of texts one after another."""
    if not len(lines):
        return memoryview(b"")
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def image_folder_note(folder: Path) -> str:
    """Say what RELION needs beside the star files."""
    return (
        f"The image paths in {folder} are those of the input: RELION finds them from its project folder, and "
        "takes a stack by the ending .mrcs (link CryoSPARC's .mrc under that name)."
    )
