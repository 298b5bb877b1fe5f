"""How the pose of a particle follows when its class map moves.

A particle's rotation P takes vectors of the particle's frame (x, y in the image plane, z along the view) to
the volume's: CryoSPARC's rotation vector is log P, RELION's ``Euler_angles2matrix`` gives A = P^T, and
P = ZYZ(rot, tilt, psi) in scipy's intrinsic convention. The image moves by +shift to centre the particle, so
that a point x of the volume appears at (P^T x)_xy - shift.

When the class map moves by y = R x + t, the point seen at (P^T x)_xy - shift is y, hence

    P' = R P        shift' = shift + (P'^T t)_xy

A map of the other hand is first replaced by V(-x). Reversing the view axis does not change a projection, so
with J = diag(1, 1, -1) the proper rotation -P J has the same images of the inverted map as P has of the map
itself; it takes the place of P above.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike


class ParticlePoses(NamedTuple):
    """Poses of n particles."""

    rotation: np.ndarray
    """f64[n, 3, 3], particle frame to volume"""
    shift_angstrom: np.ndarray
    """f64[n, 2] or f64[n, 3] in the particle's frame; the image moves by +shift to centre it"""


def move_poses(
    rotation: ArrayLike,
    shift_angstrom: ArrayLike,
    class_rotation: ArrayLike,
    class_shift_angstrom: ArrayLike,
    mirrored: ArrayLike = False,
) -> ParticlePoses:
    """Move particle poses along with their class map.

    Parameters
    ----------
    rotation : f64[n, 3, 3]
        P of each particle, particle frame to volume.
    shift_angstrom : f64[n, 2] or f64[n, 3]
        Shift of each particle in its own frame; three components for subtomograms.
    class_rotation : f64[n, 3, 3] or f64[3, 3]
        R of the class of each particle, or of all.
    class_shift_angstrom : f64[n, 3] or f64[3]
        t of the class, (x, y, z).
    mirrored : bool[n] or bool
        The class map is inverted through the origin before R and t. For subtomograms, whose z is seen, the
        new pose holds for the subtomogram with its z axis reversed: z of the shift changes sign, x and y
        stay.

    Returns
    -------
    ParticlePoses
        In the frame of the moved map.
    """
    particle = np.asarray(rotation, dtype=np.float64)
    shift = np.asarray(shift_angstrom, dtype=np.float64)
    if particle.ndim != 3 or particle.shape[1:] != (3, 3):
        raise ValueError(f"rotation must be [n, 3, 3], not {particle.shape}")
    if shift.shape not in ((len(particle), 2), (len(particle), 3)):
        raise ValueError(
            f"shift_angstrom must be [{len(particle)}, 2] or [{len(particle)}, 3], not {shift.shape}"
        )
    n = len(particle)
    moved, moved_shift = np.empty((n, 3, 3)), np.empty(shift.shape)
    _move(
        particle,
        shift,
        np.broadcast_to(np.asarray(class_rotation, dtype=np.float64), (n, 3, 3)),
        np.broadcast_to(np.asarray(class_shift_angstrom, dtype=np.float64), (n, 3)),
        np.broadcast_to(np.asarray(mirrored, dtype=bool), (n,)),
        moved,
        moved_shift,
    )
    return ParticlePoses(moved, moved_shift)


@njit(cache=True, nogil=True)
def _move(particle, shift, class_rotation, class_shift, mirrored, moved, moved_shift):  # type: ignore[no-untyped-def]
    for row in range(len(particle)):
        sign = -1.0 if mirrored[row] else 1.0
        for i in range(3):
            for j in range(3):
                total = 0.0
                for k in range(3):
                    total += class_rotation[row, i, k] * particle[row, k, j]
                # A mirrored class: the columns of P times the diagonal of -J.
                moved[row, i, j] = total * (sign if j < 2 else 1.0)
        for j in range(shift.shape[1]):
            seen = 0.0
            for i in range(3):
                seen += moved[row, i, j] * class_shift[row, i]
            moved_shift[row, j] = shift[row, j] * (sign if j == 2 else 1.0) + seen
