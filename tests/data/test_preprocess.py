"""What chains make of scans: shapes and times, and that each step does what it is for and nothing else."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.preprocess import apply, outcome
from tunelab.data.resample import resample_traces
from tunelab.data.waves import ricker, ricker_delay
from tunelab.errors import DataError
from tunelab.preprocessing import Preprocessing, chain_in, thinned

DT = 20e-12
N = 1201  # 24 ns
TIMES = np.arange(N) * DT * 1e9  # ns


def chain(**steps) -> Preprocessing:
    return Preprocessing.model_validate(steps)


def pulse(at: float, frequency: float = 600e6) -> np.ndarray:
    """A Ricker with its peak at a time in ns."""
    return ricker((TIMES - at) * 1e-9 + ricker_delay(frequency), frequency)


def hyperbola(traces: int = 41, apex: float = 8, spread: float = 0.25) -> np.ndarray:
    """An echo whose time grows away from the middle trace, shape (trace, sample)."""
    off = (np.arange(traces) - traces // 2) * spread
    return np.stack([pulse(np.hypot(apex, o * 2)) for o in off]).astype(np.float32)


# Shape and time.

CHAINS = st.fixed_dictionaries(
    {},
    optional={
        "dewow": st.floats(0.01, 60),
        "window": st.tuples(st.floats(0, 20), st.floats(0.001, 30)).map(lambda w: [w[0], w[0] + w[1]]),
        "background": st.sampled_from(["none", "scan", 3, 7]),
        "gain": st.floats(0, 3),
        "compression": st.floats(0, 100),
    },
)
DECIMATION = st.one_of(
    st.just({}), st.builds(dict, samples=st.integers(2, 130)), st.builds(dict, rate=st.floats(0.01, 80))
)


@given(
    CHAINS,
    DECIMATION,
    st.integers(2, 120),
    st.one_of(st.none(), st.floats(1e-12, 1e-9)),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_outcome_and_apply_agree_on_every_chain(steps, decimation, samples, dt, traces, channels):
    tried = chain(**steps, **decimation)
    given_traces = np.random.default_rng(0).normal(size=(traces, samples * channels)).astype(np.float32)
    refused = ""
    try:
        said, step = outcome(samples * channels, dt, tried, channels=channels)
    except DataError as error:
        refused = str(error)
    if refused:
        with pytest.raises(DataError) as caught:
            apply(given_traces, dt, tried, channels=channels)
        assert str(caught.value) == refused
        return
    out = apply(given_traces, dt, tried, channels=channels)
    assert out.shape == (traces, said)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert (step is None) == (dt is None)
    assert 2 <= said // channels <= samples
    if dt is not None and step is not None:
        assert step >= dt
        span = (said // channels - 1) * step * 1e9
        start, end = tried.window or (0, np.inf)
        assert span <= min(end - start, (samples - 1) * dt * 1e9) * (1 + 1e-6)
        if tried.rate is not None:
            assert step * 1e9 >= min(1 / tried.rate, dt * 1e9) * (1 - 1e-6) or step == dt
    if channels == 2:
        apart = [apply(np.ascontiguousarray(half), dt, tried) for half in np.split(given_traces, 2, axis=1)]
        np.testing.assert_array_equal(out, np.concatenate(apart, axis=1))


def test_what_changes_nothing_gives_the_very_array():
    traces = hyperbola()
    for nothing in (chain(), chain(window=[0, 24]), chain(samples=N), chain(rate=50), chain(rate=1e9, window=[0, 24])):
        assert apply(traces, DT, nothing) is traces
        assert outcome(N, DT, nothing) == (N, DT)
    assert apply(traces, None, chain()) is traces


@pytest.mark.parametrize(
    "steps",
    [
        {"dewow": 4},
        {"window": [2, 20]},
        {"samples": 212},
        {"rate": 8},
        {"background": "scan"},
        {"background": 7},
        {"gain": 1.5},
        {"compression": 20.0},
        {"dewow": 4, "window": [2, 20], "samples": 212, "background": 7, "gain": 1.5},
    ],
)
def test_the_callers_array_is_never_changed(steps):
    traces = hyperbola()
    kept = traces.copy()
    traces.flags.writeable = False
    out = apply(traces, DT, chain(**steps))
    np.testing.assert_array_equal(traces, kept)
    assert not np.shares_memory(out, traces)
    assert out.flags.writeable


def test_times_of_windows_and_rates():
    assert outcome(N, DT, chain(samples=212)) == (212, pytest.approx(24e-9 / 211))
    assert outcome(N, DT, chain(window=[4, 16])) == (601, DT)
    assert outcome(N, DT, chain(window=[4, 16], samples=101)) == (101, pytest.approx(12e-9 / 100))
    assert outcome(N, DT, chain(rate=5)) == (121, pytest.approx(0.2e-9))
    assert outcome(N, DT, chain(rate=5.3)) == (128, pytest.approx(24e-9 / 127))  # at most 5.3
    assert outcome(3 * N, None, chain(samples=212, background="scan", gain=1), channels=3) == (636, None)
    # the last sample lasts as long as the others: a window may be given as samples times dt
    assert outcome(N, DT, chain(window=[0, 24.02])) == (N, DT)


@pytest.mark.parametrize(
    ("steps", "dt", "message"),
    [
        (
            {"dewow": 4},
            None,
            r"preprocessing\.dewow is in time, and the time .* unknown .*; write dt into the files, or",
        ),
        ({"window": [1, 2]}, None, r"preprocessing\.window is in time"),
        ({"rate": 5}, None, r"preprocessing\.rate is in time"),
        (
            {"window": [2, 30]},
            DT,
            r"window: 2 to 30 ns, but the recording ends at 24 ns \(1201 samples of 0\.02 ns\); end",
        ),
        ({"window": [24.01, 24.02]}, DT, r"window: \(24\.01, 24\.02\) ns holds 0 of 1201 samples .* widen it"),
        ({"window": [2.001, 2.03]}, DT, r"window: .* holds 1 of 1201 samples of 0\.02 ns; 2 are the fewest, widen it"),
        ({"samples": 1202}, DT, r"samples: 1202 is more than the 1201 samples that the window holds; .* take 1201 or"),
        ({"samples": 602, "window": [4, 16]}, DT, r"samples: 602 is more than the 601 samples that the window holds"),
        ({"rate": 0.01}, DT, r"rate: 0\.01 GHz leaves 1 sample of a window of 24 ns; take at least 0\.0417 GHz"),
        ({"dewow": 0.03}, DT, r"dewow: a mean over 0\.03 ns is one over 1\.5 samples of 0\.02 ns.*at least 0\.06 ns"),
    ],
)
def test_chains_that_do_not_fit_a_recording_are_refused_with_the_remedy(steps, dt, message):
    with pytest.raises(DataError, match=message):
        outcome(N, dt, chain(**steps))
    with pytest.raises(DataError, match=message):
        apply(np.zeros((2, N), np.float32), dt, chain(**steps))


def test_channels_must_be_of_one_length():
    with pytest.raises(DataError, match="1201 samples are not 2 channels of one length"):
        outcome(N, DT, chain(gain=1), channels=2)


# Window and decimation.


@pytest.mark.parametrize("steps", [{"samples": 241}, {"rate": 10}, {"window": [2, 22], "samples": 201}])
def test_the_peak_of_a_pulse_does_not_move(steps):
    at = np.array([5.0, 9.3, 15.2])  # all on the new samples, 0.1 ns apart
    traces = np.stack([pulse(t) for t in at]).astype(np.float32)
    out = apply(traces, DT, chain(**steps))
    _, dt = outcome(N, DT, chain(**steps))
    start = steps.get("window", [0])[0]
    np.testing.assert_allclose(start + np.argmax(out, axis=1) * dt * 1e9, at, atol=1e-6)
    np.testing.assert_allclose(out.max(axis=1), traces.max(axis=1), rtol=0.002)


@pytest.mark.parametrize("share", [1.0, 1.3, 2.0, 4.0])
def test_what_lies_above_the_new_nyquist_frequency_is_46_db_down(share):
    step = 1200 / 240
    cycles = share * 0.5 / step  # a sample
    tone = np.sin(2 * np.pi * cycles * np.arange(N) + 0.5).astype(np.float32)[None]
    out = apply(tone, DT, chain(samples=241))[:, 40:-40]
    assert 20 * np.log10(np.sqrt(2 * np.mean(out.astype(float) ** 2))) < -46
    low = np.sin(2 * np.pi * 0.5 * 0.5 / step * np.arange(N)).astype(np.float32)[None]  # half of it passes whole
    passed = apply(low, DT, chain(samples=241))[:, 40:-40]
    assert 20 * np.log10(np.sqrt(2 * np.mean(passed.astype(float) ** 2))) == pytest.approx(0, abs=0.1)


def test_without_a_window_it_is_the_resampling_of_the_reader():
    traces = hyperbola()
    np.testing.assert_array_equal(apply(traces, None, chain(samples=212)), resample_traces(traces, 212))


def test_a_window_is_cut_from_what_decimation_of_the_whole_gives():
    """The low-pass sees the whole trace: no edge of a window rings."""
    traces = hyperbola() + np.linspace(0, 5, N, dtype=np.float32)
    whole = apply(traces, DT, chain(samples=241))
    cut = apply(traces, DT, chain(window=[6, 12], samples=61))
    np.testing.assert_allclose(cut, whole[:, 60:121], atol=1e-5)
    np.testing.assert_array_equal(apply(traces, DT, chain(window=[6, 12])), traces[:, 300:601])


def test_a_window_between_samples_keeps_those_inside():
    traces = hyperbola()
    np.testing.assert_array_equal(apply(traces, DT, chain(window=[5.99, 12.01])), traces[:, 300:601])


# Dewow.


def test_dewow_removes_a_slow_drift_and_keeps_the_pulse():
    alone = pulse(12)
    drift = 40 * np.exp(-TIMES / 30) + 3 * TIMES
    out = apply((alone + drift).astype(np.float32)[None], DT, chain(dewow=4))[0]
    inside = slice(150, -150)
    assert np.abs(drift[inside]).min() > 40
    assert np.abs(out - alone)[inside].max() < 0.1  # of a peak of 1
    assert abs(int(np.argmax(out[inside])) - int(np.argmax(alone[inside]))) == 0


def test_dewow_at_the_ends_takes_the_mean_of_what_there_is():
    trace = np.random.default_rng(1).normal(size=(1, 9)).astype(np.float32)
    expected = [trace[0, i] - trace[0, max(i - 2, 0) : i + 3].astype(float).mean() for i in range(9)]
    np.testing.assert_allclose(apply(trace, 1e-9, chain(dewow=5))[0], expected, rtol=1e-6, atol=1e-7)
    wide = apply(trace, 1e-9, chain(dewow=1e12))[0]
    np.testing.assert_allclose(wide, trace[0] - trace[0].astype(float).mean(), rtol=1e-6, atol=1e-7)


# Background.


@pytest.mark.parametrize("over", ["scan", 11])
def test_a_constant_band_goes_exactly(over):
    band = (1e4 * pulse(2)).astype(np.float32)
    assert np.abs(band).max() > 9e3
    out = apply(np.tile(band, (37, 1)), DT, chain(background=over))
    assert not out.any()


def test_background_removal_keeps_a_hyperbola_off_its_apex():
    echo = hyperbola(traces=81)
    traces = echo + (1000 * pulse(2)).astype(np.float32)
    out = apply(traces, DT, chain(background="scan"))
    for trace in (10, 25, 55, 70):
        late = slice(350, None)  # after the direct wave
        peak = int(np.argmax(echo[trace, late]))
        assert out[trace, late][peak] == pytest.approx(echo[trace, late][peak], rel=0.15)
    assert np.abs(out[:, :200]).max() < 1e-3 * np.abs(traces[:, :200]).max()


def test_a_moving_background_is_the_mean_of_the_nearest_traces_also_at_the_ends():
    traces = np.random.default_rng(2).normal(size=(12, 70)).astype(np.float32)
    out = apply(traces, None, chain(background=5))
    for i in range(12):
        low = min(max(i - 2, 0), 7)  # always five
        expected = traces[i] - traces[low : low + 5].astype(float).mean(axis=0)
        np.testing.assert_allclose(out[i], expected, rtol=1e-5, atol=1e-6)


def test_a_scan_shorter_than_the_moving_window_is_treated_as_a_whole():
    traces = hyperbola(traces=8)
    np.testing.assert_array_equal(apply(traces, DT, chain(background=31)), apply(traces, DT, chain(background="scan")))


def test_a_single_trace_cannot_be_told_from_its_background():
    trace = hyperbola(traces=1)
    for over in ("scan", 31):
        assert not apply(trace, DT, chain(background=over)).any()
    out = apply(trace, DT, chain(dewow=4, samples=212, gain=1.5))
    assert out.shape == (1, 212)
    assert np.abs(out).max() > 0.01


def test_background_is_the_last_but_one_step():
    """After decimation, before gain: the order of the schema, whatever the order of the keys."""
    traces = hyperbola() * np.random.default_rng(3).uniform(0.5, 1.5, (41, 1)).astype(np.float32)
    at_once = apply(traces, DT, chain(gain=1.5, background="scan", samples=212, window=[2, 22], dewow=4))
    stepwise, dt = traces, DT
    for step in ({"dewow": 4}, {"window": [2, 22], "samples": 212}, {"background": "scan"}):
        _, after = outcome(stepwise.shape[1], dt, chain(**step))
        stepwise, dt = apply(stepwise, dt, chain(**step)), after
    times = np.linspace(2, 22, 212)
    np.testing.assert_allclose(at_once, stepwise * (times / 22) ** 1.5, rtol=1e-4, atol=1e-6)


# Gain.


def test_gain_is_exact():
    traces = np.random.default_rng(4).normal(size=(600, N)).astype(np.float32)  # more than a block
    out = apply(traces, DT, chain(gain=1.5))
    np.testing.assert_array_equal(out, (traces * (np.arange(N) / (N - 1)) ** 1.5).astype(np.float32))
    np.testing.assert_array_equal(out[:, -1], traces[:, -1])
    windowed = apply(traces[:3], DT, chain(gain=2, window=[6, 12]))
    np.testing.assert_allclose(windowed, traces[:3, 300:601] * (TIMES[300:601] / 12) ** 2, rtol=1e-6)


def test_blocks_do_not_show():
    many = np.repeat(hyperbola(traces=3), 1200, axis=0)
    steps = chain(dewow=4, samples=212, gain=1)
    np.testing.assert_array_equal(apply(many, DT, steps)[-1], apply(many[-1:], DT, steps)[0])


# Compression.


def test_compression_is_exact_and_comes_last():
    traces = np.random.default_rng(4).normal(3, 5, size=(600, N)).astype(np.float32)  # more than a block
    out = apply(traces, DT, chain(compression=20.0))
    wide = traces.astype(np.float64)
    np.testing.assert_allclose(out, np.arcsinh(20 * wide / np.sqrt(np.square(wide).mean())) / np.arcsinh(20), rtol=1e-6)
    both = apply(traces, DT, chain(compression=20.0, gain=1.5))
    np.testing.assert_allclose(both, apply(apply(traces, DT, chain(gain=1.5)), DT, chain(compression=20.0)), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_compression_brings_scans_of_whatever_level_to_one(scale):
    traces = hyperbola()
    np.testing.assert_allclose(
        apply((traces.astype(np.float64) * scale).astype(np.float32), DT, chain(compression=20.0)),
        apply(traces, DT, chain(compression=20.0)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_compression_far_below_one_levels_alone():
    traces = hyperbola()
    level = np.sqrt(np.square(traces.astype(np.float64)).mean())
    np.testing.assert_allclose(apply(traces, DT, chain(compression=1e-3)), traces / level, rtol=1e-3, atol=1e-9)


def test_compression_keeps_order_and_sign_and_leaves_silence():
    traces = np.array([[-4, -1, 0, 0.01, 2, 50]], np.float32)
    (out,) = apply(traces, None, chain(compression=100.0))
    assert (np.diff(out) > 0).all()
    assert out[2] == 0
    assert out[5] / out[3] < 5000 / 10  # what was 5,000 times as strong
    assert not apply(np.zeros((3, 9), np.float32), None, chain(compression=5.0)).any()


def test_each_channel_is_compressed_by_its_own_level():
    one, other = hyperbola(), 1000 * hyperbola()[::-1]
    joined = apply(np.concatenate([one, other], axis=1), DT, chain(compression=10.0), channels=2)
    np.testing.assert_array_equal(joined[:, :N], apply(one, DT, chain(compression=10.0)))
    np.testing.assert_array_equal(joined[:, N:], apply(np.ascontiguousarray(other), DT, chain(compression=10.0)))


# Real scans.


def late_share(traces: np.ndarray) -> float:
    """Share of the energy in the second half of the time."""
    energy = np.square(traces.astype(np.float64)).sum(axis=0)
    return float(energy[len(energy) // 2 :].sum() / energy.sum())


def test_a_usual_chain_brings_out_what_is_late_in_simulated_scans(gprmax_small: Path):
    usual = chain(samples=212, background="scan", gain=1.5)
    gains = []
    for path in sorted((gprmax_small / "scans").glob("dev0*_merged.out"))[:8]:
        with h5py.File(path) as file:
            dt = float(file.attrs["dt"])
            traces = np.ascontiguousarray(file["rxs/rx1/Ez"][...].T)
        out = apply(traces, dt, usual)
        assert out.shape == (len(traces), 212)
        assert outcome(traces.shape[1], dt, usual) == (212, pytest.approx(dt * (traces.shape[1] - 1) / 211))
        gains.append(late_share(out) / late_share(traces))
    assert len(gains) == 8
    assert min(gains) > 30


# Thinning, for trials at a lower fidelity.


@pytest.mark.parametrize(
    ("steps", "factor", "samples"),
    [({}, 4, 301), ({}, 7, 172), ({"samples": 101}, 4, 26), ({"rate": 10}, 2, 121), ({"window": [2, 10]}, 4, 101)],
)
def test_a_thinned_chain_reads_the_same_window_at_every_so_many_samples(steps, factor, samples):
    whole, thin = chain(**steps), thinned(chain(**steps), factor)
    traces = hyperbola()
    before, after = apply(traces, DT, whole), apply(traces, DT, thin)
    assert after.shape[1] == samples == outcome(N, DT, thin)[0]
    step = (before.shape[1] - 1) / (samples - 1)
    assert outcome(N, DT, thin)[1] == pytest.approx(outcome(N, DT, whole)[1] * step)
    if step == factor and before.shape[1] > 1000:  # far below the new limit of frequency the low-pass takes nothing
        assert np.abs(after - before[:, ::factor]).max() < 0.02 * np.abs(before).max()
    assert (thin != whole, thin.is_identity, thin.thinning, whole.thinning) == (True, False, factor, 1)
    said = "" if whole.is_identity else f"{whole.describe()}, "
    assert thin.describe() == f"{said}thinned by {factor}"
    assert thin.canonical() != whole.canonical()
    assert chain_in(thin.model_dump(mode="json", exclude_defaults=True)) == thin
    assert chain_in(whole.model_dump(mode="json", exclude_defaults=True)) == whole


def test_channels_are_thinned_each_within_itself():
    traces = hyperbola()
    joined = apply(np.concatenate([traces, 2 * traces], axis=1), DT, thinned(chain(), 4), channels=2)
    alone = apply(traces, DT, thinned(chain(), 4))
    assert np.allclose(joined, np.concatenate([alone, 2 * alone], axis=1), rtol=1e-5, atol=1e-7)


def test_thinning_changes_nothing_by_1_and_leaves_two_samples_at_least():
    assert thinned(chain(samples=9), 1) == chain(samples=9)
    assert outcome(N, DT, thinned(chain(samples=9), 8))[0] == 2
    with pytest.raises(
        DataError, match=r"fidelity\.decimation: 9 leaves 1 of 9 samples, and 2 are the fewest; thin by 8"
    ):
        outcome(N, DT, thinned(chain(samples=9), 9))


def test_no_params_name_a_thinned_chain():
    with pytest.raises(ValueError, match="thin"):
        chain(thin=4)
