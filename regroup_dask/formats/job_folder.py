"""Recognise a job folder: its newest iteration's particles and class maps, matched to class ids."""

from __future__ import annotations

from pathlib import Path

from regroup_dask.errors import InputError
from regroup_dask.formats import storage
from regroup_dask.formats.cryodrgn import recognise_cryodrgn_job
from regroup_dask.formats.cryosparc_job import recognise_cryosparc_job
from regroup_dask.formats.job import Job
from regroup_dask.formats.model_star import read_model_ssnr
from regroup_dask.formats.relion_job import recognise_relion_job

__all__ = ["Job", "read_model_ssnr", "recognise_job"]


def recognise_job(folder: str | Path) -> Job:
    """Find what a job folder of CryoSPARC or RELION holds.

    Parameters
    ----------
    folder : str or Path
        A 3D Classification, Heterogeneous Refinement or Ab-Initio job of CryoSPARC, or a Class3D or
        InitialModel job of RELION, or a k-means folder of cryoDRGN's analysis; wherever it lies now.

    Returns
    -------
    Job

    Raises
    ------
    InputError
        No such folder, no job of this kind in it, or a class without a map.
    """
    folder = storage.given(folder).rstrip("/") or "/"
    if not storage.is_folder(folder):
        reason = "is a file, not a job folder" if storage.exists(folder) else "does not exist"
        raise InputError(f"{folder} {reason}; give the folder of a 3D classification job.")
    file_names = storage.file_names(folder)
    job = (
        recognise_relion_job(folder, file_names)
        or recognise_cryosparc_job(folder, file_names)
        or recognise_cryodrgn_job(folder, file_names)
    )
    if job is None:
        raise InputError(
            f"{folder} is not recognised as a job: it has neither run_itNNN_data.star with class maps "
            "(RELION Class3D) "
            "nor *_particles.cs with *_class_NN_*_volume.mrc (CryoSPARC) nor labels.pkl with vol_NNN.mrc "
            "(cryoDRGN); give --particles and --volumes instead."
        )
    return job
