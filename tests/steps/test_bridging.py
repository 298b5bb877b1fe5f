"""Every class of a superclass gets its exact pose, although the pairs that were compared leave its graph in parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr
import zarr
from scipy.spatial.transform import Rotation

from regroup_dask import superclass_frames
from regroup_dask.progress import StageClock, silent
from regroup_dask.science.rotations import Pose, apply_pose, compose_pose, invert_pose
from regroup_dask.settings import Settings
from regroup_dask.steps import bridging
from regroup_dask.steps.run_context import RunContext
from tests import small_job

LABELS = np.repeat([0, 1], [12, 4])
N_MAPS = len(LABELS)
SETTINGS = Settings(n_superclasses=2, align=True)


def true_poses(seed):
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(N_MAPS, random_state=seed).as_matrix()
    return [Pose(rotation, rng.normal(size=3) * 9, bool(rng.random() < 0.3)) for rotation in rotations]


def known_pairs(poses, pairs, wrong=()):
    """Poses of some pairs, exact but for the wrong ones, as a dataset; the rest was not compared."""
    table = {
        "correlation": np.full((N_MAPS, N_MAPS), np.nan),
        "rotation_quaternion": np.tile([0.0, 0.0, 0.0, 1.0], (N_MAPS, N_MAPS, 1)),
        "shift_angstrom": np.zeros((N_MAPS, N_MAPS, 3)),
        "mirrored": np.zeros((N_MAPS, N_MAPS), bool),
    }
    np.fill_diagonal(table["correlation"], 1.0)
    for number, (i, j) in enumerate(pairs):
        pose = compose_pose(invert_pose(poses[i]), poses[j])
        if (i, j) in wrong:
            pose = Pose(Rotation.random(random_state=number).as_matrix(), pose.shift_angstrom + 7, pose.mirrored)
        for one, other, placed in ((i, j, pose), (j, i, invert_pose(pose))):
            table["correlation"][one, other] = 0.9
            table["rotation_quaternion"][one, other] = Rotation.from_matrix(placed.rotation).as_quat()
            table["shift_angstrom"][one, other] = placed.shift_angstrom
            table["mirrored"][one, other] = placed.mirrored
    dims = ("class_i", "class_j")
    more = {"rotation_quaternion": ("quaternion",), "shift_angstrom": ("axis",)}
    data = {name: ((*dims, *more.get(name, ())), values) for name, values in table.items()}
    return xr.Dataset(data, coords={name: np.arange(N_MAPS) for name in dims}, attrs={"align": 1})


class Cluster:
    """Stands for the cluster: aligns each pair that is asked for to the truth, or, of some, to something else."""

    def __init__(self, poses, wrong=()):
        self.poses, self.wrong, self.asked = poses, wrong, []

    def run(self, stage, label, function, units):
        results = []
        for unit in units:
            self.asked.append((unit.fixed, unit.moving))
            pose = compose_pose(invert_pose(self.poses[unit.fixed]), self.poses[unit.moving])
            if len(self.asked) - 1 in self.wrong:
                pose = Pose(Rotation.random(random_state=5).as_matrix(), pose.shift_angstrom, pose.mirrored)
            results.append(pose._asdict() | {"correlation": np.array(0.9), "confidence": np.array(5.0)})
        return results


def joined(poses, pairs, cluster, frame="superclass"):
    sizes = np.arange(N_MAPS, 0, -1)
    coords = {"class_id": np.arange(N_MAPS), "n_particles": ("class_id", sizes)}
    groups = xr.Dataset(
        {
            "superclass": ("class_id", LABELS),
            "reference_class": ("superclass_id", [0, 12]),
            "rotation_quaternion": (("class_id", "quaternion"), np.zeros((N_MAPS, 4))),
            "shift_angstrom": (("class_id", "axis"), np.zeros((N_MAPS, 3))),
        },
        coords=coords,
    )
    names = ("extent_angstrom", "resolution_angstrom")
    classes = xr.Dataset(
        {"density": (("class_id", "z", "y", "x"), np.zeros((N_MAPS, 24, 24, 24), np.float32))}
        | {name: ("class_id", np.full(N_MAPS, 30.0)) for name in names},
        coords={"class_id": np.arange(N_MAPS)},
        attrs={"voxel_size_angstrom": 4.0},
    )
    settings = dataclasses.replace(SETTINGS, frame=frame)
    return bridging.join_superclasses(pairs, groups, classes, None, settings, cluster)


def check(poses, groups, frame="superclass"):
    for k in range(N_MAPS):
        reference = 0 if frame == "common" or LABELS[k] == 0 else 12
        # The frame is that of the reference, inverted where it is of the other hand than most.
        frame_of = Pose(np.eye(3), np.zeros(3), bool(groups["mirrored"].values[reference]))
        exact = compose_pose(frame_of, compose_pose(invert_pose(poses[reference]), poses[k]))
        found = Rotation.from_quat(groups["rotation_quaternion"].values[k])
        away = np.degrees((found * Rotation.from_matrix(exact.rotation).inv()).magnitude())
        assert bool(groups["mirrored"].values[k]) == exact.mirrored, k
        assert away < 0.5, k
        np.testing.assert_allclose(groups["shift_angstrom"].values[k], exact.shift_angstrom, atol=0.5)


# Twelve classes in four parts: two of three and of four that hold together, a pair, and single ones; then four, all compared.
PARTS = [(0, 5, 9), (1, 2, 3, 10), (4, 6), (7,), (8,), (11,), (12, 13, 14, 15)]
WITHIN = [(i, j) for part in PARTS for i in part for j in part if i < j]
# Pairs between superclasses, which say nothing of the frame within one.
ACROSS = [(0, 12), (1, 13), (4, 14)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wrong_of_new", [(), (1,), (3, 7)])
def test_parts_that_no_pair_joins(seed, wrong_of_new):
    poses = true_poses(seed)
    cluster = Cluster(poses, wrong_of_new)
    pairs = known_pairs(poses, WITHIN + ACROSS)
    after, groups = joined(poses, pairs, cluster)
    check(poses, groups)
    assert len(cluster.asked) <= 6 * bridging.WITNESSES
    assert all(LABELS[i] == LABELS[j] and not np.isfinite(pairs["correlation"].values[i, j]) for i, j in cluster.asked)
    assert np.isfinite([after["correlation"].values[i, j] for i, j in cluster.asked]).all()


def test_a_part_that_hangs_on_one_wrong_pair():
    poses = true_poses(4)
    hanging = [(5, 10), (2, 4)]
    cluster = Cluster(poses)
    _, groups = joined(poses, known_pairs(poses, [*WITHIN, *hanging], wrong=hanging), cluster)
    check(poses, groups)


def test_one_frame_for_all():
    poses = true_poses(5)
    cluster = Cluster(poses)
    _, groups = joined(poses, known_pairs(poses, WITHIN), cluster, frame="common")
    check(poses, groups, frame="common")


def test_nothing_is_aligned_where_all_pairs_of_each_superclass_are_known():
    poses = true_poses(6)
    every = [(i, j) for i in range(N_MAPS) for j in range(i + 1, N_MAPS) if LABELS[i] == LABELS[j]]
    cluster = Cluster(poses)
    pairs = known_pairs(poses, every)
    after, groups = joined(poses, pairs, cluster)
    assert after is pairs
    assert cluster.asked == []
    rotation, shift, mirrored = superclass_frames.superclass_poses(
        pairs, LABELS, np.arange(N_MAPS, 0, -1), np.array([0, 12]), frame="superclass"
    )
    solved = groups.assign(
        rotation_quaternion=(("class_id", "quaternion"), rotation),
        shift_angstrom=(("class_id", "axis"), shift),
        mirrored=("class_id", mirrored),
    )
    check(poses, solved)


def test_parts_are_joined_by_aligning_their_maps(tmp_path):
    """With the aligner itself: four maps of one structure, one inverted, of which only two pairs were compared."""
    job = small_job.make_job(structures=1, members=4, box=20, voxel_size=6.0, mirrored=(2,), seed=5)
    truth = [invert_pose(Pose(*placed)) for placed in zip(job.rotation, job.shift, job.mirrored.tolist(), strict=True)]
    pairs = known_pairs(truth, [(0, 1), (2, 3)]).isel(class_i=slice(4), class_j=slice(4))
    zarr.create_array(str(tmp_path / "classes.zarr" / "density"), data=job.maps)
    classes = xr.Dataset(
        {name: ("class_id", np.full(4, value)) for name, value in (("extent_angstrom", 40.0), ("resolution_angstrom", 15.0))}
        | {"density": (("class_id", "z", "y", "x"), job.maps)},
        coords={"class_id": np.arange(4)},
        attrs={"voxel_size_angstrom": job.voxel_size},
    )
    groups = xr.Dataset(
        {"superclass": ("class_id", np.zeros(4, int)), "reference_class": ("superclass_id", [0])}
        | {
            "rotation_quaternion": (("class_id", "quaternion"), np.zeros((4, 4))),
            "shift_angstrom": (("class_id", "axis"), np.zeros((4, 3))),
        },
        coords={"class_id": np.arange(4), "n_particles": ("class_id", [40, 30, 20, 10])},
    )
    run = RunContext(tmp_path, None, StageClock(silent))
    after, posed = bridging.join_superclasses(pairs, groups, classes, tmp_path / "classes.zarr", SETTINGS, run)
    assert np.isfinite(after["correlation"].values).sum() > np.isfinite(pairs["correlation"].values).sum()
    for k in range(4):
        rotation = Rotation.from_quat(posed["rotation_quaternion"].values[k]).as_matrix()
        pose = Pose(rotation, posed["shift_angstrom"].values[k], bool(posed["mirrored"].values[k]))
        assert np.abs(apply_pose(pose, job.balls(k)) - job.balls(0)).max() < 1.0, k
