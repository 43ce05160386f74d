from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.check import describe, f1_deviation, identical_scans, silent_traces
from tunelab.data.dataset import SPLITS, make_dataset


def built(n: int = 8, *, dt=1e-10, notes=()):
    rng = np.random.default_rng(0)
    traces = rng.standard_normal((n * 5, 11)).astype(np.float32)
    return make_dataset(
        traces=traces,
        labels=np.tile(np.array([0, 1, 0, 0, 0], np.int8), n),
        lengths=np.full(n, 5),
        scans=[f"s{i}" for i in range(n)],
        splits=sorted((SPLITS[i % 4] for i in range(n)), key=SPLITS.index),
        dt=dt,
        source="here",
        notes=notes,
    ), traces


def test_size_rate_splits_and_baseline():
    text = describe(built(notes=("something was left out",))[0])
    assert "data set      here" in text
    assert "scans         8 of 5 traces, 40 in all" in text
    assert "samples       11 a trace, 100 ps apart (10 GHz), 1 ns" in text
    assert "validation        2       10         2   20.0%               0.333" in text
    assert "all               8       40         8   20.0%               0.333" in text
    assert "note: something was left out" in text
    assert "no silent traces, no identical scans" in text
    assert "interval unknown or mixed" in describe(built(dt=None)[0])


def test_few_scans_are_warned_of_with_the_arithmetic():
    text = describe(built()[0])
    assert "tune has 2 scans, validation has 2 scans, test has 2 scans, fewer than 60" in text
    assert "near 0.35 / sqrt(2) = 0.25" in text
    assert "2 x sqrt(2) x 0.25 = 0.70 to be told apart" in text
    assert "warning" not in describe(built(240)[0])
    assert f1_deviation(4) == pytest.approx(0.18, abs=0.01)
    assert f1_deviation(100) == pytest.approx(0.03, abs=0.01)
    assert np.isnan(f1_deviation(0))


def test_silent_traces_are_counted():
    dataset, traces = built()
    traces[7] = 0
    traces[36:39] = 2.5
    assert silent_traces(dataset) == {"s1": 1, "s7": 3}
    assert "silent traces: 4 in 2 scans hold one value only (s1: 1, s7: 3)" in describe(dataset)


def test_identical_scans_across_splits_are_a_warning():
    dataset, traces = built()
    traces[5:10] = traces[:5]
    assert identical_scans(dataset) == [("s0", "s1")]
    assert "1 sets of identical scans, each within a split" in describe(dataset)
    traces[35:40] = traces[:5]
    text = describe(dataset)
    assert "warning: 1 sets of identical scans lie in different splits (s0 (train) = s1 (train) = s7 (test))" in text
    assert "give them one group (scans.csv)" in text


def test_a_split_without_positives_has_no_baseline():
    dataset, _ = built()
    labels = dataset.labels.copy()
    labels[30:] = 0
    text = describe(
        make_dataset(
            traces=dataset.traces,
            labels=labels,
            lengths=dataset.lengths,
            scans=dataset.scans,
            splits=dataset.splits,
            dt=None,
            source="here",
        )
    )
    assert "test              2       10         0    0.0%                   -" in text
