"""A synthetic complex of protein subunits, and its states: what is bound, and where its head stands.

Each subunit is one chain of residues, 3.8 A apart, folded into an ellipsoid of a protein's density. Nothing
here is a real molecule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

RESIDUE_STEP_ANGSTROM = 3.8
RESIDUE_VOLUME_CUBIC_ANGSTROM = 133.0  # 110 Da at 1.21 A^3 per Da
CANDIDATES = 12


class Subunit(NamedTuple):
    """A chain: how many residues, where its middle lies, and how its ellipsoid is stretched along x, y, z."""

    residues: int
    centre_angstrom: tuple[float, float, float]
    stretch: tuple[float, float, float]


class State(NamedTuple):
    """A state of the complex: its subunits, and by how much its head is turned."""

    name: str
    subunits: str
    head_degrees: float


SUBUNITS = {
    "A": Subunit(320, (0.0, 0.0, -34.0), (1.2, 1.0, 0.8)),
    "B": Subunit(280, (36.0, 10.0, -14.0), (1.0, 1.1, 0.9)),
    "C": Subunit(260, (-33.0, 16.0, -10.0), (0.9, 1.2, 1.0)),
    "D": Subunit(240, (6.0, -36.0, -4.0), (1.1, 0.9, 1.0)),
    "E": Subunit(260, (8.0, 14.0, 28.0), (1.3, 0.9, 0.9)),
    "F": Subunit(220, (40.0, -16.0, 36.0), (0.9, 1.0, 1.2)),
    "G": Subunit(220, (-32.0, -10.0, 40.0), (1.0, 0.8, 1.3)),
    "H": Subunit(240, (-12.0, 52.0, 8.0), (1.0, 1.0, 1.0)),
}
STATES = (
    State("complete", "ABCDEFG", 0.0),
    State("without F and G", "ABCDE", 0.0),
    State("head turned by 30 degrees", "ABCDEFG", 30.0),
    State("factor H bound, G lost", "ABCDEFH", 0.0),
)
HEAD = "EFG"
HINGE_ANGSTROM = np.array([4.0, -6.0, 14.0])
HINGE_AXIS = np.array([0.25, 0.10, 0.96])


def fold_subunits(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Fold every subunit; the complete complex has its centre of mass at the origin.

    Returns
    -------
    dict of str to float64[n_residues, 3]
        Angstrom, x, y, z.
    """
    folded = {name: _fold(subunit, rng) for name, subunit in SUBUNITS.items()}
    centre = np.concatenate([folded[name] for name in STATES[0].subunits]).mean(axis=0)
    return {name: residues - centre for name, residues in folded.items()}


def state_residues(folded: Mapping[str, np.ndarray], state: State) -> np.ndarray:
    """Residues of the complex in one state, in the frame that all states share.

    Returns
    -------
    float64[n, 3]
    """
    axis = HINGE_AXIS / np.linalg.norm(HINGE_AXIS)
    turn = Rotation.from_rotvec(np.deg2rad(state.head_degrees) * axis)
    parts = []
    for name in state.subunits:
        residues = folded[name]
        parts.append(turn.apply(residues - HINGE_ANGSTROM) + HINGE_ANGSTROM if name in HEAD else residues)
    return np.concatenate(parts)


def _fold(subunit: Subunit, rng: np.random.Generator) -> np.ndarray:
    """Walk with a memory of direction, inside the ellipsoid, each step to the least crowded place."""
    stretch = np.array(subunit.stretch) / np.cbrt(np.prod(subunit.stretch))
    radius = np.cbrt(subunit.residues * RESIDUE_VOLUME_CUBIC_ANGSTROM * 3 / (4 * np.pi))
    semi_axes = radius * stretch
    residues = np.empty((subunit.residues, 3))
    residues[0] = rng.uniform(-0.3, 0.3, 3) * semi_axes
    direction = _unit(rng.normal(size=(1, 3)))[0]
    for number in range(1, subunit.residues):
        directions = _unit(direction + 0.6 * rng.normal(size=(CANDIDATES, 3)))
        places = residues[number - 1] + RESIDUE_STEP_ANGSTROM * directions
        distances = ((places[:, None] - residues[None, : max(number - 2, 1)]) ** 2).sum(axis=-1)
        crowded = np.exp(-distances / (2 * 4.0**2)).sum(axis=1)
        # nobody crowds from outside the surface, so without a pull inwards a chain would line it and leave a
        # hollow
        from_middle = ((places / semi_axes) ** 2).sum(axis=1)
        best = int(np.argmin(crowded + 4.0 * from_middle + 30.0 * np.maximum(from_middle - 1.0, 0.0)))
        residues[number], direction = places[best], directions[best]
    return residues + np.array(subunit.centre_angstrom)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
