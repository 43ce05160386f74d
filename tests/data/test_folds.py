"""Folds: groups whole, every other scan judged once, positives in each, and the splits that each fold stands for."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.check import describe
from tunelab.data.dataset import SPLITS, Dataset, make_dataset
from tunelab.data.folds import splits_of_fold
from tunelab.data.splits import FOLDS, LEAST_FOLDS, assign_folds, without_positives
from tunelab.errors import DataError

Scans = tuple[list[str], list[int], list[int]]


@st.composite
def scans(draw: Any) -> Scans:
    """Groups, positives and lengths of scans in at least four groups, of which three hold positives."""
    n_groups = draw(st.integers(4, 30))
    groups = [f"g{i}" for i in range(n_groups)] + draw(
        st.lists(st.integers(0, n_groups - 1).map("g{}".format), max_size=20)
    )
    lengths = draw(st.lists(st.integers(1, 100), min_size=len(groups), max_size=len(groups)))
    positives = [draw(st.integers(1, n) if i < 3 else st.integers(0, n) | st.just(0)) for i, n in enumerate(lengths)]
    return groups, positives, lengths


@given(scans(), st.integers(0, 2**32))
def test_groups_are_whole_no_fold_or_test_is_empty_and_every_fold_holds_positives(data: Scans, seed: int) -> None:
    groups, positives, lengths = data
    folds = assign_folds(groups, positives, lengths, seed)
    holding = len({g for g, p in zip(groups, positives, strict=True) if p})
    count = max(folds) + 1
    assert count == max(LEAST_FOLDS, min(FOLDS, holding - 1))
    assert set(folds) == set(range(-1, count))
    of_group = defaultdict(set)
    for group, fold in zip(groups, folds, strict=True):
        of_group[group].add(fold)
    assert all(len(places) == 1 for places in of_group.values())
    with_positives = {fold for fold, p in zip(folds, positives, strict=True) if p}
    assert with_positives == set(range(-1 if holding > LEAST_FOLDS else 0, count))
    assert assign_folds(groups, positives, lengths, seed) == folds


@given(scans())
def test_every_scan_but_those_of_test_is_validation_in_one_fold_and_tune_in_another(data: Scans) -> None:
    folds = assign_folds(*data, 3)
    by_fold = [splits_of_fold(folds, k) for k in range(max(folds) + 1)]
    for splits in by_fold:
        assert set(splits) == set(SPLITS)
        assert without_positives(splits, data[0], data[1]) in ([], ["test"])
    for scan, fold in enumerate(folds):
        there = Counter(splits[scan] for splits in by_fold)
        if fold < 0:
            assert there == {"test": len(by_fold)}
        else:
            assert there == {"validation": 1, "tune": 1, "train": len(by_fold) - 2}
            assert by_fold[fold][scan] == "validation"


@given(scans(), st.randoms(use_true_random=False))
def test_order_of_the_scans_changes_nothing(data: Scans, random: Any) -> None:
    rows = list(zip(*data, strict=True))
    folds = dict(zip(data[0], assign_folds(*data, 7), strict=True))
    random.shuffle(rows)
    groups, positives, lengths = (list(column) for column in zip(*rows, strict=True))
    assert dict(zip(groups, assign_folds(groups, positives, lengths, 7), strict=True)) == folds


def test_fifty_scans_are_dealt_evenly_and_another_seed_deals_anew() -> None:
    groups = [f"s{i:02}" for i in range(50)]
    positives = [(i * 7) % 12 if i % 5 else 0 for i in range(50)]
    lengths = [40 + i % 30 for i in range(50)]
    folds = assign_folds(groups, positives, lengths, 1)
    for fold in range(-1, FOLDS):
        share = 0.15 if fold < 0 else 0.85 / FOLDS
        for values in (positives, lengths):
            there = sum(v for v, f in zip(values, folds, strict=True) if f == fold)
            assert there / sum(values) == pytest.approx(share, rel=0.2)
    assert assign_folds(groups, positives, lengths, 2) != folds


def test_what_cannot_be_dealt_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(DataError, match=r"4 scans in 3 groups, but 3 folds and a test part .* 4 - 3 = 1 missing; add"):
        assign_folds(["a", "a", "b", "c"], [1] * 4, [5] * 4)
    with pytest.raises(DataError, match=r"2 of 5 groups of scans hold positive traces.* 3 - 2 = 1 missing; add scans"):
        assign_folds(list("abcde"), [1, 0, 2, 0, 0], [5] * 5)
    with pytest.raises(ValueError, match="4 groups, 3 positives, 4 lengths"):
        assign_folds(["a", "b", "c", "d"], [1, 1, 1], [5] * 4)


def dataset(folds: tuple[int, ...]) -> Dataset:
    """A scan for each fold given, two traces of three samples."""
    names = [f"s{i}" for i in range(len(folds))]
    made = make_dataset(
        scans={name: np.full((2, 3), i, np.float32) for i, name in enumerate(names)},
        labels={name: np.array([0, i % 2], np.int8) for i, name in enumerate(names)},
        splits=dict.fromkeys(names, "train"),
        dt=None,
        source="made",
    )
    return made.with_folds(folds)


def test_a_data_set_of_folds_shows_the_first_and_gives_each() -> None:
    data = dataset((2, -1, 0, 1, 0))
    assert data.splits == ("train", "test", "validation", "tune", "validation")
    assert data.n_folds == 3
    assert data.fold(0).splits == data.splits
    last = data.fold(2)
    assert last.splits == ("validation", "test", "tune", "train", "tune")
    assert (last.n_folds, last.folds) == (0, ())
    assert last.fingerprint == data.fingerprint
    assert data.judged().scans == ("s0", "s2", "s3", "s4")
    assert last.judged().scans == ("s0",)
    assert data.dealt == "cross-fitted over 3 folds of 4 scans, 1 test scans"
    assert last.dealt == "four splits: train 1, tune 2, validation 1, test 1"


@pytest.mark.parametrize("folds", [(0, 1, -1, 0, 1), (0, 1, 3, 0, -1)])
def test_two_folds_or_a_gap_are_refused(folds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three at least, and none without a scan"):
        dataset(folds)


def test_a_fold_that_is_not_there_is_refused() -> None:
    data = dataset((2, -1, 0, 1, 0))
    for k in (-1, 3):
        with pytest.raises(ValueError, match=f"fold {k}: not from 0 to 2"):
            data.fold(k)
    with pytest.raises(ValueError, match="0 to -1"):
        data.fold(0).fold(0)


def test_the_check_lists_folds_and_warns_of_the_scans_that_are_judged() -> None:
    said = describe(dataset((2, -1, 0, 1, 0)))
    table = said[said.index("\nfold ") + 1 :].splitlines()[:6]
    assert [line.split()[:3] for line in table] == [
        ["fold", "scans", "traces"],
        ["fold", "0", "2"],
        ["fold", "1", "1"],
        ["fold", "2", "1"],
        ["test", "1", "2"],
        ["all", "5", "10"],
    ]
    assert "validation, pooled over 3 folds, has 4 scans, test has 1 scans, fewer than 60" in said
    assert "tune has" not in said
