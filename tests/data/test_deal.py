"""What each scan gets: the split given, else a fold, else a split that is dealt."""

from __future__ import annotations

import pytest

from tunelab.data.dataset import SPLITS
from tunelab.data.deal import deal
from tunelab.data.splits import FEW_SCANS
from tunelab.errors import DataError


def dealt(n: int, *, given=None, positives=2, seed=0):
    names = [f"s{i}" for i in range(n)]
    positives = [positives] * n if isinstance(positives, int) else positives
    given = [None] * n if given is None else given
    return deal("here", given=given, groups=names, positives=positives, lengths=[10] * n, seed=seed)


def test_given_splits_are_taken_however_few_the_scans():
    given = ["test", "train", "tune", "validation", "train"]
    found = dealt(5, given=given)
    assert (list(found.splits), found.folds, found.notes, list(found.places)) == (given, (), (), given)


def test_few_scans_get_folds_and_more_get_splits():
    few, many = dealt(FEW_SCANS - 1), dealt(FEW_SCANS)
    assert (few.splits, set(few.folds)) == ((), {-1, 0, 1, 2, 3, 4})
    assert set(few.places) == {"test", "fold 0", "fold 1", "fold 2", "fold 3", "fold 4"}
    assert (set(many.splits), many.folds) == (set(SPLITS), ())
    assert dealt(FEW_SCANS).splits == many.splits
    assert dealt(FEW_SCANS, seed=1).splits != many.splits


def test_a_test_part_without_positives_is_noted_both_ways():
    assert dealt(6, positives=[3, 3, 3, 0, 0, 0]).notes == (
        "no positive trace in test: F1 of the finalists is undefined there",
    )
    given = ["train", "tune", "validation", "test"]
    assert dealt(4, given=given, positives=[1, 1, 1, 0]).notes == dealt(6, positives=[3, 3, 3, 0, 0, 0]).notes


def test_what_cannot_be_dealt_names_the_place():
    with pytest.raises(DataError, match=r"^here: 3 scans in 3 groups, but 3 folds and a test part need one each"):
        dealt(3)
    with pytest.raises(DataError, match=r"^here: no positive trace in tune"):
        dealt(4, given=["train", "tune", "validation", "test"], positives=[1, 0, 1, 1])
