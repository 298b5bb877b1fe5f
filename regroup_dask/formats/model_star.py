"""RELION's model.star: the classes of a 3D classification and what is known of each.

A value that is not a number in the file (`inf`, `-nan`, which the starfile package hands over as text) stays
what it is as a float; a class of no particles is a class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regroup_dask.errors import InputError, StoreError
from regroup_dask.formats import storage

LARGEST_BOX = 100_000


class ModelClasses(NamedTuple):
    """The table of classes of a model.star, row k of class id k.

    Attributes
    ----------
    reference_images : tuple of str
        As written: relative to the project's folder.
    distribution : float64[n_classes]
        Share of the particles; NaN where not written.
    resolution_angstrom : float64[n_classes]
        inf where RELION has none, NaN where not written.
    voxel_size_angstrom : float or None
    box : int or None
    """

    reference_images: tuple[str, ...]
    distribution: np.ndarray
    resolution_angstrom: np.ndarray
    voxel_size_angstrom: float | None
    box: int | None


def read_model_classes(path: str | Path) -> ModelClasses:
    """Read the table of classes.

    Raises
    ------
    InputError
        No model.star of a 3D classification.
    """
    blocks = _read(path)
    table = blocks.get("model_classes")
    general = blocks.get("model_general", {})
    if table is None or "rlnReferenceImage" not in table:
        raise InputError(
            f"{path} has no table model_classes with rlnReferenceImage; it is no model.star of a "
            "classification."
        )
    columns = {name: np.atleast_1d(np.asarray(table[name])) for name in table}
    images = tuple(str(one) for one in columns["rlnReferenceImage"])
    missing = np.full(len(images), np.nan)
    voxel_size = _number(general, "rlnPixelSize", path, default=0.0)
    box = _number(general, "rlnOriginalImageSize", path, default=0)
    return ModelClasses(
        reference_images=images,
        distribution=_numbers(columns.get("rlnClassDistribution", missing), path),
        resolution_angstrom=_numbers(columns.get("rlnEstimatedResolution", missing), path),
        voxel_size_angstrom=voxel_size if 0 < voxel_size < np.inf else None,
        box=int(box) if 0 < box < LARGEST_BOX else None,
    )


def read_model_ssnr(path: str | Path) -> dict[int, np.ndarray]:
    """Read the spectral signal-to-noise ratio of each class.

    Returns
    -------
    dict of int to float64[n_shells]
        Zero-based class id to rlnSsnrMap, freed of the factor rlnTau2FudgeFactor, by rlnSpectralIndex; only
        classes whose table has it. Values that are negative, infinite or not a number are 0: nothing is known
        of such a shell.
    """
    ssnr: dict[int, np.ndarray] = {}
    blocks = _read(path)
    fudge = _number(blocks.get("model_general", {}), "rlnTau2FudgeFactor", path, default=1.0)
    for name, table in blocks.items():
        number = re.fullmatch(r"model_class_(\d+)", name)
        if number is None or "rlnSsnrMap" not in table:
            continue
        values = _numbers(np.atleast_1d(np.asarray(table["rlnSsnrMap"])), path)
        if "rlnSpectralIndex" in table:
            index = _numbers(np.atleast_1d(np.asarray(table["rlnSpectralIndex"])), path)
            if not len(index) or not ((index >= 0) & (index < LARGEST_BOX)).all():
                raise InputError(f"{path}: the table {name} has a rlnSpectralIndex that is no shell.")
            shells = index.astype(int)
            by_shell = np.zeros(shells.max() + 1)
            by_shell[shells] = values
            values = by_shell
        if np.isfinite(fudge) and fudge > 0:
            values = values / fudge
        ssnr[int(number[1]) - 1] = np.where(np.isfinite(values) & (values > 0), values, 0.0)
    return dict(sorted(ssnr.items()))


def _read(path: str | Path) -> dict[str, Any]:
    import starfile

    try:
        with storage.on_this_machine(path) as local:
            return starfile.read(local, always_dict=True)
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except Exception as error:
        raise InputError(f"{path} cannot be read as a STAR file: {error}.") from error


def _number(block: Any, name: str, path: str | Path, *, default: float) -> float:
    if name not in block:
        return default
    return float(_numbers(np.atleast_1d(np.asarray(block[name]))[:1], path)[0])


def _numbers(values: np.ndarray, path: str | Path) -> np.ndarray:
    # float() understands inf and -nan, which pandas leaves as text
    try:
        return np.array([float(value) for value in values], dtype=np.float64)
    except (ValueError, TypeError):
        raise InputError(f"{path} has text where numbers are expected, among {', '.join(map(str, values[:5]))}.") from None
