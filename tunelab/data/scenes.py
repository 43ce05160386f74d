"""Drawing scans at random: the soil, what lies in it, and what the radar receives.

``scene_settings`` has what is drawn from, ``soils`` draws the ground, ``waves`` and ``underground`` have the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.data import waves
from tunelab.data.scene_settings import FILLS, SOILS, SyntheticSettings
from tunelab.data.soils import Clutter, diffractors_in, ground_of, stones_in, underground_of
from tunelab.data.underground import Underground
from tunelab.data.waves import Floats

LABEL_MARGIN = 0.04
"""A trace is positive within radius + this many metres of an object's axis, as in gprMax's small data set."""

_SCALE = 100.0  # amplitudes of the order of gprMax's V/m


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
    soil: str
    """One of :data:`~tunelab.data.scene_settings.SOILS`."""
    under: Underground
    frequency: float
    step: float
    objects: tuple[Buried, ...]

    @property
    def x(self) -> Floats:
        """Midpoint of the antennas, shape (trace,)."""
        return self.under.x


def scenes(settings: SyntheticSettings) -> Iterator[Scene]:
    """The scans one after another; each depends on the settings and its number alone."""
    width = len(str(settings.scans - 1))
    for i in range(settings.scans):
        yield _scan(settings, f"syn{i:0{max(3, width)}d}", np.random.default_rng([settings.seed, i]))


def _scan(settings: SyntheticSettings, name: str, rng: np.random.Generator) -> Scene:
    shares = rng.random(4)  # of each range; sizes come before what there is more or less of
    low, high = settings.frequency
    frequency = low + (high - low) * float(shares[2]) ** 4  # three in four in the lowest third
    step = float(rng.uniform(*settings.line)) / settings.traces
    n = int(rng.integers(math.ceil(settings.shortest * settings.traces), settings.traces + 1))
    soil = str(rng.choice(SOILS, p=settings.soils))
    ground = ground_of(settings, soil, float(shares[0]), float(shares[1]), float(shares[3]))
    under = underground_of(settings, soil, ground.offset / 2 + step * np.arange(n, dtype=np.float64), ground, rng)
    objects = _objects(settings, under.x, ground.eps, frequency, rng)

    clear = replace(ground, sigma=0.0)  # what the instrument sends and adds does not depend on what the soil absorbs
    reference = waves.cylinder(np.zeros(1), np.zeros(1), np.full(1, 0.35), np.full(1, 0.05), clear)[1].item()
    direct = reference * 10 ** (rng.uniform(*settings.direct_db) / 20)
    arrivals = [_direct(direct, under, frequency, rng), under.interface()]
    if objects:
        x, cover, radius = np.array([(o.x, o.cover, o.radius) for o in objects]).T
        arrivals += _echoes(under, x, cover, radius, [FILLS[o.kind] for o in objects])
    if soil == "stones":
        stones = stones_in(settings, under.x, [(o.x, o.cover + o.radius, o.radius) for o in objects], rng)
        arrivals += _echoes(under, stones.x, stones.cover, stones.radius, stones.eps.tolist())
    if soil == "heterogeneous":
        arrivals.append(_weak(under, diffractors_in(settings, under.x, rng)))

    times, amplitudes = (np.concatenate(parts) for parts in zip(*arrivals, strict=True))
    dead, repeated = _lost(settings, n, rng)
    traces = waves.record(
        times + settings.jitter / frequency * rng.standard_normal(n),
        np.where(dead, 0.0, amplitudes),
        frequency=frequency,
        dt=settings.dt,
        n_samples=settings.samples,
        noise=reference * 10 ** (-settings.noise_db / 20),
        rng=rng,
        noise_reach=settings.noise_reach,
    )
    decay = np.exp(-3 * np.arange(settings.samples) / settings.samples)
    traces += settings.wow * direct * (1 + 0.1 * waves.drift(rng, n))[:, None] * decay
    traces *= _SCALE * (1 + settings.gain_drift * waves.drift(rng, n))[:, None]
    for i in repeated:
        traces[i] = traces[i - 1]
    labels = np.zeros(n, dtype=np.int8)
    for o in objects:
        labels[np.abs(under.x - o.x) <= o.radius + LABEL_MARGIN] = 1
    return Scene(
        id=name,
        traces=traces.astype(np.float32),
        labels=labels,
        soil=soil,
        under=under,
        frequency=frequency,
        step=step,
        objects=objects,
    )


def _objects(
    settings: SyntheticSettings, x: Floats, eps: float, frequency: float, rng: np.random.Generator
) -> tuple[Buried, ...]:
    count = int(rng.choice(3, p=settings.objects))
    begin, room = float(x[0]) - settings.beyond, float(x[-1] - x[0]) + 2 * settings.beyond
    apart = min(settings.apart, room) if count == 2 else 0.0
    # even over all places that far apart: drawn on a line shorter by that, then parted by it
    places = begin + np.sort(rng.uniform(0, room - apart, count)) + apart * np.arange(count)
    deepest = (0.9 * settings.window - waves.ricker_delay(frequency)) * waves.speed(eps) / 2
    shallow, deep = (max(0.02, min(c, deepest)) for c in settings.cover)
    return tuple(
        Buried(
            kind=str(rng.choice(settings.kinds)),
            x=float(place),
            cover=float(rng.uniform(shallow, deep)),
            radius=float(rng.uniform(*settings.radius)),
        )
        for place in places
    )


def _echoes(
    under: Underground, x: Floats, cover: Floats, radius: Floats, fills: Sequence[float | None]
) -> list[tuple[Floats, Floats]]:
    """Echoes of convex reflectors: of the top; of the bottom where one sees through; and by way of the surface.

    The bottom comes 4 R / v later. The echo that the surface throws back reaches the top twice: by the image of the
    reflector in the surface, its second way is straight up and down.
    """
    around = [under.layer.eps if b and under.layer else under.ground.eps for b in under.beneath(x, cover)]
    r = np.array([waves.reflection(eps, fill) for eps, fill in zip(around, fills, strict=True)])[:, None]
    times, amplitudes = under.cylinders(x, cover + radius, radius)
    found = [(times, r * amplitudes)]
    # In and out through the top, (1 - r^2), and back from the bottom with the opposite sign; half is lost to focusing.
    clear = [i for i, fill in enumerate(fills) if fill is not None]
    if clear:
        later = np.array([4 * radius[i] / waves.speed(fills[i] or 1.0) for i in clear])[:, None]
        found.append((times[clear] + later, (-0.5 * r * (1 - r * r) * amplitudes)[clear]))
    down, loss = under.overhead(x, cover)
    air = waves.reflection(under.ground.eps, 1.0)
    again = air * r * r * (np.exp(-2 * loss) / np.sqrt(2 + 2 * cover / radius))[:, None]
    return [*found, (times + 2 * down[:, None], again * amplitudes)]


def _weak(under: Underground, points: Clutter) -> tuple[Floats, Floats]:
    """Echoes of points of a given reflectivity."""
    times, amplitudes = under.cylinders(points.x, points.cover + points.radius, points.radius)
    return times, points.eps[:, None] * amplitudes


def _direct(peak: float, under: Underground, frequency: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Air wave, ground wave, the surface's bounce where the antennas hang over it, and a few periods of ringing."""
    n, ground = under.x.size, under.ground
    late = np.full(n, ground.offset / waves.speed(ground.eps))
    # In air the ground wave fades with the height of each antenna, exp(-k sqrt(eps - 1) h).
    strength = np.exp(-4 * math.pi * frequency / waves.LIGHT * math.sqrt(max(ground.eps - 1, 0.0)) * under.gap)
    if under.variation is not None:
        late = late * (1 + under.variation.at(under.x, np.zeros(n)))
        strength = strength * (1 + 0.05 * waves.drift(rng, n, max(1, n // 10)))
    parts = [(np.full(n, ground.offset / waves.LIGHT), np.full(n, 0.6)), (late, strength)]
    parts += [(np.full(n, k / frequency), np.full(n, share)) for k, share in ((1, -0.15), (2, 0.05), (3, -0.015))]
    if under.gap.any():
        parts.append((under.bounce(), np.full(n, -waves.reflection(1.0, ground.eps))))
    times, amplitudes = (np.stack(part) for part in zip(*parts, strict=True))
    return times, peak * amplitudes


def _lost(settings: SyntheticSettings, n: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], list[int]]:
    """Which traces hold noise alone, and which repeat the one before; the first one cannot."""
    lost, dead = rng.random(n) < settings.lost, rng.random(n) < 0.5
    return lost & dead, [int(i) for i in np.flatnonzero(lost & ~dead) if i]
