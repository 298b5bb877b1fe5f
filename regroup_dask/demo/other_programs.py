"""The demo's classes as another program would have left them: a RELION Class3D job, an analysis by cryoDRGN."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from regroup_dask.demo.simulate import JOB_NAME
from regroup_dask.demo.truth import DemoTruth
from regroup_dask.formats.mrc import write_mrc
from regroup_dask.formats.pickled_arrays import write_array
from regroup_dask.formats.rotations import angles_of_matrices
from regroup_dask.formats.volumes import find_volumes, read_map
from regroup_dask.science.average import move_map

ITERATION = 25
SLOT = "alignments3D_multi"


def write_relion_job(truth: DemoTruth) -> Path:
    """Write the simulated job as RELION's Class3D would; returns ``Class3D/job016`` beside the CryoSPARC job.

    Every particle has the class of its largest posterior, and its pose and shift against that class.

    Parameters
    ----------
    truth
        From `simulate_job`.
    """
    import pandas as pd
    import starfile

    folder = Path(truth.folder) / "Class3D" / "job016"
    folder.mkdir(parents=True, exist_ok=True)
    for class_id, path in enumerate(_maps(truth)):
        shutil.copyfile(path, folder / f"run_it{ITERATION:03d}_class{class_id + 1:03d}.mrc")
    table = _particles(truth)
    best = table[f"{SLOT}/class_posterior"].argmax(axis=1)
    rows = np.arange(len(best))
    rotation = Rotation.from_rotvec(table[f"{SLOT}/pose"][rows, best].astype(float)).as_matrix()
    rot, tilt, psi = angles_of_matrices(rotation).T
    origin = table[f"{SLOT}/shift"][rows, best] * truth.voxel_size_angstrom
    stacks = [str(path).replace(".mrc", ".mrcs") for path in table["blob/path"].tolist()]
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{index + 1:06d}@{path}" for index, path in zip(table["blob/idx"].tolist(), stacks, strict=True)],
            "rlnOpticsGroup": 1,
            "rlnClassNumber": best + 1,
            **{"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi},
            **{"rlnOriginXAngst": origin[:, 0], "rlnOriginYAngst": origin[:, 1]},
            **{"rlnDefocusU": table["ctf/df1_A"], "rlnDefocusV": table["ctf/df2_A"]},
            "rlnDefocusAngle": np.degrees(table["ctf/df_angle_rad"]),
        }
    )
    # RELION's maps have the pixel of its images: these were extracted as small as the maps.
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnImagePixelSize": [truth.voxel_size_angstrom],
            "rlnImageSize": [truth.box],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
        }
    )
    stem = folder / f"run_it{ITERATION:03d}"
    starfile.write({"optics": optics, "particles": particles}, f"{stem}_data.star", overwrite=True, float_format="%.6f")
    classes = pd.DataFrame(
        {
            "rlnReferenceImage": [
                f"Class3D/job016/run_it{ITERATION:03d}_class{one.class_id + 1:03d}.mrc" for one in truth.classes
            ],
            "rlnClassDistribution": np.bincount(best, minlength=len(truth.classes)) / len(best),
            "rlnEstimatedResolution": [one.resolution_angstrom for one in truth.classes],
        }
    )
    general = {"rlnReferenceDimensionality": 3, "rlnPixelSize": truth.voxel_size_angstrom, "rlnNrClasses": len(classes)}
    starfile.write({"model_general": general, "model_classes": classes}, f"{stem}_model.star", overwrite=True)
    return folder


def write_cryodrgn_analysis(truth: DemoTruth) -> Path:
    """Write the classes as k-means clusters of cryoDRGN's latent space; returns ``analyze.49/kmeansN``.

    cryoDRGN draws all its maps in one frame, so each class map is moved back into the frame of the truth.

    Parameters
    ----------
    truth
        From `simulate_job`.
    """
    folder = Path(truth.folder) / "analyze.49" / f"kmeans{len(truth.classes)}"
    folder.mkdir(parents=True, exist_ok=True)
    for one, path in zip(truth.classes, _maps(truth), strict=True):
        back = np.array(one.rotation).T
        shift = -back @ np.array(one.shift_angstrom) / truth.voxel_size_angstrom
        (reference,) = find_volumes([path]).references
        volume = move_map(read_map(reference), rotation=np.ascontiguousarray(back), shift_voxel=shift)
        write_mrc(folder / f"vol_{one.class_id:03d}.mrc", volume, voxel_size_angstrom=truth.voxel_size_angstrom)
    labels = _particles(truth)[f"{SLOT}/class_posterior"].argmax(axis=1)
    write_array(folder / "labels.pkl", labels.astype(np.int64))
    return folder


def _maps(truth: DemoTruth) -> list[Path]:
    return sorted((Path(truth.folder) / JOB_NAME).glob("*_volume.mrc"))


def _particles(truth: DemoTruth) -> Any:
    from cryosparc.dataset import Dataset

    (path,) = (Path(truth.folder) / JOB_NAME).glob(f"cryosparc_P1_{JOB_NAME}_*_particles.cs")
    return Dataset.load(str(path))
