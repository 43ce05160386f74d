from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.resample import MOST_SAMPLES, resample_traces, resampled_dt
from tunelab.data.waves import ricker
from tunelab.errors import UsageError

WINDOW = 24e-9


def pulses(samples: int) -> np.ndarray:
    t = np.linspace(0, WINDOW, samples)
    return np.stack([ricker(t - late, 600e6) for late in (3e-9, 7.123e-9, 11e-9)]).astype(np.float32)


@pytest.mark.parametrize(("before", "after"), [(10_057, 1_700), (10_057, 160), (1_700, 512), (512, 400), (300, 1_700)])
def test_a_pulse_comes_out_as_if_recorded_at_the_other_rate(before, after):
    traces = pulses(before)
    kept = traces.copy()
    out = resample_traces(traces, after)
    assert out.shape == (3, after)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, pulses(after), atol=0.005)  # of a peak of 1
    assert np.array_equal(np.argmax(out, axis=1), np.argmax(pulses(after), axis=1))  # nothing is shifted
    np.testing.assert_array_equal(traces, kept)


def test_what_the_new_rate_cannot_hold_is_removed_not_folded():
    t = np.arange(4_000)
    fast = np.sin(2 * np.pi * 0.2 * t).astype(np.float32)[None]  # far above the new Nyquist frequency of 0.05
    out = resample_traces(fast, 400)
    assert np.abs(out[:, 40:-40]).max() < 1e-3
    assert np.abs(fast[:, 3::10]).max() > 0.5  # what picking every tenth sample would have left


def test_same_number_is_the_same_array_and_constants_stay_constant():
    traces = pulses(300)
    assert resample_traces(traces, 300) is traces
    out = resample_traces(np.full((2, 1_000), 3, np.float32), 77)
    np.testing.assert_allclose(out, 3, rtol=1e-5)


def test_shortest_traces_and_blocks_of_traces():
    assert resample_traces(np.array([[1, 3]], np.float32), 3).tolist() == [[1, 2, 3]]
    assert resample_traces(np.zeros((3, 5), np.float32), 2).shape == (3, 2)
    many = np.repeat(pulses(200)[:1], 600, axis=0)
    np.testing.assert_allclose(resample_traces(many, 90)[599], resample_traces(many[:1], 90)[0], atol=1e-6)


def test_interval_keeps_the_window():
    assert resampled_dt(2e-12, 10_057, 1_700) * 1_699 == pytest.approx(2e-12 * 10_056)


@pytest.mark.parametrize("samples", [1, 0, -3, MOST_SAMPLES + 1])
def test_numbers_out_of_range_are_refused(samples):
    with pytest.raises(UsageError, match=f"resample = {samples}: give a number of samples from 2 to 65,536"):
        resample_traces(np.zeros((1, 5), np.float32), samples)
