from __future__ import annotations

import numpy as np
import pytest

from tunelab.data import waves

GROUND = waves.Ground(eps=9.0, sigma=0.0, offset=0.0, pattern=0.0)


def test_speeds_absorption_and_reflections_are_those_of_the_tables():
    assert [round(waves.speed(e) / 1e9, 4) for e in (4, 9, 16, 80)] == [0.1499, 0.0999, 0.0749, 0.0335]
    db = 20 * np.log10(np.exp(waves.Ground(eps=9, sigma=0.01, offset=0).absorption))
    assert db == pytest.approx(5.46, abs=0.01)
    assert waves.reflection(9, None) == -1
    assert waves.reflection(9, 1) == pytest.approx(0.5)
    assert waves.reflection(9, 81) == pytest.approx(-0.5)
    assert waves.reflection(9, 9) == 0


def test_ricker_is_gprmax_s():
    t = np.linspace(0, 5e-9, 50_001)
    w = waves.ricker(t, 600e6)
    assert w.max() == pytest.approx(1)
    assert t[np.argmax(w)] == pytest.approx(2**0.5 / 600e6, abs=1e-13)
    assert w.min() == pytest.approx(-2 * np.exp(-1.5), abs=1e-6)
    assert abs(w[0]) < 1e-6 * 1e2


def test_hyperbola_of_a_cylinder():
    x = np.array([0.0, 0.3, 0.6])
    t, a = waves.cylinder(x, np.array([0.3]), np.array([0.4]), np.array([0.05]), GROUND)
    v = waves.speed(9)
    np.testing.assert_allclose(t[0], [2 * (0.5 - 0.05) / v, 2 * (0.4 - 0.05) / v, 2 * (0.5 - 0.05) / v])
    assert a[0, 0] == pytest.approx(a[0, 2])
    assert a[0, 1] == pytest.approx(1 / np.sqrt(0.7 + 2 * 0.35**2 / 0.05))
    patterned = waves.Ground(eps=9, sigma=0, offset=0, pattern=1)
    _, narrow = waves.cylinder(x, np.array([0.3]), np.array([0.4]), np.array([0.05]), patterned)
    np.testing.assert_allclose(narrow[0] / a[0], [0.8**2, 1, 0.8**2])


def test_antennas_apart_and_a_very_large_cylinder_is_a_layer():
    ground = waves.Ground(eps=4, sigma=0.01, offset=0.2, pattern=0)
    t, _ = waves.cylinder(np.array([0.1]), np.array([0.0]), np.array([0.5]), np.array([0.02]), ground)
    assert t[0, 0] == pytest.approx((np.hypot(0.5, 0.0) + np.hypot(0.5, 0.2) - 0.04) / waves.speed(4))
    flat = waves.Ground(eps=4, sigma=0.01, offset=0, pattern=0)
    t, a = waves.cylinder(np.zeros(1), np.zeros(1), np.array([1e6 + 0.5]), np.array([1e6]), flat)
    t2, a2 = waves.layer(np.array([0.5]), flat)
    assert t[0] == pytest.approx(t2, rel=1e-6)
    assert a[0] == pytest.approx(a2, rel=1e-3)


@pytest.mark.parametrize("samples", [160, 1_700, 10_057])
def test_recorded_wavelets_lie_where_the_formula_puts_them(samples):
    dt = 16e-9 / (samples - 1)
    times = np.array([[1e-9, 2.34567e-9], [8e-9, 15.9e-9]])
    amplitudes = np.array([[1.0, -2.0], [0.5, 3.0]])
    rng = np.random.default_rng(0)
    traces = waves.record(times, amplitudes, frequency=600e6, dt=dt, n_samples=samples, noise=0, rng=rng)
    t = np.arange(samples) * dt
    expected = sum(
        a[:, None] * waves.ricker(t[None] - u[:, None], 600e6) for u, a in zip(times, amplitudes, strict=True)
    )
    np.testing.assert_allclose(traces, expected, atol=0.01)


def test_arrivals_outside_the_window_are_lost_not_wrapped():
    times = np.array([[-1e-9, 50e-9]])
    rng = np.random.default_rng(0)
    traces = waves.record(times, np.ones((1, 2)), frequency=6e8, dt=1e-10, n_samples=160, noise=0, rng=rng)
    assert np.abs(traces).max() < 1e-12


def test_noise_has_the_power_and_the_band_asked_for():
    none = np.zeros((0, 400))
    rng = np.random.default_rng(0)
    traces = waves.record(none, none, frequency=600e6, dt=1e-10, n_samples=1_001, noise=0.3, rng=rng)
    assert np.sqrt(np.mean(traces**2)) == pytest.approx(0.3, rel=0.02)
    power = np.mean(np.abs(np.fft.rfft(traces * np.hanning(1_001), axis=1)) ** 2, axis=0)
    hertz = np.fft.rfftfreq(1_001, 1e-10)
    inside = (hertz > 0.2e9) & (hertz < 1.15e9)
    assert power[~((hertz > 0.15e9) & (hertz < 1.25e9))].max() < 1e-3 * power[inside].mean()


def test_noise_may_be_alike_in_neighbouring_traces():
    none = np.zeros((0, 2_000))
    rng = np.random.default_rng(0)
    traces = waves.record(none, none, frequency=600e6, dt=1e-10, n_samples=201, noise=0.3, rng=rng, noise_reach=4)
    assert np.sqrt(np.mean(traces**2)) == pytest.approx(0.3, rel=0.03)
    for apart, alike in ((1, 0.75), (2, 0.5), (4, 0.0)):
        found = np.mean(traces[apart:] * traces[:-apart]) / np.mean(traces**2)
        assert found == pytest.approx(alike, abs=0.02)


def test_drift_is_slow_and_of_unit_size():
    curves = np.array([waves.drift(np.random.default_rng(i), 100) for i in range(400)])
    assert curves.std() == pytest.approx(1, rel=0.05)
    assert np.diff(curves, axis=1).std() < 0.4
    assert waves.drift(np.random.default_rng(0), 1).shape == (1,)
    assert waves.drift(np.random.default_rng(0), 5, 40).shape == (5,)
