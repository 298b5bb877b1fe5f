"""A training folder of cryoDRGN with its analysis, as its programs lay it out."""

import pickle

import numpy as np
import yaml

from tests import small_job


def poses_of(job):
    """Rotations, volume to image, and translations as fractions of the box, as cryoDRGN keeps them."""
    rows = np.arange(len(job.class_of_particle))
    rotation = job.pose[rows, job.class_of_particle].astype(np.float32)
    translation = (job.pose_shift[rows, job.class_of_particle] / (job.box * job.voxel_size)).astype(np.float32)
    return rotation, translation


def write_training(job, folder, *, base=1, program="analyze", indices=None, refined=False, with_poses=True):
    """Write a training folder; returns its k-means folder.

    ``analyze`` labels from 0, ``landscape`` from ``base`` as its maps are numbered; ``indices`` are the particles that
    were used of all that the poses are of; ``refined`` poses are those of the last epoch.
    """
    n_classes = len(job.maps)
    kmeans = folder / f"{program}.49" / f"kmeans{n_classes}"
    kmeans.mkdir(parents=True)
    rotation, translation = poses_of(job)
    labels = job.class_of_particle.astype(np.int32)
    if indices is not None:
        # Poses of the particles that were not used stand between the others.
        n = int(indices.max()) + 1
        of_all = np.tile(np.eye(3, dtype="f4"), (n, 1, 1)), np.zeros((n, 2), "f4")
        of_all[0][indices], of_all[1][indices] = rotation, translation
        rotation, translation = of_all
        (folder / "ind.pkl").write_bytes(pickle.dumps(indices))
    if with_poses:
        name = "pose.49.pkl" if refined else "poses.pkl"
        (folder / name).write_bytes(pickle.dumps((rotation, translation)))
    arguments = {"particles": str(folder / "particles.mrcs"), "poses": str(folder / "poses.pkl"), "ctf": None}
    arguments["ind"] = None if indices is None else str(folder / "ind.pkl")
    config = {"dataset_args": arguments, "lattice_args": {"D": job.box + 1}, "model_args": {"zdim": 8}, "seed": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    z = np.random.default_rng(0).normal(size=(len(labels), 8)).astype("f4")
    (folder / "z.49.pkl").write_bytes(pickle.dumps(z))
    (kmeans / "labels.pkl").write_bytes(pickle.dumps(labels + (base if program == "landscape" else 0)))
    np.savetxt(kmeans / "centers.txt", z[:n_classes])
    np.savetxt(kmeans / "centers_ind.txt", np.arange(n_classes), fmt="%d")
    for class_id, volume in enumerate(job.maps):
        small_job.write_map(kmeans / f"vol_{class_id + base:03d}.mrc", volume, job.voxel_size)
    (kmeans.parent / "pc1").mkdir()
    small_job.write_map(kmeans.parent / "pc1" / "vol_000.mrc", job.maps[0], job.voxel_size)
    (kmeans.parent / "umap.pkl").write_bytes(pickle.dumps(z[:, :2]))
    return kmeans
