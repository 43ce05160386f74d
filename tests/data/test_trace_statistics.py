"""Statistics over traces: merged ones are those of all traces together, whatever lies between the scans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data import statistics as gathering
from tunelab.data.statistics import Statistics, combine, of_traces
from tunelab.errors import DataError
from tunelab.statistics import SILENT


def per_scan(scans: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = scans[0].shape[1]
    means = [s.mean(axis=0) if len(s) else np.full(width, np.nan) for s in scans]
    variances = [s.var(axis=0) if len(s) else np.full(width, np.nan) for s in scans]
    return np.array([len(s) for s in scans]), np.array(means), np.array(variances)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    st.integers(1, 5),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_merged_statistics_are_those_of_all_traces_together(counts, width, centre, spread, seed):
    rng = np.random.default_rng(seed)
    scans = [centre + rng.normal(rng.normal() * spread, spread, size=(n, width)) for n in counts]
    found = combine(*per_scan(scans))
    together = np.concatenate(scans)
    np.testing.assert_allclose(found.mean, together.mean(axis=0), rtol=1e-12, atol=1e-12 * spread)
    np.testing.assert_allclose(found.variance, together.var(axis=0), rtol=1e-6, atol=1e-9 * spread**2)
    pooled = found.pooled()
    np.testing.assert_allclose(pooled.mean, together.mean(), rtol=1e-12, atol=1e-12 * spread)
    np.testing.assert_allclose(pooled.variance, together.var(), rtol=1e-6, atol=1e-9 * spread**2)
    assert pooled.mean.shape == pooled.variance.shape == (width,)


def test_blocks_of_scans_do_not_show(monkeypatch):
    rng = np.random.default_rng(1)
    scans = [rng.normal(100 * i, 1 + i, size=(3 + i, 4)) for i in range(11)]
    scans[4] = scans[4][:0]
    at_once = combine(*per_scan(scans))
    monkeypatch.setattr(gathering, "_VALUES", 12)  # three scans
    blocked = combine(*per_scan(scans))
    np.testing.assert_allclose(blocked.mean, at_once.mean, rtol=1e-13)
    np.testing.assert_allclose(blocked.variance, at_once.variance, rtol=1e-13)
    together = of_traces(np.concatenate(scans))
    np.testing.assert_allclose(together.variance, at_once.variance, rtol=1e-12)


def test_of_traces_is_in_float64_and_changes_nothing():
    traces = np.random.default_rng(2).normal(1e4, 1, size=(5000, 3)).astype(np.float32)
    kept = traces.copy()
    traces.flags.writeable = False
    found = of_traces(traces)
    np.testing.assert_array_equal(traces, kept)
    np.testing.assert_allclose(found.mean, traces.mean(axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(found.variance, traces.astype(np.float64).var(axis=0), rtol=1e-10)
    assert found.mean.dtype == found.variance.dtype == np.float64


def test_no_trace_is_no_statistics():
    with pytest.raises(DataError, match="statistics of no trace: no scan has any; give at least one training scan"):
        combine([0, 0], np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="statistics of no trace"):
        of_traces(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(2,\) counts, means \(3, 4\)"):
        combine([1, 1], np.zeros((3, 4)), np.zeros((3, 4)))


def test_silent_samples_are_clamped_to_a_share_of_the_mean_variance():
    found = Statistics(mean=np.zeros(4), variance=np.array([4.0, 0.0, 1e-12, 4.0]))
    np.testing.assert_allclose(found.clamped().variance, [4, 2 * SILENT, 2 * SILENT, 4])
    np.testing.assert_array_equal(found.variance, [4, 0, 1e-12, 4])  # the caller's array
    np.testing.assert_array_equal(Statistics(mean=np.ones(3), variance=np.zeros(3)).clamped().variance, np.ones(3))


@pytest.mark.parametrize(
    ("mean", "variance", "message"),
    [
        (np.zeros(3), np.zeros(4), r"means \(3,\) and variances \(4,\)"),
        (np.zeros((1, 3)), np.zeros((1, 3)), "both are one a sample"),
        (np.array([np.nan]), np.ones(1), "must be finite"),
        (np.zeros(1), np.array([-1.0]), "no variance below zero"),
    ],
)
def test_statistics_that_are_none_are_refused(mean, variance, message):
    with pytest.raises(ValueError, match=message):
        Statistics(mean=mean, variance=variance)
