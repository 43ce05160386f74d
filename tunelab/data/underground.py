"""What lies between antennas and reflectors: rough ground, an interface, a soil whose speed varies.

First order throughout: rays are straight but for their refraction at the interface, which is taken to be level where a
ray crosses it; what slowness varies by is averaged along the straight ray (Fermat: the time is right to first order in
it). Sources as in ``waves``: bounce at 2 h / c, transmission 1 - r^2 both ways, Snell's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.data import waves
from tunelab.data.waves import Floats, Ground, Leg

_HALVINGS = 40  # of the interval that a crossing lies in


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Soil below an interface."""

    depth: Floats
    """Of the interface below the mean surface, at each trace, m, shape (trace,)."""
    eps: float
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Relative change of slowness over the ground, a sum of plane waves; each of shape (wave,)."""

    across: Floats
    """Wave numbers along the line, rad/m."""
    down: Floats
    """Wave numbers with depth, rad/m."""
    phase: Floats
    amplitude: Floats

    def at(self, x: Floats, depth: Floats) -> Floats:
        """The change at points of any one shape."""
        angle = x[..., None] * self.across + depth[..., None] * self.down + self.phase
        return np.asarray(np.cos(angle) @ self.amplitude)

    def along(self, x1: Floats, depth1: Floats, x2: Floats, depth2: Floats) -> Floats:
        """The mean change on the straight way from one point to another, exact: that of cos is a sinc."""
        one = x1[..., None] * self.across + depth1[..., None] * self.down
        two = x2[..., None] * self.across + depth2[..., None] * self.down
        mean = np.cos((one + two) / 2 + self.phase) * np.sinc((two - one) / (2 * np.pi))
        return np.asarray(mean @ self.amplitude)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underground:
    """The ground under a line; arrays are (reflector, trace) where not said otherwise."""

    x: Floats
    """Midpoints of the antennas, shape (trace,)."""
    ground: Ground
    """The soil, of two layers the upper one, and the antennas."""
    surface: Floats
    """Height of the surface over its mean at each trace, m, shape (trace,)."""
    gap: Floats
    """From the surface up to the antennas at each trace, m, shape (trace,)."""
    layer: Layer | None = None
    variation: Variation | None = None

    def bounce(self) -> Floats:
        """Arrival of what the surface reflects, shape (trace,); moves by 2 dh / c for a gap wider by dh."""
        return 2 * np.hypot(self.gap, self.ground.offset / 2) / waves.LIGHT

    def beneath(self, x0: Floats, top: Floats) -> NDArray[np.bool_]:
        """Whether reflectors with these tops lie below the interface, shape (reflector,)."""
        if self.layer is None:
            return np.zeros(x0.shape, dtype=bool)
        return top > np.interp(x0, self.x, self.layer.depth)

    def cylinders(self, x0: Floats, depth: Floats, radius: Floats) -> tuple[Floats, Floats]:
        """Echoes of cylinders of unit reflectivity, as :func:`~tunelab.data.waves.cylinder` through a uniform soil.

        Args:
            x0: positions of the axes, shape (cylinder,).
            depth: of the axes below the mean surface, more than the radius, shape (cylinder,).
            radius: shape (cylinder,).
        """
        there, back = (self._leg(self.x + side * self.ground.offset / 2, x0, depth, radius) for side in (-1, 1))
        times, amplitudes = waves.echo(there, back, radius, self.ground)
        if self.layer is not None:
            through = 1 - waves.reflection(self.ground.eps, self.layer.eps) ** 2
            amplitudes[self.beneath(x0, depth - radius)] *= through
        return times + 2 * self.gap / waves.LIGHT, amplitudes

    def interface(self) -> tuple[Floats, Floats]:
        """Times and amplitudes of what the interface reflects, both (1, trace), or (0, trace) where there is none."""
        if self.layer is None:
            return np.zeros((0, self.x.size)), np.zeros((0, self.x.size))
        times, amplitudes = waves.layer(self._under(self.layer.depth), self.ground)
        if self.variation is not None:
            times = times * (1 + self.variation.along(self.x, 0 * self.x, self.x, self.layer.depth))
        r = waves.reflection(self.ground.eps, self.layer.eps)
        return (times + 2 * self.gap / waves.LIGHT)[None], r * amplitudes[None]

    def overhead(self, x0: Floats, top: Floats) -> tuple[Floats, Floats]:
        """Seconds and absorption (Np) straight up from these tops to the mean surface, both (reflector,)."""
        first, beneath, rest = top, 0 * top, self.ground
        if self.layer is not None:
            first = np.minimum(top, np.interp(x0, self.x, self.layer.depth))
            beneath, rest = top - first, Ground(eps=self.layer.eps, sigma=self.layer.sigma, offset=0.0)
        time = first / waves.speed(self.ground.eps) + beneath / waves.speed(rest.eps)
        return time, self.ground.absorption * first + rest.absorption * beneath

    def _under(self, depth: Floats) -> Floats:
        """Depth below the surface at each trace of what lies so deep below its mean; a centimetre at least."""
        return np.maximum(depth + self.surface, 0.01)

    def _leg(self, antenna: Floats, x0: Floats, depth: Floats, radius: Floats) -> Leg:
        under = np.maximum(self._under(depth[:, None]), radius[:, None] + 0.005)
        leg = waves.straight(antenna, x0, under, radius, self.ground)
        beneath = self.beneath(x0, depth - radius)
        if self.layer is not None and beneath.any():
            lower = self._refracted(self.layer, antenna, x0[beneath], under[beneath], radius[beneath])
            for name in ("time", "length", "loss", "cosine"):
                getattr(leg, name)[beneath] = getattr(lower, name)
        if self.variation is not None:
            shape = under.shape
            ends = np.broadcast_to(antenna, shape), np.zeros(shape), np.broadcast_to(x0[:, None], shape), under
            return Leg(
                time=leg.time * (1 + self.variation.along(*ends)),
                length=leg.length,
                loss=leg.loss,
                cosine=leg.cosine,
            )
        return leg

    def _refracted(self, layer: Layer, antenna: Floats, x0: Floats, under: Floats, radius: Floats) -> Leg:
        """Through the interface, to reflectors that lie below it."""
        upper, lower = self.ground, Ground(eps=layer.eps, sigma=layer.sigma, offset=self.ground.offset)
        crossing = np.interp(x0, self.x, layer.depth)[:, None] / under  # share of the straight way, nearly
        at = antenna + (x0[:, None] - antenna) * np.minimum(crossing, 1)
        z1 = np.minimum(self._under(np.interp(at, self.x, layer.depth)), under - radius[:, None] - 0.001)
        z1 = np.maximum(z1, 0.005)
        z2 = under - z1
        across = np.abs(antenna - x0[:, None])
        near = refraction(across, z1, z2, upper.eps, lower.eps)
        s1, s2 = np.hypot(z1, near), np.hypot(z2, across - near) - radius[:, None]
        return Leg(
            time=s1 / waves.speed(upper.eps) + s2 / waves.speed(lower.eps),
            length=s1 + s2,
            loss=upper.absorption * s1 + lower.absorption * s2,
            cosine=z1 / s1,
        )


def level(x: Floats, ground: Ground) -> Underground:
    """A uniform soil with the antennas on it."""
    return Underground(x=x, ground=ground, surface=np.zeros(x.size), gap=np.zeros(x.size))


def refraction(across: Floats, z1: Floats, z2: Floats, eps1: float, eps2: float) -> Floats:
    """How far a ray gets along in the upper layer: the point where Snell's law holds, by halving.

    Args:
        across: distance along the line from end to end, at least 0.
        z1: thickness that is crossed of the upper layer.
        z2: of the lower one.
        eps1: relative permittivity above.
        eps2: below.
    """
    low, high = np.zeros_like(across), across.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rest = across - middle
        late = np.sqrt(eps1) * middle / np.hypot(z1, middle) > np.sqrt(eps2) * rest / np.hypot(z2, rest)
        low, high = np.where(late, low, middle), np.where(late, middle, high)
    return (low + high) / 2
