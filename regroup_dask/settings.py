"""Every parameter of a run, in one frozen record, checked before anything is read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from regroup_dask.errors import InputError

SuperclassCount = int | Literal["auto"]

NEAREST_BY_DEFAULT = 30

_CHOICES: dict[str, tuple[str, ...]] = {
    "posteriors": ("argmax", "sum"),
    "hand": ("off", "detect"),
    "frame": ("superclass", "common"),
    "similarity": ("structure", "correlation"),
}


@dataclass(frozen=True)
class Settings:
    """Parameters of a regrouping, named as on the command line.

    Attributes
    ----------
    n_superclasses
        Number of superclasses, 1 to (classes kept - 1), or ``"auto"``.
    minimum_class_size
        Classes with fewer particles take no part.
    exclude_classes
        Zero-based class ids that take no part.
    align
        Align pairs of classes over all rotations and shifts before they are compared.
    maximum_shift_angstrom
        Largest shift between two maps that the alignment looks at.
    mask_inner_radius
        Radius where the soft edge of a spherical mask begins, as a proportion of half the box; None for no
        spherical mask.
    mask
        Path of a mask map, or None.
    class_prefix
        Prefix of the class posterior columns of older CryoSPARC files, or ``"auto"``.
    posteriors
        ``"argmax"``: a particle follows its best class. ``"sum"``: it goes to the superclass with the largest
        summed posterior.
    minimum_posterior
        Particles whose superclass posterior is below this go to "remaining"; None for no limit.
    update_poses
        Particle poses follow their class into the superclass frame; None means when classes are aligned.
    hand
        ``"detect"`` looks for classes of the opposite hand.
    frame
        ``"superclass"``: each superclass keeps the frame of its largest class. ``"common"``: all share the frame
        of the largest class of all.
    similarity
        ``"structure"`` groups by the noise-corrected similarity, ``"correlation"`` by the plain correlation.
    pairs
        ``"all"``, or ``"nearest"`` or ``"nearest:M"``: only the M nearest maps of each map, by rotation-invariant
        descriptors, are compared.
    seed
        Seed of everything random (the clustering).
    """

    n_superclasses: SuperclassCount
    minimum_class_size: int = 0
    exclude_classes: tuple[int, ...] = ()
    align: bool = False
    maximum_shift_angstrom: float = 20.0
    mask_inner_radius: float | None = None
    mask: str | None = None
    class_prefix: str = "auto"
    posteriors: Literal["argmax", "sum"] = "argmax"
    minimum_posterior: float | None = None
    update_poses: bool | None = None
    hand: Literal["off", "detect"] = "detect"
    frame: Literal["superclass", "common"] = "superclass"
    similarity: Literal["structure", "correlation"] = "structure"
    pairs: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def poses_follow(self) -> bool:
        """Whether particle poses are moved into the superclass frame."""
        return self.align if self.update_poses is None else self.update_poses

    @property
    def n_nearest(self) -> int | None:
        """Nearest maps that each map is compared with; None for all."""
        kind, _, number = self.pairs.partition(":")
        if kind == "all":
            return None
        return int(number) if number else NEAREST_BY_DEFAULT

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for run.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Rebuild settings from run.json, leaving out what this version does not know."""
        known = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        kept["exclude_classes"] = tuple(kept.get("exclude_classes", ()))
        return cls(**kept)


def _check(settings: Settings) -> None:
    for name, allowed in _CHOICES.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise InputError(f"{_option(name)} is {value!r}: it is one of {', '.join(allowed)}.")
    kind, _, number = settings.pairs.partition(":")
    if not (settings.pairs == "all" or (kind == "nearest" and (settings.pairs == kind or number.isdecimal()))) or number == "0":
        raise InputError(f"--pairs is {settings.pairs!r}: it is all, nearest, or nearest:M with M of 1 or more.")
    count = settings.n_superclasses
    if count != "auto" and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise InputError(
            f"The number of superclasses (-k) is {count!r}: give a whole number from 1 to the classes kept minus 1, "
            "or auto."
        )
    if settings.minimum_class_size < 0:
        raise InputError(f"--minimum-class-size is {settings.minimum_class_size}: it is 0 or more particles.")
    if any(class_id < 0 for class_id in settings.exclude_classes):
        raise InputError(
            f"--exclude-classes has {min(settings.exclude_classes)}: class ids are zero-based, 0 or more."
        )
    if not 0 <= settings.maximum_shift_angstrom < float("inf"):
        raise InputError(
            f"--maximum-shift is {settings.maximum_shift_angstrom} A: it is a finite number, 0 or more."
        )
    radius = settings.mask_inner_radius
    if radius is not None and not 0 < radius <= 1:
        raise InputError(
            f"--mask-inner-radius is {radius}: it is a proportion of half the box, above 0 and up to 1; leave it "
            "out for no spherical mask."
        )
    limit = settings.minimum_posterior
    if limit is not None and not 0 <= limit <= 1:
        raise InputError(f"--minimum-posterior is {limit}: a posterior lies between 0 and 1.")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
