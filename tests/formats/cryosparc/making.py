"""Small CryoSPARC files of every generation, as records; dtypes as in files of CryoSPARC itself."""

import numpy as np

SLOT = [
    ("split", "<u4", ()),
    ("shift", "<f4", (2,)),
    ("pose", "<f4", (3,)),
    *[
        (name, "<f4", ())
        for name in (
            "psize_A",
            "error",
            "error_min",
            "resid_pow",
            "slice_pow",
            "image_pow",
            "cross_cor",
            "alpha",
            "alpha_min",
            "weight",
            "pose_ess",
            "shift_ess",
            "class_posterior",
        )
    ],
    ("class", "<u4", ()),
    ("class_ess", "<f4", ()),
]
BASE = [
    ("uid", "<u8"),
    ("blob/path", "S40"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("ctf/df1_A", "<f4"),
    ("ctf/tetra_A", "<f4", (4,)),
]
LOCATION = [("uid", "<u8"), ("location/micrograph_path", "S30"), ("location/center_x_frac", "<f4")]


def slot_fields(slot, *, n_classes=None, only=None, leave_out=()):
    """Fields of one alignment slot; ``n_classes`` adds the class axis of alignments3D_multi."""
    fields = []
    for name, kind, shape in SLOT:
        if name in leave_out or (only is not None and name not in only):
            continue
        axis = (n_classes,) if n_classes and name not in ("split", "psize_A") else ()
        fields.append((f"{slot}/{name}", kind, axis + shape))
    return fields


def random_records(n, fields, rng):
    """Fill every field with random bits that are sensible numbers."""
    records = np.zeros(n, np.dtype(fields))
    for name in records.dtype.names:
        kind = records.dtype[name].base
        shape = (n, *records.dtype[name].shape)
        if name == "uid":
            records[name] = rng.choice(2**62, n, replace=False).astype(np.uint64) * np.uint64(3)
        elif kind.kind == "S":
            records[name] = [f"J{rng.integers(100)}/é_{i:04d}.mrc".encode()[: kind.itemsize] for i in range(n)]
        elif kind.kind == "u":
            records[name] = rng.integers(0, 2**16, shape)
        elif name.endswith("psize_A"):
            records[name] = 1.5
        else:
            records[name] = rng.normal(size=shape)
    return records


def softmax(values):
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def make_particles(n, n_classes, generation, rng, *, leave_out=(), extra=()):
    """Particles with posteriors of one generation: ``multi``, ``class3D``, ``class`` or ``hard``."""
    fields = list(BASE)
    if generation == "multi":
        fields += slot_fields("alignments3D_multi", n_classes=n_classes, leave_out=leave_out)
    elif generation == "class3D":
        fields += slot_fields("alignments3D", leave_out=leave_out)
        for k in range(n_classes):
            fields += slot_fields(f"alignments_class3D_{k}", only=("class_posterior", "class"))
    elif generation == "class":
        for k in range(n_classes):
            fields += slot_fields(f"alignments_class_{k}", leave_out=leave_out)
    else:
        fields += slot_fields("alignments3D", leave_out=leave_out)
    fields += slot_fields("alignments2D") + list(extra)
    records = random_records(n, fields, rng)
    posteriors = softmax(3 * rng.normal(size=(n, n_classes))).astype(np.float32)
    if generation == "multi":
        records["alignments3D_multi/class_posterior"] = posteriors
        records["alignments3D_multi/class"] = np.arange(n_classes)
    elif generation == "hard":
        records["alignments3D/class"] = rng.integers(0, n_classes, n)
        records["alignments3D/class_posterior"] = 1
    else:
        prefix = {"class3D": "alignments_class3D_", "class": "alignments_class_"}[generation]
        for k in range(n_classes):
            records[f"{prefix}{k}/class_posterior"] = posteriors[:, k]
            records[f"{prefix}{k}/class"] = k
    return records, posteriors


def save(path, records):
    with open(path, "wb") as stream:
        np.save(stream, records, allow_pickle=False)
    return str(path)
