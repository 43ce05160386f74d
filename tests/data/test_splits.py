from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.dataset import SPLITS
from tunelab.data.splits import FRACTIONS, assign_splits, without_positives
from tunelab.errors import DataError


@st.composite
def scans(draw):
    """Groups, positives and lengths of scans in at least four groups."""
    n_groups = draw(st.integers(4, 30))
    groups = [f"g{i}" for i in range(n_groups)] + draw(
        st.lists(st.integers(0, n_groups - 1).map("g{}".format), max_size=20)
    )
    lengths = draw(st.lists(st.integers(1, 100), min_size=len(groups), max_size=len(groups)))
    positives = [draw(st.one_of(st.just(0), st.integers(0, n))) for n in lengths]
    return groups, positives, lengths


@given(scans(), st.integers(0, 2**32))
def test_every_scan_one_split_groups_whole_no_split_empty_and_positives_everywhere(data, seed):
    groups, positives, lengths = data
    splits = assign_splits(groups, positives, lengths, seed)
    assert len(splits) == len(groups)
    assert set(splits) == set(SPLITS)
    of_group = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        of_group[group].add(split)
    assert all(len(names) == 1 for names in of_group.values())
    positive_groups = {g for g, p in zip(groups, positives, strict=True) if p}
    with_positives = {s for s, p in zip(splits, positives, strict=True) if p}
    assert len(with_positives) == min(4, len(positive_groups))
    assert assign_splits(groups, positives, lengths, seed) == splits


@given(scans(), st.randoms(use_true_random=False))
def test_order_of_the_scans_changes_nothing(data, random):
    rows = list(zip(*data, strict=True))
    splits = dict(zip(data[0], assign_splits(*data, 7), strict=True))
    random.shuffle(rows)
    shuffled = tuple(zip(*rows, strict=True))
    assert dict(zip(shuffled[0], assign_splits(*shuffled, 7), strict=True)) == splits


def test_hundred_scans_are_dealt_near_the_fractions_and_another_seed_deals_anew():
    groups = [f"s{i}" for i in range(100)]
    positives = [(i * 7) % 12 if i % 5 else 0 for i in range(100)]
    lengths = [40 + i % 30 for i in range(100)]
    splits = assign_splits(groups, positives, lengths, 1)
    for name in SPLITS:
        for values in (positives, lengths):
            share = sum(v for v, s in zip(values, splits, strict=True) if s == name) / sum(values)
            assert share == pytest.approx(FRACTIONS[name], rel=0.1)
    assert assign_splits(groups, positives, lengths, 2) != splits
    assert sum(FRACTIONS.values()) == pytest.approx(1)


def test_thousands_of_groups_are_dealt_quickly_and_evenly():
    splits = assign_splits([str(i) for i in range(20_000)], [i % 3 for i in range(20_000)], [50] * 20_000)
    assert splits.count("validation") == pytest.approx(3_000, rel=0.02)


def test_fewer_groups_than_splits_are_refused_with_the_arithmetic():
    with pytest.raises(
        DataError, match=r"5 scans in 3 groups, but the 4 splits .* 4 - 3 = 1 missing; add scans"
    ) as caught:
        assign_splits(["a", "a", "b", "c", "c"], [1] * 5, [5] * 5)
    assert "scans.csv: group" in str(caught.value)


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="4 groups, 3 positives, 4 lengths"):
        assign_splits(["a", "b", "c", "d"], [1, 1, 1], [5] * 4)


def test_only_test_may_lack_positives():
    assert without_positives(SPLITS, "abcd", [1, 1, 1, 1]) == []
    assert without_positives(SPLITS, "abcd", [1, 1, 1, 0]) == ["test"]
    with pytest.raises(DataError, match="no positive trace in tune, test, so F1 is undefined there; 2 groups of scans"):
        without_positives(SPLITS, "abcd", [1, 0, 1, 0])
