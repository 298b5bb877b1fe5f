"""Regroups a source in this process, and makes star files; shared by the tests of star and parquet output."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from regroup_dask.formats.particles import Assignment, ClassPose, RegroupPlan, SuperclassMaps

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
           1 opticsGroup1     1.250000

"""

LABELS = (
    "rlnCoordinateX",
    "rlnImageName",
    "rlnClassNumber",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnOpticsGroup",
)


def table_text(labels, rows, *, block="particles", separator=" "):
    """A loop as RELION lays it out; rows are lists of text or numbers."""
    head = f"# version 30001\n\ndata_{block}\n\nloop_ \n"
    head += "".join(f"_{label} #{index}\n" for index, label in enumerate(labels, 1))
    return head + "".join(
        separator.join(f"{item:12.6f}" if isinstance(item, float) else str(item) for item in row) + "\n"
        for row in rows
    )


def random_rows(n, n_classes, *, seed=0):
    """Rows of `LABELS`, with every class and random poses."""
    random = np.random.default_rng(seed)
    return [
        [
            float(random.uniform(0, 4000)),
            f"{row + 1:06d}@Extract/job010/stack_{row % 3}.mrcs",
            row % n_classes + 1,
            float(random.uniform(-180, 180)),
            float(np.degrees(np.arccos(random.uniform(-1, 1)))),
            float(random.uniform(-180, 180)),
            float(random.normal(0, 5)),
            float(random.normal(0, 5)),
            1,
        ]
        for row in range(n)
    ]


def write_star(path: Path, *, n=30, n_classes=4, seed=0) -> str:
    """A RELION 3.1 file of random particles."""
    path.write_text(OPTICS + table_text(LABELS, random_rows(n, n_classes, seed=seed)) + " \n")
    return str(path)


def law(rotation, shift_angstrom, class_rotation, class_shift_angstrom, mirrored):
    """The update of FORMATS, written for the RELION matrix A with scipy, row by row."""
    new_rotation, new_shift = np.empty_like(rotation), np.empty_like(shift_angstrom)
    for row in range(len(rotation)):
        a = rotation[row].T
        if mirrored[row]:
            a = -np.diag([1.0, 1.0, -1.0]) @ a
        a = a @ class_rotation[row].T
        new_rotation[row] = a.T
        n_axes = shift_angstrom.shape[1]
        new_shift[row] = shift_angstrom[row] + (a @ class_shift_angstrom[row])[:n_axes]
    return new_rotation, new_shift


def random_pose(seed, *, mirrored=False):
    rotation = Rotation.random(random_state=seed).as_matrix()
    return ClassPose(rotation, np.random.default_rng(seed).normal(0, 8, 3), mirrored)


def plan_for(source, superclasses, poses=None):
    """``superclasses``: one for each class of the source, -1 for classes left out."""
    return RegroupPlan(
        n_superclasses=max(superclasses) + 1,
        class_ids=source.class_ids,
        superclass_of_class=dict(zip(source.class_ids, superclasses, strict=True)),
        pose_of_class=poses or {},
        update_poses=poses is not None,
        move_poses=law if poses is not None else None,
    )


def assign(source, table, plan) -> Assignment:
    """Best class by argmax, as the original job does; rows that say nothing remain."""
    posterior = source.class_posteriors(table)
    superclass_of = np.array([plan.superclass_of_class[class_id] for class_id in source.class_ids])
    best = posterior.argmax(axis=1)
    known = np.nan_to_num(posterior).max(axis=1) > 0
    k = plan.n_superclasses
    within = np.full((len(posterior), k), -1, np.int32)
    soft = np.zeros((len(posterior), k), np.float32)
    for group in range(k):
        members = np.flatnonzero(superclass_of == group)
        soft[:, group] = posterior[:, members].sum(axis=1)
        if len(members):
            within[:, group] = members[posterior[:, members].argmax(axis=1)]
    class_id = np.where(known, np.asarray(source.class_ids)[best], -1).astype(np.int32)
    return Assignment(class_id, np.where(known, superclass_of[best], -1).astype(np.int32), soft, within)


def regroup(source, plan, folder, side):
    """Run the three functions of a side, the fragments in reverse and the first of them twice."""
    assignments = [assign(source, fragment.read(), plan) for fragment in source.fragments]
    counts = np.array(
        [
            np.bincount(
                np.where(a.superclass < 0, plan.n_superclasses, a.superclass),
                minlength=plan.n_superclasses + 1,
            )
            for a in assignments
        ]
    )
    outputs = side.create_outputs(source, plan, counts, folder)
    for fragment in [*reversed(source.fragments), source.fragments[0]]:
        before = counts[: fragment.index].sum(axis=0)
        assignment = assignments[fragment.index]
        side.write_fragment(source, fragment, fragment.read(), assignment, plan, outputs, before)
    volumes = Path(folder) / "volumes"
    volumes.mkdir(exist_ok=True, parents=True)
    maps = SuperclassMaps(
        tuple(str(volumes / f"superclass_{k:03d}.mrc") for k in range(plan.n_superclasses)),
        96,
        1.25,
        ssnr=tuple(np.linspace(100 + k, 0, 49) if k != 1 else np.empty(0) for k in range(plan.n_superclasses)),
    )
    for path in maps.paths:
        Path(path).write_text(Path(path).name)
    paths = side.finish_outputs(source, plan, outputs, counts, maps)
    assert side.finish_outputs(source, plan, outputs, counts, maps) == paths
    paths = tuple(path for path in paths if not path.endswith(".mrc"))
    return paths, np.concatenate([a.superclass for a in assignments])
