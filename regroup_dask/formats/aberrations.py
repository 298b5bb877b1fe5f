"""Beam tilt and anisotropic magnification between CryoSPARC and RELION, and what cannot be taken across.

``ctf/tilt_A`` is the spherical aberration times the sine of the beam tilt, so that RELION's tilt in mrad is
``1000 arcsin(tilt_A / (1e7 cs_mm))``, as pyem publishes it.

``ctf/anisomag`` is a 2 x 2 matrix in C order with the identity subtracted, and the sum takes the coordinates of the
image to those of the reference in Fourier space (its authors, in CryoSPARC's forum). So does RELION's ``rlnMagMat``,
which projects the reference along ``inv(M) A`` and evaluates aberrations at ``M k`` (its observation model).

Trefoil and tetrafoil (``ctf/trefoil_A``, ``ctf/tetra_A``; ``rlnOddZernike``, ``rlnEvenZernike``) have no published
correspondence: pyem leaves them out, and public attempts disagree on signs and order. They are left out here too, and
the person is told when they are not zero: both programs refine them from the data in minutes.
"""

from __future__ import annotations

import numpy as np

ANGSTROM_PER_MM = 1e7

LEFT_OUT = ("ctf/trefoil_A", "ctf/tetra_A", "rlnOddZernike", "rlnEvenZernike")
"""Columns that are not converted."""


def tilt_mrad_of_angstrom(tilt_angstrom: np.ndarray, cs_mm: np.ndarray) -> np.ndarray:
    """Beam tilt in mrad, f64[n, 2], of CryoSPARC's ctf/tilt_A [n, 2]; 0 where the spherical aberration is 0."""
    ratio = _ratio(tilt_angstrom, cs_mm[:, None] * ANGSTROM_PER_MM)
    return 1e3 * np.arcsin(np.clip(ratio, -1, 1))


def tilt_angstrom_of_mrad(tilt_mrad: np.ndarray, cs_mm: np.ndarray) -> np.ndarray:
    """CryoSPARC's ctf/tilt_A, f64[n, 2], of a beam tilt in mrad [n, 2]."""
    return np.sin(1e-3 * tilt_mrad) * cs_mm[:, None] * ANGSTROM_PER_MM


def magnification_of_anisomag(anisomag: np.ndarray) -> np.ndarray:
    """RELION's magnification matrix (00, 01, 10, 11), f64[n, 4], of CryoSPARC's ctf/anisomag [n, 4]."""
    return anisomag + np.eye(2).ravel()


def anisomag_of_magnification(magnification: np.ndarray) -> np.ndarray:
    """CryoSPARC's ctf/anisomag, f64[n, 4], of RELION's magnification matrix (00, 01, 10, 11) [n, 4]."""
    return magnification - np.eye(2).ravel()


def zernike_is_zero(text: str | None) -> bool:
    """Whether a list of Zernike coefficients of RELION, ``[0.1,0,...]``, says nothing."""
    if text is None:
        return True
    try:
        return not any(float(part) for part in text.strip("[]() ").split(",") if part.strip())
    except ValueError:
        return False


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    broadcast = np.broadcast_to(denominator, numerator.shape)
    result = np.zeros(numerator.shape)
    np.divide(numerator, broadcast, out=result, where=broadcast != 0)
    return np.where(np.isnan(numerator) | np.isnan(broadcast), np.nan, result)
