"""Drawing scans at random: the soil, what lies in it, and what the radar receives. ``waves`` has the formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.data import waves
from tunelab.errors import UsageError, did_you_mean

LABEL_MARGIN = 0.04
"""A trace is positive within radius + this many metres of an object's axis, as in gprMax's small data set."""

FILLS: dict[str, float | None] = {
    "metal": None,
    "air_void": 1.0,
    "water_void": 81.0,
    "pvc_air": 1.0,
    "pvc_water": 81.0,
    "pvc_solid": 3.0,
    "concrete": 7.0,
}
"""Relative permittivity of what fills each kind of object; None for metal. Thin walls of pipes are left out."""

_SCALE = 100.0  # amplitudes of the order of gprMax's V/m


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSettings:
    """Size and difficulty of a synthetic data set."""

    scans: int = 120
    """Number of scans; four at least, one a split."""
    traces: int = 48
    """Most traces of a scan."""
    samples: int = 160
    """Samples of a trace; the window stays, so more samples are closer together."""
    shortest: float = 1.0
    """Traces of the shortest scan as a share of ``traces``; lengths are drawn evenly from there to ``traces``."""
    seed: int = 0
    """Fixes everything."""
    window: float = 16e-9
    """Seconds from the first sample to the last."""
    frequency: tuple[float, float] = (400e6, 900e6)
    """Range of the centre frequency, Hz."""
    offset: tuple[float, float] = (0.06, 0.16)
    """Range of the distance from transmitter to receiver, m; one instrument has one."""
    eps: tuple[float, float] = (4.0, 15.0)
    """Range of the soil's relative permittivity."""
    sigma: tuple[float, float] = (0.001, 0.02)
    """Range of the soil's conductivity, S/m."""
    kinds: tuple[str, ...] = tuple(FILLS)
    """Kinds of objects, keys of :data:`FILLS`."""
    cover: tuple[float, float] = (0.1, 0.7)
    """Range of the depth of an object's top, m; cut where the echo would come after four fifths of the window."""
    radius: tuple[float, float] = (0.01, 0.1)
    """Range of an object's radius, m."""
    objects: tuple[float, float, float] = (0.19, 0.64, 0.17)
    """Chance of none, one and two objects in a scan."""
    noise_db: float = 20.0
    """Peak of the reference echo over the root mean square of the noise, dB. Reference: a metal cylinder of 5 cm radius
    whose top lies 30 cm under the antenna, in the scan's own soil."""
    direct_db: tuple[float, float] = (20.0, 60.0)
    """Range of the direct wave's peak over the reference echo, dB."""
    stones: float = 6.0
    """Mean number of stones in a scan: weak hyperbolas of 5 to 30 % of a metal object's echo."""
    layers: float = 0.5
    """Chance of an interface, flat or dipping, under the line."""
    jitter: float = 0.005
    """Standard deviation of each trace's time zero, in periods of the wavelet."""
    gain_drift: float = 0.01
    """Standard deviation of the slow change of gain along the line."""
    wow: float = 0.02
    """Peak of the slow decay under every trace, as a share of the direct wave."""

    def __post_init__(self) -> None:
        for name, least in (("scans", 4), ("traces", 1), ("samples", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} = {getattr(self, name)}: at least {least}")
        for name in ("frequency", "offset", "eps", "sigma", "cover", "radius", "direct_db"):
            low, high = getattr(self, name)
            floor = {"sigma": 0.0, "direct_db": -math.inf}.get(name, 1e-12)
            if not (math.isfinite(low) and math.isfinite(high) and floor <= low <= high):
                raise UsageError(f"{name} = {(low, high)}: two positive numbers, the lower one first")
        for name in ("stones", "layers", "jitter", "gain_drift", "wow", "noise_db"):
            value = getattr(self, name)
            if not math.isfinite(value) or (value < 0 and name != "noise_db"):
                raise UsageError(f"{name} = {value}: a number from 0 up")
        if not 0 < self.shortest <= 1:
            raise UsageError(f"shortest = {self.shortest}: a share above 0 and up to 1")
        if min(self.objects) < 0 or not math.isclose(sum(self.objects), 1):
            raise UsageError(f"objects = {self.objects}: three chances that add up to 1, not {sum(self.objects):g}")
        for kind in self.kinds:
            if kind not in FILLS:
                raise UsageError(f"kinds: {kind!r} is no kind of object{did_you_mean(kind, FILLS)}")
        if not self.kinds:
            raise UsageError("kinds: at least one kind of object")
        if not self.dt <= 1 / (4 * self.frequency[1]):
            least = math.ceil(self.window * 4 * self.frequency[1]) + 1
            raise UsageError(
                f"samples = {self.samples}: {self.dt:.3g} s apart, but a wavelet of {self.frequency[1]:.3g} Hz needs "
                f"4 a period; give {least} or more, or a shorter window"
            )

    @property
    def dt(self) -> float:
        """Seconds between samples."""
        return self.window / (self.samples - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buried:
    """An object under the line; lengths in metres."""

    kind: str
    x: float
    cover: float
    """Depth of the top."""
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scan with its labels and what it was made from; units as in the settings."""

    id: str
    traces: NDArray[np.float32]
    labels: NDArray[np.int8]
    x: NDArray[np.float64]
    """Midpoint of the antennas, shape (trace,)."""
    ground: waves.Ground
    frequency: float
    step: float
    objects: tuple[Buried, ...]


def scenes(settings: SyntheticSettings) -> Iterator[Scene]:
    """The scans one after another; each depends on the settings and its number alone."""
    width = len(str(settings.scans - 1))
    for i in range(settings.scans):
        yield _scan(settings, f"syn{i:0{max(3, width)}d}", np.random.default_rng([settings.seed, i]))


def _scan(settings: SyntheticSettings, name: str, rng: np.random.Generator) -> Scene:
    ranges = (settings.eps, settings.sigma, settings.frequency, settings.offset)
    eps, sigma, frequency, offset = (float(rng.uniform(*r)) for r in ranges)
    ground = waves.Ground(eps=eps, sigma=sigma, offset=offset)
    step = float(rng.uniform(1.1, 2.1)) / settings.traces
    n = int(rng.integers(math.ceil(settings.shortest * settings.traces), settings.traces + 1))
    x = offset / 2 + step * np.arange(n, dtype=np.float64)
    objects = _objects(settings, x, eps, frequency, rng)

    reference = waves.cylinder(np.zeros(1), np.zeros(1), np.full(1, 0.35), np.full(1, 0.05), ground)[1].item()
    direct = reference * 10 ** (rng.uniform(*settings.direct_db) / 20)
    times, amplitudes = _direct(direct, eps, offset, frequency, n)
    for o in objects:
        _add(times, amplitudes, *_echo(o, x, ground))
    stones = rng.poisson(settings.stones)
    if stones:
        place = rng.uniform(x[0] - 0.2, x[-1] + 0.2, stones), rng.uniform(0.08, 0.8, stones)
        t, a = waves.cylinder(x, *place, np.full(stones, 0.05), ground)
        a *= (rng.uniform(0.05, 0.3, stones) * rng.choice([-1, 1], stones))[:, None]
        _add(times, amplitudes, t, a)
    if rng.random() < settings.layers:
        depth = rng.uniform(0.3, 0.9) + rng.uniform(-0.15, 0.15) * (x - x.mean()) + 0.01 * waves.drift(rng, n)
        t, a = waves.layer(np.maximum(depth, 0.1), ground)
        _add(times, amplitudes, t[None], a[None] * waves.reflection(eps, rng.uniform(*settings.eps)))

    all_times = np.concatenate(times) + settings.jitter / frequency * rng.standard_normal(n)
    noise = reference * 10 ** (-settings.noise_db / 20)
    traces = waves.record(
        all_times,
        np.concatenate(amplitudes),
        frequency=frequency,
        dt=settings.dt,
        n_samples=settings.samples,
        noise=noise,
        rng=rng,
    )
    decay = np.exp(-3 * np.arange(settings.samples) / settings.samples)
    traces += settings.wow * direct * (1 + 0.1 * waves.drift(rng, n))[:, None] * decay
    traces *= _SCALE * (1 + settings.gain_drift * waves.drift(rng, n))[:, None]
    labels = np.zeros(n, dtype=np.int8)
    for o in objects:
        labels[np.abs(x - o.x) <= o.radius + LABEL_MARGIN] = 1
    return Scene(
        id=name,
        traces=traces.astype(np.float32),
        labels=labels,
        x=x,
        ground=ground,
        frequency=frequency,
        step=step,
        objects=objects,
    )


def _objects(
    settings: SyntheticSettings, x: waves.Floats, eps: float, frequency: float, rng: np.random.Generator
) -> tuple[Buried, ...]:
    count = int(rng.choice(3, p=settings.objects))
    ends = np.linspace(x[0], x[-1], count + 1)  # two objects share the line
    deepest = (0.8 * settings.window - waves.ricker_delay(frequency)) * waves.speed(eps) / 2
    shallow, deep = (max(0.02, min(c, deepest)) for c in settings.cover)
    return tuple(
        Buried(
            kind=str(rng.choice(settings.kinds)),
            x=float(rng.uniform(ends[i], ends[i + 1])),
            cover=float(rng.uniform(shallow, deep)),
            radius=float(rng.uniform(*settings.radius)),
        )
        for i in range(count)
    )


def _echo(o: Buried, x: waves.Floats, ground: waves.Ground) -> tuple[waves.Floats, waves.Floats]:
    """Top of the object and, where it can be seen through, its bottom 4 R / v later."""
    fill = FILLS[o.kind]
    t, a = waves.cylinder(x, np.array([o.x]), np.array([o.cover + o.radius]), np.array([o.radius]), ground)
    r = waves.reflection(ground.eps, fill)
    if fill is None:
        return t, r * a
    # In and out through the top, (1 - r^2), and back from the bottom with the opposite sign; half is lost to focusing.
    later = 4 * o.radius / waves.speed(fill)
    return np.concatenate([t, t + later]), np.concatenate([r * a, -0.5 * r * (1 - r * r) * a])


def _direct(
    peak: float, eps: float, offset: float, frequency: float, n: int
) -> tuple[list[waves.Floats], list[waves.Floats]]:
    """Air wave, ground wave and a few periods of ringing, the same for every trace."""
    t = np.array([offset / waves.LIGHT, offset / waves.speed(eps), *(k / frequency for k in (1, 2, 3))])
    a = peak * np.array([0.6, 1.0, -0.15, 0.05, -0.015])
    return [np.repeat(t[:, None], n, axis=1)], [np.repeat(a[:, None], n, axis=1)]


def _add(times: list[waves.Floats], amplitudes: list[waves.Floats], t: waves.Floats, a: waves.Floats) -> None:
    times.append(t)
    amplitudes.append(a)
