"""model.star of the superclasses: their maps, and how the particles are distributed over them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from regroup_dask.formats.regroup_plan import SuperclassMaps

COMMENT = """\
# Superclass maps of a regrouping, as a RELION model.
# RELION looks for rlnReferenceImage from the folder it runs in.{place}
"""


def write_model(folder: Path, maps: SuperclassMaps, n_particles: np.ndarray, *, n_dimensions: int) -> Path:
    """Write model.star.

    Parameters
    ----------
    folder : path
        Where it goes.
    maps : SuperclassMaps
        `paths_for_relion` are written as they are; without them, paths relative to ``folder``.
    n_particles : i64[K]
        Particles of each superclass; rlnClassDistribution is their share.
    n_dimensions : int
        2 for images, 3 for subtomograms.

    Returns
    -------
    path
        The file written.
    """
    import pandas as pd
    import starfile

    relative = tuple(os.path.relpath(path, folder) for path in maps.paths)
    images = maps.paths_for_relion or relative
    place = "" if maps.paths_for_relion else " These paths are relative to this file."
    share = np.asarray(n_particles, dtype=np.float64) / max(int(np.sum(n_particles)), 1)
    general: dict[str, int | float] = {
        "rlnReferenceDimensionality": 3,
        "rlnDataDimensionality": n_dimensions,
        "rlnOriginalImageSize": maps.box,
        "rlnPixelSize": maps.voxel_size_angstrom,
        "rlnNrClasses": len(images),
        "rlnNrBodies": 1,
    }
    classes = pd.DataFrame({"rlnReferenceImage": list(images), "rlnClassDistribution": share})
    if maps.resolution_angstrom is not None:
        resolution = np.asarray(maps.resolution_angstrom, dtype=np.float64)
        if np.isfinite(resolution).any():
            general["rlnCurrentResolution"] = float(
                np.nanmin(np.where(np.isfinite(resolution), resolution, np.nan))
            )
        classes["rlnEstimatedResolution"] = np.where(np.isfinite(resolution), resolution, np.inf)
    text = starfile.to_string({"model_general": general, "model_classes": classes})
    # starfile's first line has the time of day in it; the same run shall give the same bytes.
    body = text[text.index("data_model_general") :]
    path = folder / "model.star"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(COMMENT.format(place=place) + "\n" + body)
    os.replace(unfinished, path)
    return path
