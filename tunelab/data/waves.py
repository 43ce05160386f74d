"""What a ground-penetrating radar receives, in closed form: arrival times, amplitudes and the wavelet.

Rays in a uniform soil, no diffraction, no dispersion: enough for the shapes and the difficulties of B-scans, not for a
forward model. Lengths in metres, times in seconds, angles from the vertical. Sources: travel times and reflection
coefficients as in Daniels (ed.), Ground Penetrating Radar, 2nd ed., IEE 2004, and Annan, Practical Processing of GPR
Data, 1999; the wavelet as gprMax defines it (Warren, Giannopoulos and Giannakis 2016, Comput. Phys. Commun. 209:163).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]

LIGHT = 299_792_458.0
"""Speed of light, m/s."""


def ricker_delay(frequency: float) -> float:
    """Seconds from time zero to the peak of gprMax's Ricker wavelet, sqrt(2) / f."""
    return math.sqrt(2) / frequency


def ricker(t: Floats, frequency: float) -> Floats:
    """gprMax's Ricker wavelet: (1 - 2 z u^2) exp(-z u^2), z = (pi f)^2, u = t - sqrt(2)/f. Peak 1."""
    zu2 = (math.pi * frequency * (t - ricker_delay(frequency))) ** 2
    return np.asarray((1 - 2 * zu2) * np.exp(-zu2))


def speed(eps: float) -> float:
    """Speed in a soil of low loss, c / sqrt(eps), m/s."""
    return LIGHT / math.sqrt(eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A uniform soil, and the antennas over it."""

    eps: float
    """Relative permittivity."""
    sigma: float
    """Conductivity, S/m."""
    offset: float
    """Transmitter to receiver, m."""
    pattern: float = 1.0
    """Exponent of the antenna pattern."""

    @property
    def absorption(self) -> float:
        """Amplitude lost per metre, 188.5 sigma / sqrt(eps), Np/m: half the impedance of free space times sigma."""
        return 188.5 * self.sigma / math.sqrt(self.eps)


def reflection(eps: float, below: float | None) -> float:
    """Reflection coefficient (sqrt(e1) - sqrt(e2)) / (sqrt(e1) + sqrt(e2)) at normal incidence; -1 for metal (None)."""
    if below is None:
        return -1.0
    return (math.sqrt(eps) - math.sqrt(below)) / (math.sqrt(eps) + math.sqrt(below))


def cylinder(x: Floats, x0: Floats, depth: Floats, radius: Floats, ground: Ground) -> tuple[Floats, Floats]:
    """Echoes of cylinders that lie across the line.

    Path of each leg: from the antenna to the axis, less the radius (exact for the monostatic case). Amplitude of a
    unit reflector: geometrical optics of a convex mirror in two dimensions, 1 / sqrt(r1 + r2 + 2 r1 r2 / a), which
    tends to a plane's 1 / sqrt(r1 + r2) for a large radius a; times absorption; times cos(angle)^pattern a leg.

    Args:
        x: midpoints of transmitter and receiver, shape (trace,).
        x0: positions of the axes, shape (cylinder,).
        depth: depths of the axes, more than the radius, shape (cylinder,).
        radius: shape (cylinder,).
        ground: the soil, and the antennas over it.

    Returns:
        Arrival times after time zero without the wavelet's delay, and amplitudes, both (cylinder, trace).
    """
    across = x[None, :] - x0[:, None]
    axis = depth[:, None]
    far1, far2 = np.hypot(axis, across - ground.offset / 2), np.hypot(axis, across + ground.offset / 2)
    r1, r2 = far1 - radius[:, None], far2 - radius[:, None]
    amplitude = 1 / np.sqrt(r1 + r2 + 2 * r1 * r2 / radius[:, None])
    amplitude *= np.exp(-ground.absorption * (r1 + r2)) * (axis / far1 * axis / far2) ** ground.pattern
    return (r1 + r2) / speed(ground.eps), amplitude


def layer(depth: Floats, ground: Ground) -> tuple[Floats, Floats]:
    """Echo of an interface whose depth below each trace is given, shape (trace,): times and unit amplitudes."""
    path = 2 * np.hypot(depth, ground.offset / 2)
    return path / speed(ground.eps), np.exp(-ground.absorption * path) / np.sqrt(path)


def record(
    times: Floats,
    amplitudes: Floats,
    *,
    frequency: float,
    dt: float,
    n_samples: int,
    noise: float,
    rng: np.random.Generator,
) -> Floats:
    """Traces that sum a Ricker wavelet at every arrival, and noise through the receiver's band.

    Arrivals are parted between the two nearest points of a grid of 40 points or more a period, the grid is convolved
    with the wavelet by FFT and every k-th point kept: the cost does not grow with the number of reflectors times
    samples.

    Args:
        times: arrivals without the wavelet's delay, shape (reflector, trace).
        amplitudes: shape (reflector, trace).
        frequency: centre frequency, Hz.
        dt: seconds between samples.
        n_samples: samples of a trace.
        noise: root mean square of the noise, white from 0.3 to 2 times the centre frequency.
        rng: source of the noise.

    Returns:
        Shape (trace, sample).
    """
    n_traces = times.shape[1]
    every = max(1, math.ceil(dt * frequency * 40))
    step, n = dt / every, (n_samples - 1) * every + 1
    reach = np.arange(math.ceil(2 * ricker_delay(frequency) / step) + 1, dtype=np.float64)
    wavelet = ricker(reach * step, frequency)
    size = fft.next_fast_len(n + wavelet.size, real=True)

    at = times / step
    point = np.floor(at).astype(np.int64)
    share = at - point
    inside = (point >= 0) & (point < n - 1)
    flat = (np.arange(n_traces)[None, :] * size + point)[inside]
    weight = amplitudes[inside]
    grid = np.bincount(flat, weight * (1 - share[inside]), minlength=n_traces * size)
    grid += np.bincount(flat + 1, weight * share[inside], minlength=n_traces * size)
    spectrum = fft.rfft(grid.reshape(n_traces, size), axis=1) * fft.rfft(wavelet, size)

    hertz = fft.rfftfreq(size, step)
    band = np.flatnonzero((hertz >= 0.3 * frequency) & (hertz <= 2 * frequency))
    # irfft divides by the size and adds each bin to its mirror image: 2 K |X|^2 / size^2 is the mean square.
    scale = noise * size / math.sqrt(4 * max(1, band.size))
    draws = rng.standard_normal((2, n_traces, band.size))
    spectrum[:, band] += scale * (draws[0] + 1j * draws[1])
    return np.asarray(fft.irfft(spectrum, size, axis=1)[:, :n:every])


def drift(rng: np.random.Generator, n: int) -> Floats:
    """A slow random curve along the line: mean 0, standard deviation 1 over its draws, smooth over a fifth of it."""
    width = max(1, n // 5)
    return np.convolve(rng.standard_normal(n + width - 1), np.full(width, 1 / math.sqrt(width)), mode="valid")
