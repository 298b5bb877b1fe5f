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
from numpy.typing import ArrayLike

REVERSED_VIEW = np.array([-1.0, -1.0, 1.0])
"""diagonal of -J: multiplies the columns of P"""


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
    components = shift.shape[1]
    turned = np.asarray(mirrored, dtype=bool)[..., None]
    particle = np.where(turned[..., None], particle * REVERSED_VIEW, particle)
    shift = np.where(turned, shift * np.array([1.0, 1.0, -1.0])[:components], shift)
    moved = np.asarray(class_rotation, dtype=np.float64) @ particle
    translation = np.broadcast_to(np.asarray(class_shift_angstrom, dtype=np.float64), (len(particle), 3))
    seen = np.einsum("nji,nj->ni", moved, translation)
    return ParticlePoses(moved, shift + seen[:, :components])
