"""Particles of any origin as RELION 3.1 star files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from regroup_dask.formats.particle_facts import ParticleFacts
from regroup_dask.formats.rotations import angles_of_matrices

LABELS = (
    *("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup"),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnRandomSubset"),
    *("rlnClassNumber", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"),
)
OPTICS_LABELS = (
    *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"),
    *("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
)


def write_star_files(
    folder: Path, parts: Iterable[tuple[ParticleFacts, np.ndarray]], n_superclasses: int, optics: np.ndarray
) -> tuple[Path, ...]:
    """Write regrouped_particles, particles_superclass_K and remaining_particles as star files.

    Parameters
    ----------
    folder : path
    parts : iterable of (ParticleFacts, i64[n])
        Rows in input order and the superclass of each, -1 for remaining.
    n_superclasses : int
    optics : f64[m, 6]
        The distinct rows of `ParticleFacts.optics`, sorted: the optics groups.
    """
    names = ["regrouped_particles", *(f"particles_superclass_{k}" for k in range(n_superclasses)), "remaining_particles"]
    paths = [folder / f"{name}.star" for name in names]
    columns: tuple[str, ...] | None = None
    split = False
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in paths]
        for facts, superclass in parts:
            if columns is None:
                n_axes = facts.shift_angstrom.shape[1]
                columns = (*LABELS, "rlnOriginZAngst") if n_axes == 3 else LABELS
                split = bool((facts.half >= 0).all())
                columns = tuple(label for label in columns if split or label != "rlnRandomSubset")
                for stream in streams:
                    stream.write(_header(columns, optics))
            lines = _lines(facts, superclass, optics, split=split)
            for number, stream in enumerate(streams):
                k = number - 1
                inside = superclass >= 0 if number == 0 else superclass == (k if k < n_superclasses else -1)
                stream.write("".join(lines[row] for row in np.flatnonzero(inside).tolist()))
    return tuple(paths)


def _header(columns: tuple[str, ...], optics: np.ndarray) -> str:
    text = ["# version 30001", "", "data_optics", "", "loop_"]
    text += [f"_{label} #{number}" for number, label in enumerate(OPTICS_LABELS, 1)]
    for number, (pixel, box, voltage, cs, contrast, _) in enumerate(optics.tolist(), 1):
        values = f"{pixel:.6f} {np.nan_to_num(box):.0f} 2 {voltage:.6f} {cs:.6f} {contrast:.6f}"
        text.append(f"{number} opticsGroup{number} {values}")
    text += ["", "", "# version 30001", "", "data_particles", "", "loop_"]
    text += [f"_{label} #{number}" for number, label in enumerate(columns, 1)]
    return "\n".join(text) + "\n"


def _lines(facts: ParticleFacts, superclass: np.ndarray, optics: np.ndarray, *, split: bool) -> list[str]:
    comparable = np.nan_to_num(optics, nan=-1)
    _, group = np.unique(np.concatenate([comparable, np.nan_to_num(facts.optics, nan=-1)]), axis=0, return_inverse=True)
    group = group[len(optics) :] + 1
    angles = angles_of_matrices(facts.rotation)
    numbers = np.column_stack([facts.defocus_angstrom, facts.defocus_angle_degrees, facts.phase_shift_degrees])
    rows = zip(
        facts.image_path.to_pylist(),
        facts.image_index.tolist(),
        facts.micrograph.to_pylist(),
        np.nan_to_num(facts.coordinate_pixel).tolist(),
        group.tolist(),
        np.nan_to_num(numbers).tolist(),
        (facts.half + 1).tolist(),
        (superclass + 1).tolist(),
        np.nan_to_num(np.column_stack([angles, facts.shift_angstrom])).tolist(),
        strict=True,
    )
    lines = []
    for path, index, micrograph, coordinate, optics_group, ctf, half, number, pose in rows:
        name, movie = _word(f"{index + 1:06d}@{path}"), _word(micrograph or "None")
        values = [name, movie, *_fixed(coordinate), str(optics_group), *_fixed(ctf)]
        values += [str(half)] if split else []
        lines.append(" ".join([*values, str(number), *_fixed(pose)]) + "\n")
    return lines


def _fixed(values: list[float]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _word(text: str) -> str:
    """Write a text as one value: in quotes when it has white space; a line break cannot be kept."""
    clean = "".join(" " if ord(letter) < 32 else letter for letter in text)
    if clean and not any(letter.isspace() for letter in clean) and clean[0] not in "\"'#":
        return clean
    quote = "'" if '"' in clean else '"'
    return f"{quote}{clean.replace(quote, '_')}{quote}"


def image_folder_note(folder: Path) -> str:
    """Say what RELION needs beside the star files."""
    return (
        f"The image paths in {os.fspath(folder)} are those of the input: RELION finds them from its project folder, and "
        "takes a stack by the ending .mrcs (link CryoSPARC's .mrc under that name)."
    )
