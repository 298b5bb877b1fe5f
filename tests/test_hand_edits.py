"""Changes by hand: what each edit means, what cannot be meant, and that nothing else changes."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from regroup_dask.errors import InputError
from regroup_dask.hand_edits import Edits, Merge, Move, Split, describe_mapping
from regroup_dask.told_groups import tell_groups

BEFORE = (0, 0, 0, 1, 1, 2, 2, -1)


def rows(labels=BEFORE):
    return [
        {"class_id": class_id, "superclass": label, "status": "grouped" if label >= 0 else "too_small", "stability": 0.9,
         "note": "resembles no other map" if class_id == 6 else ""}
        for class_id, label in enumerate(labels)
    ]  # fmt: skip


def pairs_of(labels=BEFORE, *, seed=0):
    """Plain correlations of classes on a line, so that the outer ones are least alike."""
    ids = np.array([class_id for class_id, label in enumerate(labels) if label >= 0])
    place = np.random.default_rng(seed).uniform(0, 1, len(ids))
    measure = np.exp(-np.abs(place[:, None] - place[None]))
    data = {name: (("class_i", "class_j"), measure) for name in ("correlation", "similarity")}
    return xr.Dataset(data, coords={"class_i": ids, "class_j": ids}, attrs={"align": 0})


def told(*, moves=(), splits=(), merges=(), labels=BEFORE):
    edits = Edits(tuple(moves), tuple(splits), tuple(merges))
    return tell_groups(edits, rows(labels), pairs_of(labels))


def company(groups):
    labels = groups.superclass_of_class
    return {frozenset(key for key, value in labels.items() if value == label) for label in set(labels.values())}


def test_a_merge_makes_one_of_several():
    assert company(told(merges=[Merge((0, 2))])) == {frozenset({0, 1, 2, 5, 6}), frozenset({3, 4})}


def test_a_split_makes_two_unless_told_otherwise():
    assert {frozenset({3, 4}), frozenset({5, 6})} < company(told(splits=[Split(0)]))
    assert len(company(told(splits=[Split(0)]))) == 4
    assert {frozenset({0}), frozenset({1}), frozenset({2})} < company(told(splits=[Split(0, 3)]))


def test_a_class_moves_to_another_superclass_to_a_new_one_or_to_none():
    assert company(told(moves=[Move(2, 1)])) == {frozenset({0, 1}), frozenset({2, 3, 4}), frozenset({5, 6})}
    assert frozenset({2}) in company(told(moves=[Move(2, "new")]))
    left = told(moves=[Move(2, "remaining")])
    assert company(left) == {frozenset({0, 1}), frozenset({3, 4}), frozenset({5, 6})}
    assert left.removed == (2,)


def test_moves_come_before_splits_and_splits_before_merges():
    both = told(moves=[Move(0, 1)], splits=[Split(0)], merges=[Merge((1, 2))])
    assert company(both) == {frozenset({1}), frozenset({2}), frozenset({0, 3, 4, 5, 6})}
    assert both.edits == ("--move class=0:superclass=1", "--split 0=2", "--merge 1,2")


def test_a_superclass_that_is_left_empty_is_gone():
    assert company(told(moves=[Move(3, 0), Move(4, 0)])) == {frozenset({0, 1, 2, 3, 4}), frozenset({5, 6})}


def test_what_was_done_is_noted_and_what_was_known_is_kept():
    groups = told(moves=[Move(6, 1)], merges=[Merge((0, 1))])
    assert groups.notes[6] == (
        "resembles no other map; moved by hand from superclass 2; superclasses 0 and 1 merged by hand"
    )
    assert groups.notes[5] == ""
    assert np.isnan([groups.stability[class_id] for class_id in (0, 3, 5, 6)]).all()
    untouched = told(merges=[Merge((0, 1))])
    assert untouched.stability[5] == untouched.stability[6] == 0.9


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        (Edits(moves=(Move(9, 0),)), "there is no class 9; the classes are 0 to 7"),
        (Edits(moves=(Move(7, 0),)), r"class 7 took no part in that run \(too small\)"),
        (Edits(moves=(Move(1, 3),)), "there is no superclass 3; the superclasses are 0, 1, 2"),
        (Edits(moves=(Move(1, 1), Move(1, 2))), "class 1 is moved twice"),
        (Edits(splits=(Split(5),)), "there is no superclass 5"),
        (Edits(splits=(Split(1, 3),)), r"Superclass 1 has 2 classes \(3, 4\): it cannot be split into 3"),
        (Edits(moves=(Move(3, 0),), splits=(Split(1),)), r"Superclass 1 has 1 class \(4\)"),
        (Edits(splits=(Split(1, 1),)), "2 or more"),
        (Edits(splits=(Split(1), Split(1, 2))), "superclass 1 is split twice"),
        (Edits(merges=(Merge((0, 4)),)), "there is no superclass 4"),
        (Edits(merges=(Merge((1,)),)), "give two or more superclasses"),
        (Edits(merges=(Merge((0, 1)), Merge((1, 2)))), "superclass 1 is merged twice"),
        (Edits(splits=(Split(1),), merges=(Merge((0, 1)),)), "Superclass 1 is both split and merged"),
        (Edits(moves=(Move(0, 0),)), "change nothing"),
        (Edits(splits=(Split(0, 3), Split(1), Split(2))), "7 superclasses of 7 classes"),
    ],
)
def test_what_cannot_be_meant_is_refused(edits, sentence):
    with pytest.raises(InputError, match=sentence):
        tell_groups(edits, rows(), pairs_of())


def test_moving_all_but_one_away_is_refused():
    with pytest.raises(InputError, match="leave 1 class: at least 2"):
        told(moves=[Move(class_id, "remaining") for class_id in range(6)])


def test_the_mapping_names_every_old_superclass():
    before = {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2}
    after = {0: 1, 1: 1, 2: 1, 3: 0, 4: 0}
    assert describe_mapping(before, after) == [
        "superclass 0 → 1",
        "superclass 1 → 1",
        "superclass 2 → 0 (classes 3, 4) and remaining (class 5)",
    ]


@st.composite
def groupings_with_moves(draw):
    n_classes = draw(st.integers(4, 9))
    labels = draw(st.lists(st.integers(0, 2), min_size=n_classes, max_size=n_classes))
    numbers = {old: new for new, old in enumerate(dict.fromkeys(labels))}
    labels = tuple(numbers[label] for label in labels)
    classes = draw(st.lists(st.integers(0, n_classes - 1), max_size=3, unique=True))
    targets = st.sampled_from([*range(len(numbers)), "new", "remaining"])
    return labels, [Move(class_id, draw(targets)) for class_id in classes]


@given(groupings_with_moves())
def test_classes_that_no_move_names_keep_their_company(case):
    labels, moves = case
    try:
        groups = told(moves=moves, labels=labels)
    except InputError:
        assume(False)
    named = {move.class_id for move in moves}
    assert set(groups.superclass_of_class) | set(groups.removed) == set(range(len(labels)))
    rest = [class_id for class_id in range(len(labels)) if class_id not in named]
    for first in rest:
        for second in rest:
            now = groups.superclass_of_class[first] == groups.superclass_of_class[second]
            assert now == (labels[first] == labels[second])
    for move in moves:
        if isinstance(move.superclass, int):
            for other in rest:
                if labels[other] == move.superclass:
                    assert groups.superclass_of_class[move.class_id] == groups.superclass_of_class[other]
    numbers = set(groups.superclass_of_class.values())
    assert numbers == set(range(len(numbers)))
