"""What a ground-penetrating radar receives, in closed form: arrival times, amplitudes and the wavelet.

Rays, no diffraction, no dispersion: enough for the shapes and the difficulties of B-scans, not for a forward model.
Here the soil is uniform; ``underground`` has the others. Lengths in metres, times in seconds, angles from the vertical.
Sources: travel times and reflection coefficients as in Daniels (ed.), Ground Penetrating Radar, 2nd ed., IEE 2004, and
Annan, Practical Processing of GPR Data, 1999; the wavelet as gprMax defines it (Warren, Giannopoulos and Giannakis
2016, Comput. Phys. Commun. 209:163).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """The ways from an antenna to the surfaces of reflectors, each of shape (reflector, trace)."""

    time: Floats
    """Seconds."""
    length: Floats
    """Metres."""
    loss: Floats
    """Absorption, Np."""
    cosine: Floats
    """Of the angle at the antenna."""


def straight(antenna: Floats, x0: Floats, depth: Floats, radius: Floats, ground: Ground) -> Leg:
    """Through a uniform soil to cylinders: to the axis, less the radius.

    Args:
        antenna: positions, shape (trace,).
        x0: positions of the axes, shape (cylinder,).
        depth: of the axes below the antenna, more than the radius, shape (cylinder, trace) or (cylinder, 1).
        radius: shape (cylinder,).
        ground: the soil.
    """
    far = np.hypot(depth, antenna[None, :] - x0[:, None])
    length = far - radius[:, None]
    time, loss = length / speed(ground.eps), ground.absorption * length
    return Leg(time=time, length=length, loss=loss, cosine=depth / far)


def echo(there: Leg, back: Leg, radius: Floats, ground: Ground) -> tuple[Floats, Floats]:
    """Arrival times and amplitudes of cylinders of unit reflectivity, both (cylinder, trace).

    Geometrical optics of a convex mirror in two dimensions, 1 / sqrt(r1 + r2 + 2 r1 r2 / a), which tends to a plane's
    1 / sqrt(r1 + r2) for a large radius a; times absorption; times cos(angle)^pattern a leg.
    """
    r1, r2 = there.length, back.length
    amplitude = np.exp(-there.loss - back.loss) / np.sqrt(r1 + r2 + 2 * r1 * r2 / radius[:, None])
    return there.time + back.time, amplitude * (there.cosine * back.cosine) ** ground.pattern


def cylinder(x: Floats, x0: Floats, depth: Floats, radius: Floats, ground: Ground) -> tuple[Floats, Floats]:
    """Echoes of cylinders that lie across the line in a uniform soil, the antennas on it.

    Path of each leg: from the antenna to the axis, less the radius (exact for the monostatic case).

    Args:
        x: midpoints of transmitter and receiver, shape (trace,).
        x0: positions of the axes, shape (cylinder,).
        depth: depths of the axes, more than the radius, shape (cylinder,).
        radius: shape (cylinder,).
        ground: the soil, and the antennas over it.

    Returns:
        Arrival times after time zero without the wavelet's delay, and amplitudes, both (cylinder, trace).
    """
    sides = (x - ground.offset / 2, x + ground.offset / 2)
    there, back = (straight(side, x0, depth[:, None], radius, ground) for side in sides)
    return echo(there, back, radius, ground)


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
    noise_reach: int = 1,
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
        noise_reach: traces over which the noise is correlated; neighbours share 1 - 1 / noise_reach of its power.

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
    draws = _running(rng.standard_normal((n_traces + noise_reach - 1, 2, band.size)), noise_reach).swapaxes(0, 1)
    spectrum[:, band] += scale * (draws[0] + 1j * draws[1])
    return np.asarray(fft.irfft(spectrum, size, axis=1)[:, :n:every])


def drift(rng: np.random.Generator, n: int, width: int | None = None) -> Floats:
    """A slow random curve along the line: mean 0, standard deviation 1 over its draws.

    Args:
        rng: source.
        n: traces.
        width: traces over which it is smooth; None: a fifth of all.
    """
    width = max(1, n // 5) if width is None else width
    return _running(rng.standard_normal(n + width - 1), width)


def _running(values: Floats, width: int) -> Floats:
    """Sums over ``width`` of the first axis, which keep the variance of independent numbers."""
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    return np.asarray((total[width:] - total[:-width]) / math.sqrt(width))
