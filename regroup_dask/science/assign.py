"""Which superclass a particle goes to, from its class posteriors."""

from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

REMAINING = -1


class Assignment(NamedTuple):
    """Superclass of every particle of one block of rows.

    Attributes
    ----------
    class_index : int64[n]
        Column of the particle's best class over all classes; -1 where the row has no posterior at all.
    superclass : int32[n]
        Superclass, or -1: the particle remains (its class is excluded, too small, or unknown).
    superclass_posterior : float32[n, K]
        Posterior summed within each superclass, normalised over the grouped classes.
    best_class_in_superclass : int32[n, K]
        Column of the particle's best class among the classes of each superclass; -1 for a superclass without
        classes.
    n_without_posterior : int
        Rows without any usable posterior.
    n_rules_differ : int
        Rows that the other rule would send elsewhere.
    """

    class_index: NDArray[np.int64]
    superclass: NDArray[np.int32]
    superclass_posterior: NDArray[np.float32]
    best_class_in_superclass: NDArray[np.int32]
    n_without_posterior: int
    n_rules_differ: int


def hard_classes(posteriors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Best class of every particle.

    Parameters
    ----------
    posteriors : float[n, C]
        Class posteriors; NaN counts as zero.

    Returns
    -------
    int64[n]
        Column of the largest posterior; the lowest column of a tie; -1 for a row that is all NaN or has
        nothing above zero (count these with ``(result < 0).sum()``).
    """
    best = np.empty(len(posteriors), np.int64)
    _best(np.ascontiguousarray(posteriors, np.float32), best)
    return best


@njit(cache=True, nogil=True)
def _best(posteriors, best):  # type: ignore[no-untyped-def]
    for row in range(len(posteriors)):
        highest, best[row] = np.float32(0), REMAINING
        for column in range(posteriors.shape[1]):
            value = posteriors[row, column]
            if np.isfinite(value) and value > highest:
                highest, best[row] = value, column


def superclass_posteriors(
    posteriors: NDArray[np.float32], superclass_of_class: NDArray[np.integer], n_superclasses: int
) -> NDArray[np.float32]:
    """Posterior of every superclass: the sum over its classes, normalised over the grouped classes.

    Parameters
    ----------
    posteriors : float[n, C]
    superclass_of_class : int[C]
        Superclass of each column, -1 where the class is not grouped.
    n_superclasses : int
        Number of superclasses, K.

    Returns
    -------
    float32[n, K]
        Rows sum to one; a row with no posterior in any grouped class stays zero.
    """
    membership = _membership(superclass_of_class, n_superclasses, posteriors.shape[1])
    summed = _usable(posteriors).astype(np.float64) @ membership
    total = summed.sum(axis=1, keepdims=True)
    return np.divide(summed, total, out=np.zeros_like(summed), where=total > 0).astype(np.float32)


def assign_superclasses(
    posteriors: NDArray[np.float32],
    superclass_of_class: NDArray[np.integer],
    n_superclasses: int,
    *,
    rule: Literal["argmax", "sum"] = "argmax",
    minimum_posterior: float | None = None,
) -> Assignment:
    """Assign particles to superclasses.

    With either rule a particle whose best class over *all* classes is not grouped (excluded, or smaller than
    the minimum) remains: its signal was claimed by a class that takes no part.

    Parameters
    ----------
    posteriors : float[n, C]
        Class posteriors of all classes, grouped or not.
    superclass_of_class : int[C]
        Superclass of each column, -1 where the class is not grouped.
    n_superclasses : int
        Number of superclasses, K.
    rule : "argmax" or "sum"
        ``argmax``: the superclass of the particle's best class, as the original job does. ``sum``: the
        superclass with the largest summed posterior (the lowest of a tie), which may differ where several
        classes of one superclass share a particle.
    minimum_posterior : float, optional
        A particle whose posterior for its superclass (normalised over the grouped classes) is lower remains.

    Returns
    -------
    Assignment
    """
    if rule not in ("argmax", "sum"):
        raise ValueError(f"rule is {rule!r}, but must be 'argmax' or 'sum'")
    superclass_of_class = np.asarray(superclass_of_class, np.int32)
    n, n_superclasses = len(posteriors), int(n_superclasses)
    _check_classes(superclass_of_class, n_superclasses, posteriors.shape[1])
    class_index, superclass = np.empty(n, np.int64), np.empty(n, np.int32)
    soft, best = np.empty((n, n_superclasses), np.float32), np.empty((n, n_superclasses), np.int32)
    lowest = np.float32(minimum_posterior or 0)
    values = np.ascontiguousarray(posteriors, np.float32)
    differ = _assign(values, superclass_of_class, rule == "sum", lowest, class_index, superclass, soft, best)
    return Assignment(class_index, superclass, soft, best, int((class_index < 0).sum()), int(differ))


@njit(cache=True, nogil=True)
def _assign(posteriors, superclass_of_class, by_sum, lowest, class_index, superclass, soft, best):  # type: ignore[no-untyped-def]
    """Fill the arrays of an `Assignment`, row by row; returns how many rows the two rules treat differently."""
    n_superclasses, n_differ = soft.shape[1], 0
    summed, largest = np.empty(n_superclasses), np.empty(n_superclasses)
    for row in range(len(posteriors)):
        summed[:], largest[:], best[row] = 0, -1, -1
        total, highest, found = 0.0, np.float32(0), -1
        for column in range(posteriors.shape[1]):
            value = posteriors[row, column]
            if not (np.isfinite(value) and value > 0):
                value = np.float32(0)
            if value > highest:
                highest, found = value, column
            label = superclass_of_class[column]
            if label >= 0:
                total += value
                summed[label] += value
                if value > largest[label]:
                    largest[label], best[row, label] = value, column
        class_index[row] = found
        label = superclass_of_class[found] if found >= 0 else -1
        label_of_sum, top = label, np.float32(-1)
        for k in range(n_superclasses):
            soft[row, k] = summed[k] / total if total > 0 else 0
            if label >= 0 and soft[row, k] > top:
                top = soft[row, k]
                label_of_sum = k
        if label >= 0 and soft[row, label] < lowest:
            label = -1
        if label_of_sum >= 0 and soft[row, label_of_sum] < lowest:
            label_of_sum = -1
        n_differ += label != label_of_sum
        superclass[row] = label_of_sum if by_sum else label
    return n_differ


def _usable(posteriors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(posteriors) & (posteriors > 0), posteriors, 0)


def _membership(
    superclass_of_class: NDArray[np.integer], n_superclasses: int, n_classes: int
) -> NDArray[np.float64]:
    superclass_of_class = np.asarray(superclass_of_class)
    _check_classes(superclass_of_class, n_superclasses, n_classes)
    return (superclass_of_class[:, None] == np.arange(n_superclasses)[None, :]).astype(np.float64)


def _check_classes(superclass_of_class: NDArray[np.integer], n_superclasses: int, n_classes: int) -> None:
    if superclass_of_class.shape != (n_classes,):
        raise ValueError(
            f"{n_classes} posteriors per particle, but {superclass_of_class.shape} superclasses of classes"
        )
    if len(superclass_of_class) and superclass_of_class.max() >= n_superclasses:
        raise ValueError(f"superclass {superclass_of_class.max()} named, but there are {n_superclasses}")
