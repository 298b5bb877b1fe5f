"""model.star of the superclasses: their maps, and how the particles are distributed over them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from regroup_dask.formats import storage, storing
from regroup_dask.formats.links import link_or_copy
from regroup_dask.formats.regroup_plan import SuperclassMaps

COMMENT = """\
# Superclass maps of a regrouping, as a RELION model.
# RELION looks for rlnReferenceImage from the folder it runs in.{place}
"""


PROJECT_FILES = (".gui_projectdir", "default_pipeline.star")


def folder_for_relion(folder: str | os.PathLike[str]) -> str:
    """Name a folder as RELION finds it: relative to the project it lies in, else absolute.

    RELION runs in its project's folder, and names files from there; a file of its own marks that folder. In an object
    store, which RELION does not read, it is the URL.
    """
    if storage.is_remote(folder):
        return str(folder)
    path = Path(os.path.abspath(folder))
    for project in path.parents:
        if any((project / name).exists() for name in PROJECT_FILES):
            return str(path.relative_to(project))
    return str(path)


def class_map_name(superclass: int) -> str:
    """Name of the map of a superclass as RELION would have written it."""
    return f"run_it000_class{superclass + 1:03d}.mrc"


def write_model(folder: Path, maps: SuperclassMaps, n_particles: np.ndarray, *, n_dimensions: int) -> tuple[Path, ...]:
    """Write model.star, and beside it the maps under RELION's names.

    Parameters
    ----------
    folder : path
        Where they go. Maps are hard-linked, and copied where links cannot be made.
    maps : SuperclassMaps
    n_particles : i64[K]
        Particles of each superclass; rlnClassDistribution is their share.
    n_dimensions : int
        2 for images, 3 for subtomograms.

    Returns
    -------
    tuple of path
        The files written, model.star last.
    """
    import pandas as pd
    import starfile

    names = [class_map_name(k) for k in range(len(maps.paths))]
    for source, name in zip(maps.paths, names, strict=True):
        link_or_copy(source, folder / name)
    images = names if maps.folder_for_relion is None else [f"{maps.folder_for_relion}/{name}" for name in names]
    place = "" if maps.folder_for_relion else " These paths are relative to this file."
    share = np.asarray(n_particles, dtype=np.float64) / max(int(np.sum(n_particles)), 1)
    general: dict[str, int | float] = {
        "rlnReferenceDimensionality": 3,
        "rlnDataDimensionality": n_dimensions,
        "rlnOriginalImageSize": maps.box,
        "rlnPixelSize": maps.voxel_size_angstrom,
        "rlnNrClasses": len(images),
        "rlnNrBodies": 1,
        "rlnTau2FudgeFactor": 1.0,
    }
    classes = pd.DataFrame({"rlnReferenceImage": images, "rlnClassDistribution": share})
    if maps.resolution_angstrom is not None:
        resolution = np.asarray(maps.resolution_angstrom, dtype=np.float64)
        if np.isfinite(resolution).any():
            general["rlnCurrentResolution"] = float(
                np.nanmin(np.where(np.isfinite(resolution), resolution, np.nan))
            )
        classes["rlnEstimatedResolution"] = np.where(np.isfinite(resolution), resolution, np.inf)
    blocks: dict[str, object] = {"model_general": general, "model_classes": classes}
    for superclass, ssnr in enumerate(maps.ssnr or ()):
        if len(ssnr):
            blocks[f"model_class_{superclass + 1}"] = pd.DataFrame(_shells(ssnr, maps))
    text = starfile.to_string(blocks)
    # starfile's first line has the time of day in it; the same run shall give the same bytes.
    body = text[text.index("data_model_general") :]
    path = folder / "model.star"
    storing.write_bytes(path, (COMMENT.format(place=place) + "\n" + body).encode())
    return *(folder / name for name in names), path


def _shells(ssnr: np.ndarray, maps: SuperclassMaps) -> dict[str, np.ndarray]:
    shell = np.arange(len(ssnr))
    frequency = shell / (maps.box * maps.voxel_size_angstrom)
    # At the origin RELION writes 999 A for infinity.
    angstrom = np.divide(1, frequency, out=np.full(len(ssnr), 999.0), where=shell > 0)
    return {
        "rlnSpectralIndex": shell,
        "rlnResolution": frequency,
        "rlnAngstromResolution": angstrom,
        "rlnSsnrMap": np.asarray(ssnr, np.float64),
    }
