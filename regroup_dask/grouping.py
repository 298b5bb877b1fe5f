"""From pairs to superclasses: labels in their order, the frame of each superclass, and how sure it all is."""

from __future__ import annotations

import numpy as np
import xarray as xr

from regroup_dask.errors import InputError
from regroup_dask.science import grouping, local_search
from regroup_dask.science.local_covariance import LocalCovariance, select_local
from regroup_dask.science.reliability import Reliability
from regroup_dask.science.shell_model import ShellComparison
from regroup_dask.superclass_frames import MOST_DENSE_CLASSES, opposite_hands, superclass_poses

# Above this maps are not compared place by place, and related structures are told apart better by the contrasts of their pairs
# than by the shell model: of 100 maps of ten structures that differ by 2 to 30 percent, index 0.90 instead of 0.60.
MOST_BY_SHELL_MODEL = 60
RELIABILITY_FIELDS = ("signal_fraction", "noise_variance", "scale_error", "decorrelation")


def group_pairs(
    pairs: xr.Dataset,
    n_superclasses: int | str,
    *,
    n_particles: np.ndarray | None = None,
    similarity: str = "structure",
    frame: str = "superclass",
    seed: int = 0,
    n_resamplings: int = 50,
) -> xr.Dataset:
    """Group the classes of a dataset of pairs.

    Parameters
    ----------
    pairs
        As in pairs.zarr.
    n_superclasses
        1 to (classes - 1), or ``"auto"``.
    n_particles
        Particles of each class, int (N,); None takes the dataset's own, else all classes count the same.
    similarity
        ``"structure"`` or ``"correlation"``.
    frame
        ``"superclass"`` or ``"common"``.
    seed
        Seed of the clustering.
    n_resamplings
        How often the grouping is disturbed to see how stable it is; 0 groups the same and says nothing of stability.

    Returns
    -------
    xarray.Dataset
        On ``class_id``: ``superclass`` (0 has the most particles), ``n_particles``, ``rotation_quaternion``,
        ``shift_angstrom``, ``mirrored`` (the pose into the superclass frame), ``similarity_to_superclass``,
        ``stability``; on ``superclass_id``: ``reference_class``.

    Raises
    ------
    InputError
        The number of superclasses is out of range.
    """
    class_ids = pairs["class_i"].values
    n_classes = len(class_ids)
    _check_count(n_superclasses, n_classes)
    if n_particles is None:
        n_particles = pairs["n_particles"].values if "n_particles" in pairs.coords else None
    sizes = np.ones(n_classes, np.int64) if n_particles is None else np.asarray(n_particles, np.int64)
    if len(sizes) != n_classes:
        raise InputError(f"n_particles has {len(sizes)} values for {n_classes} classes: give one per class.")
    measure = pairs["correlation" if similarity == "correlation" else "similarity"].values
    structural = similarity != "correlation" and "distance" in pairs
    found = _group(pairs, measure, n_superclasses, structural=structural, seed=seed, n_resamplings=n_resamplings)
    order = superclass_order(found.labels, sizes)
    labels = order[found.labels]
    references = reference_classes(labels, sizes)
    rotation, shift, mirrored = superclass_poses(pairs, labels, sizes, references, frame=frame)
    data = {
        "superclass": ("class_id", labels.astype(np.int64)),
        "rotation_quaternion": (("class_id", "quaternion"), rotation),
        "shift_angstrom": (("class_id", "axis"), shift, {"units": "angstrom"}),
        "mirrored": ("class_id", mirrored),
        "opposite_hand": ("class_id", opposite_hands(pairs, sizes)),
        "similarity_to_superclass": ("class_id", similarity_to_superclass(measure, labels)),
        "stability": ("class_id", np.asarray(found.class_stability, np.float64)),
        "junk": ("class_id", np.asarray(found.junk, bool)),
        "note": ("class_id", np.asarray(found.reason, dtype=str)),
        "reference_class": ("superclass_id", class_ids[references]),
        "superclass_stability": ("superclass_id", np.asarray(found.superclass_stability)[np.argsort(order)]),
    }
    coords = coordinates_of_groups(pairs, len(references), None if n_particles is None else sizes)
    return xr.Dataset(data, coords=coords, attrs=_curves(found))


def coordinates_of_groups(pairs: xr.Dataset, n_superclasses: int, sizes: np.ndarray | None) -> dict[str, object]:
    """Coordinates of a grouping: its classes, with names and sizes where they are known, and its superclasses.

    Parameters
    ----------
    pairs
        The pairs that were grouped; the class ids are those of ``class_i``.
    n_superclasses
        Number of superclasses.
    sizes
        Particles of each class, or None.
    """
    coords: dict[str, object] = {
        "class_id": ("class_id", pairs["class_i"].values),
        "superclass_id": ("superclass_id", np.arange(n_superclasses)),
        "quaternion": ["x", "y", "z", "w"],
        "axis": ["x", "y", "z"],
    }
    if "name" in pairs.coords:
        coords["name"] = ("class_id", pairs["name"].values)
    if sizes is not None:
        coords["n_particles"] = ("class_id", sizes)
    return coords


def _group(
    pairs: xr.Dataset,
    measure: np.ndarray,
    n_superclasses: int | str,
    *,
    structural: bool,
    seed: int,
    n_resamplings: int,
) -> grouping.Grouping:
    """Group densely when every pair was compared, else on the graph of those that were."""
    n_classes = len(measure)
    compared = np.isfinite(measure)
    contrast = _contrast(pairs) if structural else None
    if not by_list(n_classes, every_pair=bool(compared.all()), contrasts=contrast is not None):
        return grouping.group_classes(
            np.clip(measure, 0, 1),
            n_superclasses,  # type: ignore[arg-type]
            distance=pairs["distance"].values if structural else None,
            distance_sigma=pairs["distance_sigma"].values if structural else None,
            shared_sigma=pairs["shared_sigma"].values if structural and "shared_sigma" in pairs else None,
            information=pairs["information"].values if structural and "information" in pairs else None,
            shells=_shells(pairs) if structural else None,
            local=_local(pairs) if structural else None,
            correlation=pairs["correlation"].values if structural and "correlation" in pairs else None,
            confidence=pairs["confidence"].values if structural and "confidence" in pairs else None,
            n_resamplings=n_resamplings,
            seed=seed,
        )
    # Loaded late: it brings compiled loops and scikit-learn, which few runs need.
    from regroup_dask.science import sparse_grouping

    return sparse_grouping.group_sparse(
        pairs["distance"].values if structural else 1 - measure,
        pairs["distance_sigma"].values if structural else np.where(compared, 0.01, np.nan),
        n_superclasses,
        shared_sigma=pairs["shared_sigma"].values if structural and "shared_sigma" in pairs else None,
        information=pairs["information"].values if structural and "information" in pairs else None,
        confidence=pairs["confidence"].values if structural and "confidence" in pairs else None,
        contrast=contrast,
        structural=structural,
        n_resamplings=n_resamplings,
        seed=seed,
    )


def by_list(n_classes: int, *, every_pair: bool, contrasts: bool) -> bool:
    """Whether classes are grouped from the list of their pairs, and not by models of all of them together.

    Parameters
    ----------
    n_classes
        Classes that are grouped.
    every_pair
        All their pairs were compared.
    contrasts
        The contrasts of the pairs are known, and structures are grouped, not plain correlations.
    """
    return not every_pair or n_classes > (MOST_BY_SHELL_MODEL if contrasts else MOST_DENSE_CLASSES)


def _contrast(pairs: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Contrast of the pairs, its sigma, and what a class brings to all of its own, if they are kept."""
    names = ("contrast", "contrast_sigma", "shared_contrast_sigma")
    return tuple(pairs[name].values for name in names) if all(name in pairs for name in names) else None  # type: ignore[return-value]


def _shells(pairs: xr.Dataset) -> ShellComparison | None:
    """Shell correlations of all pairs, if they are kept and every pair was compared."""
    if "fsc" not in pairs or "signal_fraction" not in pairs:
        return None
    fsc = pairs["fsc"].values.astype(np.float64)
    off_diagonal = ~np.eye(len(fsc), dtype=bool)
    if not np.isfinite(fsc[off_diagonal][:, 1:]).all():
        return None
    fields = {name: pairs[name].values for name in RELIABILITY_FIELDS}
    return ShellComparison(fsc, Reliability(**fields, source=("",) * len(fsc)), pairs["shell_coefficients"].values)


def _local(pairs: xr.Dataset) -> LocalCovariance | None:
    """What is known of the maps place by place, if it was measured."""
    if not all(f"place_{name}" in pairs for name in LocalCovariance._fields):
        return None
    return LocalCovariance(**{name: pairs[f"place_{name}"].values for name in LocalCovariance._fields})


def next_grouping(pairs: xr.Dataset, groups: xr.Dataset, n_superclasses: int) -> xr.Dataset | None:
    """One superclass less or more than a grouping has, told from that grouping by what maps show place by place.

    Parameters
    ----------
    pairs
        As in pairs.zarr.
    groups
        The grouping, ``superclass`` on ``class_id``.
    n_superclasses
        One less, or one more, than it has.

    Returns
    -------
    xarray.Dataset or None
        ``superclass`` on ``class_id``; None where the maps were not compared place by place, or differ there by what
        neither noise nor poses explain.
    """
    local = _local(pairs)
    place = {int(class_id): row for row, class_id in enumerate(pairs["class_i"].values)}
    ids, labels = groups["class_id"].values, groups["superclass"].values
    known = np.array([label >= 0 and int(class_id) in place for class_id, label in zip(ids, labels, strict=True)], bool)
    if local is None or known.sum() < 3:
        return None
    local = select_local(local, np.array([place[int(class_id)] for class_id in ids[known]]))
    if not local_search.describes_maps(local):
        return None
    found = local_search.next_partition(local, local_search.renumbered(labels[known]), n_superclasses)
    return xr.Dataset({"superclass": ("class_id", found)}, coords={"class_id": ids[known]})


def _curves(found: grouping.Grouping) -> dict[str, object]:
    curves = {
        name: [value if np.isfinite(value) else None for value in np.asarray(getattr(found, name)).tolist()]
        for name in (
            *("candidate_superclasses", "stability_curve", "eigengap_curve", "separation_curve"),
            "evidence_curve",
        )
    }
    return {"n_superclasses": int(found.n_superclasses), **curves}


def superclass_order(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """New number of each label: most particles first, then most classes, then the lowest class."""
    count = int(labels.max()) + 1
    keys = [
        (-int(sizes[labels == label].sum()), -int((labels == label).sum()), int(np.flatnonzero(labels == label)[0]))
        for label in range(count)
    ]
    order = np.empty(count, np.int64)
    order[sorted(range(count), key=keys.__getitem__)] = np.arange(count)
    return order


def reference_classes(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Position of the largest class of each superclass; the first of equals."""
    return np.array(
        [
            members[np.argmax(sizes[members])]
            for members in (np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1))
        ]
    )


def similarity_to_superclass(measure: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean similarity of a class to the other classes of its superclass; 1 for a class on its own."""
    result = np.ones(len(labels))
    for position, label in enumerate(labels):
        others = (labels == label) & (np.arange(len(labels)) != position)
        if others.any():
            known = measure[position, others]
            result[position] = np.nanmean(known) if np.isfinite(known).any() else np.nan
    return result


def _check_count(n_superclasses: int | str, n_classes: int) -> None:
    if n_superclasses == "auto":
        return
    if not isinstance(n_superclasses, int | np.integer) or not 1 <= n_superclasses <= n_classes - 1:
        raise InputError(
            f"The number of superclasses is {n_superclasses!r}, but it must be from 1 to {n_classes - 1}, one less "
            f"than the {n_classes} classes compared, or auto."
        )


def renumber(groups: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """Give superclass ``order[k]`` the number k."""
    new_number = np.empty(len(order), np.int64)
    new_number[order] = np.arange(len(order))
    labels = groups["superclass"].values
    renumbered = groups.isel(superclass_id=order).assign_coords(superclass_id=np.arange(len(order)))
    renumbered["superclass"] = ("class_id", np.where(labels < 0, labels, new_number[labels]))
    return renumbered
