from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tunelab.data.check import describe, f1_deviation, identical_scans, positive_runs
from tunelab.data.dataset import SPLITS, make_dataset


def built(n: int = 8, *, dt=1e-10, notes=(), change=None, groups=None):
    """Scans of 5 traces x 11 samples, the second trace positive; the first quarter is train, the next tune, ..."""
    rng = np.random.default_rng(0)
    scans = {f"s{i:03}": rng.standard_normal((5, 11)).astype(np.float32) for i in range(n)}
    labels = {scan: np.array([0, 1, 0, 0, 0], np.int8) for scan in scans}
    splits = dict(zip(scans, sorted((SPLITS[i % 4] for i in range(n)), key=SPLITS.index), strict=True))
    if change is not None:
        change(scans, labels)
    return make_dataset(
        scans=scans,
        labels=labels,
        splits={scan: splits.get(scan, "train") for scan in scans},
        groups=groups and {scan: groups[i % len(groups)] for i, scan in enumerate(scans)},
        dt=dt,
        source="here",
        notes=notes,
    )


def folded(n: int = 8, **options):
    """The same in three folds and a test part."""
    return built(n, **options).with_folds([i % 4 - 1 for i in range(n)])


def said(dataset) -> str:
    """Without the breaks between lines of one remark."""
    return describe(dataset).replace("\n  ", " ")


def fact(dataset, name: str) -> str:
    (line,) = [line for line in describe(dataset).splitlines() if line.startswith(name)]
    return line[14:]


def test_size_rate_splits_and_baseline():
    dataset = built(notes=("something was left out",))
    text = describe(dataset)
    assert fact(dataset, "data set") == "here"
    assert fact(dataset, "fingerprint") == dataset.fingerprint
    assert fact(dataset, "scans") == "8"
    assert fact(dataset, "traces") == "40 in all, 5 a scan"
    assert fact(dataset, "samples") == "11 a trace, 100 ps apart (10 GHz), 1 ns"
    assert fact(dataset, "memory") == "1.76 kB of float32"
    assert fact(dataset, "shards") == "8 of 5 traces"
    assert "dealt" not in text
    assert "\nvalidation        2          10          2   20.0%               0.333\n" in text
    assert "\nall               8          40          8   20.0%               0.333\n" in text
    assert "note: something was left out" in text
    assert "no silent traces, no identical scans" in text
    assert fact(built(dt=None), "samples") == "11 a trace, interval unknown or mixed"


def test_lengths_groups_and_shards_are_told_with_their_range():
    def longer(scans, labels):
        scans["s003"] = np.ones((1200, 11), np.float32)
        labels["s003"] = np.zeros(1200, np.int8)

    dataset = built(9, change=longer, groups=["a", "b", "b", "b", "b", "b", "b"])
    assert fact(dataset, "scans") == "9 in 2 groups that are never parted, 2 to 7 a group, median 4.5"
    assert fact(dataset, "traces") == "1,240 in all, 5 to 1,200 a scan, median 5"
    dataset = replace(dataset, shards=np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]))
    assert fact(dataset, "shards") == "3 of 15 to 1,210 traces, median 15"


def test_folds_are_listed_instead_of_splits():
    dataset = folded()
    text = describe(dataset)
    assert fact(dataset, "dealt") == "cross-fitted over 3 folds of 6 scans, 2 test scans"
    rows = [
        line.replace("fold ", "fold") if "scans" not in line else line for line in text.split("\n\n")[1].splitlines()
    ]
    rows = [line.split() for line in rows]
    assert rows[0] == ["fold", "scans", "traces", "positive", "share", "always-positive", "F1"]
    assert [row[0] for row in rows[1:]] == ["fold0", "fold1", "fold2", "test", "all"]
    assert rows[1][1:] == ["2", "10", "2", "20.0%", "0.333"]
    assert "train" not in text


def test_identical_scans_of_different_folds_are_a_warning():
    def same(scans, labels):
        scans["s003"] = scans["s004"] = scans["s007"] = scans["s001"].copy()  # of folds 2, test, 2 and 0

    assert "lie in different folds (s001 (fold 0) = s003 (fold 2) = s004 (test)); what" in said(folded(change=same))

    def within(scans, labels):
        scans["s005"] = scans["s001"].copy()

    assert "1 sets of identical scans, each within a fold" in said(folded(change=within))


def test_runs_of_positive_traces_end_with_their_scan():
    def change(scans, labels):
        labels["s000"][:] = [1, 1, 0, 1, 1]
        labels["s001"][:] = [1, 1, 1, 0, 1]
        labels["s002"][:] = 0
        labels["s007"][:] = 1

    dataset = built(change=change)
    assert positive_runs(dataset).tolist() == [2, 2, 3, 1, 1, 1, 1, 1, 5]
    assert fact(dataset, "positives") == "9 runs of 1 to 5 traces, median 1; 1 of 8 scans have none"
    assert fact(built(), "positives") == "8 runs of 1 traces; 0 of 8 scans have none"
    none = replace(built(), labels=np.zeros(40, np.int8))
    assert fact(none, "positives") == "0 runs; 8 of 8 scans have none"


def test_the_last_trace_of_all_does_not_lead_into_the_first():
    dataset = replace(built(), labels=np.array([1] + [0] * 38 + [1], np.int8))
    assert positive_runs(dataset).tolist() == [1, 1]


def test_scans_of_another_unit_are_named():
    def change(scans, labels):
        for scan, peak in (("s000", 2), ("s001", -3000), ("s002", 4), ("s003", 1e-4), ("s004", 0), ("s005", 3)):
            scans[scan][:] = 0
            scans[scan][3, 3] = peak
        scans["s006"][:] = np.float32(3.4e38)
        scans["s007"][:] = -1

    dataset = built(change=change)
    assert fact(dataset, "amplitude") == "largest of a scan: median 3, from 0.0001 to 3.4e+38"
    assert (
        "warning: the largest sample of 2 scans is more than 1,000 times larger or smaller than the median of 3 "
        "(s003: 0.0001, s006: 3.4e+38); units or gains may be mixed up"
    ) in said(dataset)
    assert "times larger" not in said(built())


def test_scans_of_zeros_alone_have_no_unit():
    def change(scans, labels):
        for traces in scans.values():
            traces[:] = 0

    dataset = built(change=change)
    assert fact(dataset, "amplitude") == "every sample is 0"
    assert "times larger" not in said(dataset)


class Watched:
    """Samples that are made when they are read, 4 MiB a scan, and remember which were read."""

    n_samples = 2**16

    def __init__(self):
        self.order = []

    def read(self, scan):
        self.order.append(scan)
        return np.full((16, self.n_samples), scan + 1, np.float32)

    def moments(self, scans):
        raise AssertionError("not needed")


def test_each_scan_is_read_once_by_shard_and_none_is_kept():
    labels = np.tile(np.array([0, 1, 0, 0, 0, 0, 0, 0] * 2, np.int8), 32)
    plain = built(32)
    watched = Watched()
    dataset = replace(
        plain, samples=watched, labels=labels, lengths=np.full(32, 16), shards=np.array([1, 0] * 16, np.int64)
    )
    tracemalloc.start()
    try:
        assert fact(dataset, "memory") == "134 MB of float32"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert watched.order == [*range(1, 32, 2), *range(0, 32, 2)]
    assert most < 3 * 4 * 2**20
    assert fact(dataset, "amplitude").endswith("median 16.5, from 1 to 32")


def test_a_large_data_set_is_told_in_gb_and_lines_stay_short():
    notes = ("a note of many words " * 20,)
    dataset = built(notes=notes)
    large = replace(dataset, samples=Watched(), labels=np.ones(8 * 16, np.int8), lengths=np.full(8, 16))
    large.samples.n_samples = 2**22
    large.samples.read = lambda scan: np.ones((16, 2), np.float32)
    assert fact(large, "memory") == "2.15 GB of float32"
    assert max(map(len, describe(dataset).splitlines())) <= 100


def test_long_ids_are_cut_in_lists():
    def change(scans, labels):
        for name in ("a" * 120, "b" * 120):
            scans[name] = np.zeros((5, 11), np.float32)
            labels[name] = np.zeros(5, np.int8)

    text = said(built(change=change))
    assert f"({'a' * 37}...: 5, {'b' * 37}...: 5)" in text
    assert "a" * 38 not in text


def test_few_scans_are_warned_of_with_the_arithmetic():
    text = said(built())
    assert "tune has 2 scans, validation has 2 scans, test has 2 scans, fewer than 60" in text
    assert "near 0.35 / sqrt(2) = 0.25" in text
    assert "2 x sqrt(2) x 0.25 = 0.70 to be told apart" in text
    assert "warning" not in describe(built(240))
    assert f1_deviation(4) == pytest.approx(0.18, abs=0.01)
    assert f1_deviation(100) == pytest.approx(0.03, abs=0.01)
    assert np.isnan(f1_deviation(0))


def test_the_arithmetic_of_folds_is_that_of_the_scans_judged():
    text = said(folded(40))
    assert "validation, pooled over 3 folds, has 30 scans, test has 10 scans, fewer than 60" in text
    assert "F1 over 30 scans has a standard deviation near 0.35 / sqrt(30) = 0.06 (test, 10 scans: 0.11; 100" in text
    assert "0.35 / sqrt(20) = 0.08" in said(folded(80))  # validation is large enough, test is not
    assert "warning" not in said(folded(240))


def test_groups_are_counted_where_scans_are_not_independent():
    assert "0.35 / sqrt(30) = 0.06 (test, 10 scans: 0.11; 100 scans: 0.03). Two" in said(folded(40))
    grouped = folded(40, groups=["t", "a", "b", "c"])
    assert "100 scans: 0.03), and more as these are 3 independent groups only. Two" in said(grouped)


def test_silent_traces_are_counted():
    def silence(scans, labels):
        scans["s001"][2] = 0
        scans["s007"][1:4] = 2.5

    assert "silent traces: 4 in 2 scans hold one value only (s001: 1, s007: 3)" in said(built(change=silence))


def test_identical_scans_across_splits_are_a_warning():
    def within(scans, labels):
        scans["s001"] = scans["s000"].copy()

    def across(scans, labels):
        scans["s001"] = scans["s007"] = scans["s000"].copy()

    assert identical_scans(built(change=within)) == [("s000", "s001")]
    assert "1 sets of identical scans, each within a split" in describe(built(change=within))
    text = said(built(change=across))
    assert "warning: 1 sets of identical scans lie in different splits (s000 (train) = s007 (test)); what is" in text
    assert "give them one group (scans.csv)" in text


def test_a_split_without_positives_has_no_baseline():
    def negative(scans, labels):
        labels["s006"] = labels["s007"] = np.zeros(5, np.int8)

    assert "test              2          10          0    0.0%                   -" in describe(built(change=negative))
