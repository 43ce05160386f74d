"""Drawing the ground of a scan: its surface, its layers, how its speed varies, and its clutter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.data import waves
from tunelab.data.scene_settings import SyntheticSettings
from tunelab.data.underground import Layer, Underground, Variation
from tunelab.data.waves import Floats

_WAVES = 12  # that make up what slowness varies by
_SIZES = (0.2, 1.0)
"""Wavelengths of what slowness varies by, m."""
_ABOVE = 0.01
"""From the highest point of rough ground up to the antennas, m."""
_REACH = (0.05, 0.3)
"""Metres over which the height of rough ground is alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clutter:
    """Reflectors without a label, each of shape (reflector,)."""

    x: Floats
    cover: Floats
    radius: Floats
    eps: Floats
    """Relative permittivity of stones; reflectivity of points."""


def ground_of(settings: SyntheticSettings, soil: str, eps: float, sigma: float, offset: float) -> waves.Ground:
    """Permittivity, conductivity and the antennas' distance.

    Args:
        settings: what is drawn from.
        soil: one of :data:`~tunelab.data.scene_settings.SOILS`.
        eps: how far along its range, from 0 to 1; as are the others.
        sigma: likewise.
        offset: likewise.
    """
    low, high = settings.offset
    return waves.Ground(
        eps=_permittivity(settings.eps, eps),
        sigma=_conductivity(settings.lossy_sigma if soil == "heterogeneous" else settings.sigma, sigma),
        offset=low + (high - low) * offset,
    )


def underground_of(
    settings: SyntheticSettings, soil: str, x: Floats, ground: waves.Ground, rng: np.random.Generator
) -> Underground:
    """The ground under a line, of one kind of soil.

    Args:
        settings: what is drawn from.
        soil: one of :data:`~tunelab.data.scene_settings.SOILS`.
        x: midpoints of the antennas, shape (trace,).
        ground: the soil, of two layers the upper one, and the antennas.
        rng: source.
    """
    n = x.size
    surface, gap, layer, variation = np.zeros(n), np.zeros(n), None, None
    if soil == "rough":
        reach = float(rng.uniform(*_REACH)) / (x[1] - x[0]) if n > 1 else 1.0
        surface = float(rng.uniform(*settings.roughness)) * _smooth(rng, n, reach)
        gap = surface.max() + _ABOVE - surface
    if soil == "two_layers":
        depth = float(rng.uniform(*settings.interface)) + settings.relief * _smooth(rng, n, n / 5)
        eps, sigma = _permittivity(settings.eps, rng.random()), _conductivity(settings.sigma, rng.random())
        layer = Layer(depth=np.maximum(depth, 0.05), eps=eps, sigma=sigma)
    if soil == "heterogeneous":
        number = 2 * math.pi / np.exp(rng.uniform(math.log(_SIZES[0]), math.log(_SIZES[1]), _WAVES))
        angle, phase = rng.uniform(0, math.pi, _WAVES), rng.uniform(0, 2 * math.pi, _WAVES)
        size = float(rng.uniform(*settings.variation)) * math.sqrt(2 / _WAVES)
        variation = Variation(
            across=number * np.cos(angle), down=number * np.sin(angle), phase=phase, amplitude=np.full(_WAVES, size)
        )
    return Underground(x=x, ground=ground, surface=surface, gap=gap, layer=layer, variation=variation)


def stones_in(
    settings: SyntheticSettings, x: Floats, objects: Sequence[tuple[float, float, float]], rng: np.random.Generator
) -> Clutter:
    """Stones all along the line, one in four beside an object; those that would lie in an object are left out.

    Args:
        settings: what is drawn from.
        x: midpoints of the antennas.
        objects: position, depth of the axis and radius of each.
        rng: source.
    """
    count = int(rng.poisson(settings.stones))
    place = rng.uniform(x[0] - 0.2, x[-1] + 0.2, count)
    if objects:
        beside = rng.random(count) < 0.25
        centre = np.array([o[0] for o in objects])[rng.integers(len(objects), size=count)]
        place = np.where(beside, centre + rng.uniform(-0.25, 0.25, count), place)
    cover, radius = rng.uniform(0.03, settings.cover[1], count), rng.uniform(*settings.stone_radius, count)
    eps = rng.uniform(*settings.stone_eps, count)
    free = np.ones(count, dtype=bool)
    for at, depth, size in objects:
        free &= np.hypot(place - at, cover + radius - depth) > radius + size + 0.01
    return Clutter(x=place[free], cover=cover[free], radius=radius[free], eps=eps[free])


def diffractors_in(settings: SyntheticSettings, x: Floats, rng: np.random.Generator) -> Clutter:
    """Weak points all along the line, of either sign: small parts of the soil that are wetter or drier.

    Args:
        settings: what is drawn from.
        x: midpoints of the antennas.
        rng: source.
    """
    count = int(rng.poisson(settings.diffractors))
    return Clutter(
        x=rng.uniform(x[0] - 0.2, x[-1] + 0.2, count),
        cover=0.01 + rng.exponential(0.15, count),
        radius=rng.uniform(0.005, 0.02, count),
        eps=rng.uniform(0.02, 0.25, count) * rng.choice([-1.0, 1.0], count),
    )


def _smooth(rng: np.random.Generator, n: int, reach: float) -> Floats:
    """A curve along the line without corners, alike over ``reach`` traces; mean 0, deviation 1 over its draws."""
    away = np.arange(-math.ceil(2 * reach), math.ceil(2 * reach) + 1)
    weights = np.exp(-2 * (away / max(reach, 1e-6)) ** 2)
    return np.convolve(rng.standard_normal(n + away.size - 1), weights / np.linalg.norm(weights), mode="valid")


def _permittivity(between: tuple[float, float], share: float) -> float:
    low, high = between
    return float(low * (high / low) ** share)


def _conductivity(between: tuple[float, float], share: float) -> float:
    low, high = between
    return low + (high - low) * share**2
