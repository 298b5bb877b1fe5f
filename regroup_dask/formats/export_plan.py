"""What is to be known of all particles before the first of them is written for another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from regroup_dask.errors import InputError
from regroup_dask.formats.aberrations import LEFT_OUT
from regroup_dask.formats.particle_facts import OPTICS, ParticleFacts

UNKNOWN = -1e30
"""Stands for NaN where rows of optics are compared."""
MOST_OPTICS_GROUPS = 100_000

Survey = dict[str, np.ndarray]


class FragmentPlace(NamedTuple):
    """Where the rows of a fragment go."""

    fragment: int
    first_row: int
    counts_before: np.ndarray
    """i64[K + 1], rows of earlier fragments per superclass, remaining ones last"""


@dataclass(frozen=True)
class ExportPlan:
    """Facts of all particles together; small and picklable.

    Attributes
    ----------
    optics : f64[m, 12]
        Optics groups: the distinct rows of `OPTICS`, sorted, NaN where not known.
    path_bytes, micrograph_bytes : int
        Longest names.
    has_ctf, has_phase_shift, has_b_factor, has_scale, has_coordinates, has_halves, has_poses : bool
        Whether any particle has such a value; halves only when there are two.
    n_axes : int
        2 for images, 3 for subtomograms.
    left_out : tuple of str
        Columns with values that are not converted.
    """

    optics: np.ndarray
    path_bytes: int
    micrograph_bytes: int
    has_ctf: bool
    has_phase_shift: bool
    has_b_factor: bool
    has_scale: bool
    has_coordinates: bool
    has_halves: bool
    has_poses: bool
    n_axes: int
    left_out: tuple[str, ...]

    def knows(self, name: str) -> bool:
        """Whether a fact of the optics is known of any group, and not what it is without aberrations."""
        values = self.optics[:, OPTICS.index(name)]
        neutral = 1.0 if name in ("magnification_00", "magnification_11") else 0.0
        known = values[np.isfinite(values)]
        plain = name.startswith(("beam_tilt", "magnification")) and (known == neutral).all()
        return bool(len(known)) and not plain

    def group_of_rows(self, optics: np.ndarray) -> np.ndarray:
        """Position in `optics` of each row [n, 12], i64[n]."""
        known = _comparable(self.optics)
        distinct, inverse = np.unique(_comparable(optics), axis=0, return_inverse=True)
        place = {row.tobytes(): number for number, row in enumerate(known)}
        return np.array([place[row.tobytes()] for row in distinct], np.int64)[inverse.ravel()]


def survey_facts(facts: ParticleFacts) -> Survey:
    """What one fragment tells of itself; small arrays."""
    halves = facts.half[facts.half >= 0]
    return {
        "optics": np.unique(_comparable(facts.optics), axis=0),
        "bytes": np.array([_longest(facts.image_path), _longest(facts.micrograph)], np.int64),
        "ctf": np.isfinite(facts.ctf).any(axis=0),
        "coordinates": np.array(np.isfinite(facts.coordinate_pixel).any()),
        "halves": np.array([(halves == 0).any(), (halves > 0).any(), len(halves) == len(facts.half)]),
        "poses": np.array(np.isfinite(facts.rotation).any()),
        "axes": np.array(facts.shift_angstrom.shape[1]),
        "left_out": np.array([name in facts.left_out for name in LEFT_OUT]),
    }


def plan_export(surveys: Sequence[Any]) -> ExportPlan:
    """Join what the fragments tell.

    Parameters
    ----------
    surveys : sequence of dict
        From `survey_facts`.

    Raises
    ------
    InputError
        The pixel size of an image is not known.
    """
    def any_of(name: str) -> np.ndarray:
        return np.any([np.atleast_1d(survey[name]) for survey in surveys], axis=0)

    optics = np.unique(np.concatenate([survey["optics"] for survey in surveys]), axis=0)
    optics = np.where(optics == UNKNOWN, np.nan, optics)
    pixel = optics[:, OPTICS.index("pixel_angstrom")]
    if not (np.nan_to_num(pixel) > 0).all():
        raise InputError(
            "The particles do not say the pixel size of their images (blob/psize_A, rlnImagePixelSize, or the detector's "
            "with the magnification), and without it no pose or image can be converted: give particles that have it."
        )
    if len(optics) > MOST_OPTICS_GROUPS:
        raise InputError(f"The particles have {len(optics)} different optics, more than {MOST_OPTICS_GROUPS} groups.")
    widths = np.max([survey["bytes"] for survey in surveys], axis=0)
    ctf, left_out, halves = any_of("ctf"), any_of("left_out"), [survey["halves"] for survey in surveys]
    return ExportPlan(
        optics=optics,
        path_bytes=int(widths[0]),
        micrograph_bytes=int(widths[1]),
        has_ctf=bool(ctf[0]),
        has_phase_shift=bool(ctf[3]),
        has_b_factor=bool(ctf[4]),
        has_scale=bool(ctf[5]),
        has_coordinates=bool(any_of("coordinates")[0]),
        has_halves=bool(any_of("halves")[:2].all() and all(half[2] for half in halves)),
        has_poses=bool(any_of("poses")[0]),
        n_axes=int(np.max([survey["axes"] for survey in surveys])),
        left_out=tuple(name for name, found in zip(LEFT_OUT, left_out, strict=True) if found),
    )


def image_boxes(optics: np.ndarray, extent_angstrom: float | None) -> np.ndarray:
    """Box of the images of each optics group, f64[m]; where it is not known, as many pixels as the maps are wide."""
    box, pixel = optics[:, OPTICS.index("box")], optics[:, OPTICS.index("pixel_angstrom")]
    if extent_angstrom is None:
        return box
    return np.where(np.isfinite(box) & (box > 0), box, np.round(extent_angstrom / pixel))


def _comparable(optics: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.where(np.isnan(optics), UNKNOWN, optics) + 0.0)


def _longest(texts: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.max(pc.binary_length(texts)).as_py() or 0)
