"""Shares of the training scans: the same for a seed, whole groups, positives in all, each in the next, nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.data.dataset import SPLITS, Dataset, make_dataset
from tunelab.data.generated import Generated
from tunelab.data.shares import open_at, share_of, sizes_of
from tunelab.data.statistics import of_part
from tunelab.errors import DataError
from tunelab.preprocessing import Preprocessing


def made(scans: list[tuple[str, int, bool]]) -> Dataset:
    """A data set of scans of a trace: split, group, and whether the trace is positive."""
    names = [f"s{i:03d}" for i in range(len(scans))]
    rng = np.random.default_rng(0)
    return make_dataset(
        scans={name: rng.normal(size=(1, 8)).astype(np.float32) for name in names},
        labels={name: np.array([positive], np.int8) for name, (_, _, positive) in zip(names, scans, strict=True)},
        splits={name: split for name, (split, _, _) in zip(names, scans, strict=True)},
        groups={name: f"{split}-{group}" for name, (split, group, _) in zip(names, scans, strict=True)},
        dt=None,
        source="made",
    )


SCANS = st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(0, 9), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(scans=SCANS, shares=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3), seed=st.integers(0, 5))
def test_a_share_is_whole_groups_with_positives_and_lies_in_every_larger_one(
    scans: list[tuple[str, int, bool]], shares: list[float], seed: int
) -> None:
    dataset = made([*scans, ("train", 99, True)])
    whole = dataset.part("train")
    before: set[str] = set()
    for share in sorted(shares):
        some = share_of(dataset, share, seed)
        assert some.splits == share_of(dataset, share, seed).splits
        part = some.part("train")
        assert before <= set(part.scans) <= set(whole.scans)
        assert part.positives > 0
        assert part.n_scans >= share * whole.n_scans - 1e-6
        groups = dict(zip(dataset.scans, dataset.groups, strict=True))
        taken = {groups[scan] for scan in part.scans}
        assert all(scan in part.scans for scan in whole.scans if groups[scan] in taken)
        for split in ("tune", "validation", "test"):
            assert some.part(split).scans == dataset.part(split).scans
        before = set(part.scans)


def test_no_more_scans_than_asked_for_and_as_many_positives_as_in_all() -> None:
    dataset = made([("train", i, i % 4 == 0) for i in range(40)])
    for share, scans, positives in ((0.025, 1, 1), (0.1, 4, 1), (0.3, 12, 3), (0.5, 20, 5)):
        part = share_of(dataset, share, 3).part("train")
        assert (part.n_scans, part.positives) == (scans, positives)
    chosen = {share_of(dataset, 0.1, seed).part("train").scans for seed in range(20)}
    assert len(chosen) > 10, "the seed chooses"


def test_steps_that_come_to_the_same_scans_are_refused_with_the_arithmetic() -> None:
    dataset = made([("train", i // 2, True) for i in range(10)])
    assert sizes_of(dataset, [0.2, 0.5], 0) == [2, 6, 10]
    assert sizes_of(dataset, [], 0) == [10]
    with pytest.raises(
        DataError, match=r"0.1 of 10 training scans, in 5 groups .* comes to 2 scans, and so does the sh"
    ):
        sizes_of(dataset, [0.1, 0.2], 0)
    with pytest.raises(
        DataError, match=r"0.9 of 10 training scans, .* comes to 10 scans, and so does all; give shares"
    ):
        sizes_of(dataset, [0.9], 0)


def test_a_trial_opens_what_its_fidelity_says() -> None:
    dataset = made([(split, i, True) for split in SPLITS for i in range(10)])
    access = Generated(dataset=dataset, chains=())
    chain = Preprocessing()
    assert open_at(access, chain, {}, 0) is dataset
    some = open_at(access, chain, {"data": 0.3}, 0)
    assert some.part("train").n_scans == 3
    assert not np.allclose(of_part(some.part("train")).mean, of_part(dataset.part("train")).mean)
    thin = open_at(access, chain, {"decimation": 2}, 0)
    assert (thin.n_samples, thin.splits) == (4, dataset.splits)
    folded = dataset.with_folds([i % 4 - 1 for i in range(40)])
    access = Generated(dataset=folded, chains=())
    assert open_at(access, chain, {}, 0).n_folds == 3
    for fidelity in ({"data": 0.3}, {"decimation": 2}):
        opened = open_at(access, chain, fidelity, 0)
        assert not opened.folds
        assert opened.part("validation").scans == folded.fold(0).part("validation").scans
    assert dataclasses.replace(opened, splits=folded.splits).part("train").n_scans == 10
