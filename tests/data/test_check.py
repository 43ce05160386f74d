from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.check import describe, f1_deviation, identical_scans
from tunelab.data.dataset import SPLITS, make_dataset


def built(n: int = 8, *, dt=1e-10, notes=(), change=None):
    rng = np.random.default_rng(0)
    scans = {f"s{i:03}": rng.standard_normal((5, 11)).astype(np.float32) for i in range(n)}
    labels = {scan: np.array([0, 1, 0, 0, 0], np.int8) for scan in scans}
    splits = dict(zip(scans, sorted((SPLITS[i % 4] for i in range(n)), key=SPLITS.index), strict=True))
    if change is not None:
        change(scans, labels)
    return make_dataset(scans=scans, labels=labels, splits=splits, dt=dt, source="here", notes=notes)


def test_size_rate_splits_and_baseline():
    text = describe(built(notes=("something was left out",)))
    assert "data set      here" in text
    assert "scans         8 of 5 traces, 40 in all" in text
    assert "samples       11 a trace, 100 ps apart (10 GHz), 1 ns" in text
    assert "validation        2       10         2   20.0%               0.333" in text
    assert "all               8       40         8   20.0%               0.333" in text
    assert "note: something was left out" in text
    assert "no silent traces, no identical scans" in text
    assert "interval unknown or mixed" in describe(built(dt=None))


def test_few_scans_are_warned_of_with_the_arithmetic():
    text = describe(built())
    assert "tune has 2 scans, validation has 2 scans, test has 2 scans, fewer than 60" in text
    assert "near 0.35 / sqrt(2) = 0.25" in text
    assert "2 x sqrt(2) x 0.25 = 0.70 to be told apart" in text
    assert "warning" not in describe(built(240))
    assert f1_deviation(4) == pytest.approx(0.18, abs=0.01)
    assert f1_deviation(100) == pytest.approx(0.03, abs=0.01)
    assert np.isnan(f1_deviation(0))


def test_silent_traces_are_counted():
    def silence(scans, labels):
        scans["s001"][2] = 0
        scans["s007"][1:4] = 2.5

    assert "silent traces: 4 in 2 scans hold one value only (s001: 1, s007: 3)" in describe(built(change=silence))


def test_identical_scans_across_splits_are_a_warning():
    def within(scans, labels):
        scans["s001"] = scans["s000"].copy()

    def across(scans, labels):
        scans["s001"] = scans["s007"] = scans["s000"].copy()

    assert identical_scans(built(change=within)) == [("s000", "s001")]
    assert "1 sets of identical scans, each within a split" in describe(built(change=within))
    text = describe(built(change=across))
    assert "warning: 1 sets of identical scans lie in different splits (s000 (train) = s001 (train) = s007 (te" in text
    assert "give them one group (scans.csv)" in text


def test_a_split_without_positives_has_no_baseline():
    def negative(scans, labels):
        labels["s006"] = labels["s007"] = np.zeros(5, np.int8)

    assert "test              2       10         0    0.0%                   -" in describe(built(change=negative))
