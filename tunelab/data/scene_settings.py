"""What a synthetic data set is drawn from: every range and chance, with its default. ``scenes`` draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunelab.errors import UsageError, did_you_mean

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

KINDS = (
    *("metal",) * 10,
    *("pvc_air",) * 5,
    *("air_void",) * 3,
    *("concrete",) * 2,
    *("pvc_solid", "water_void", "pvc_water"),
)
"""About as often as in gprMax's small data set: of its 82 objects 41 are metal, 19 PVC pipes, 11 voids of air."""

SOILS = ("homogeneous", "stones", "two_layers", "rough", "heterogeneous")
"""What a soil is like; a scan has one of them."""


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
    line: tuple[float, float] = (0.95, 2.4)
    """Range of the length of ``traces`` traces, m: steps of 2 to 5 cm for 48 of them."""
    window: float = 16e-9
    """Seconds from the first sample to the last."""
    frequency: tuple[float, float] = (400e6, 900e6)
    """Range of the centre frequency, Hz; three in four lie in its lowest third, as in gprMax's small data set."""
    offset: tuple[float, float] = (0.06, 0.16)
    """Range of the distance from transmitter to receiver, m."""
    eps: tuple[float, float] = (4.0, 15.0)
    """Range of the soil's relative permittivity, above an interface and below; even over its logarithm."""
    sigma: tuple[float, float] = (0.001, 0.02)
    """Range of the soil's conductivity, S/m; half of the soils lie in its lowest quarter."""
    lossy_sigma: tuple[float, float] = (0.01, 0.04)
    """The same of a heterogeneous soil, whose clay is damp."""
    soils: tuple[float, ...] = (30 / 84, 18 / 84, 15 / 84, 13 / 84, 8 / 84)
    """Chance of each of :data:`SOILS`, as often as in gprMax's small data set."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of objects, keys of :data:`FILLS`; one that stands twice is drawn twice as often."""
    cover: tuple[float, float] = (0.1, 0.8)
    """Range of the depth of an object's top, m; cut where the echo would come after nine tenths of the window."""
    radius: tuple[float, float] = (0.01, 0.1)
    """Range of an object's radius, m."""
    objects: tuple[float, float, float] = (0.19, 0.64, 0.17)
    """Chance of none, one and two objects in a scan."""
    beyond: float = 0.05
    """How far beyond the ends of the line an object's axis may lie, m."""
    apart: float = 0.3
    """Least distance of the axes of two objects, m, where the line is that long: hyperbolas cross, objects do not."""
    stones: float = 30.0
    """Mean number of stones in a stony soil: convex reflectors like objects, without a label."""
    stone_radius: tuple[float, float] = (0.006, 0.035)
    """Range of a stone's radius, m."""
    stone_eps: tuple[float, float] = (3.0, 12.0)
    """Range of a stone's relative permittivity: of dry sandstone to wet limestone."""
    interface: tuple[float, float] = (0.2, 0.8)
    """Range of the depth of the interface of two layers, m."""
    relief: float = 0.01
    """Standard deviation of the interface's depth along the line, m."""
    roughness: tuple[float, float] = (0.005, 0.02)
    """Range of the standard deviation of the height of rough ground, m; the antennas pass over it level."""
    variation: tuple[float, float] = (0.02, 0.06)
    """Range of the relative standard deviation of slowness in a heterogeneous soil."""
    diffractors: float = 120.0
    """Mean number of weak point diffractors in a heterogeneous soil, more of them near the surface."""
    noise_db: float = 20.0
    """Peak of the reference echo over the root mean square of the noise, dB. Reference: a metal cylinder of 5 cm radius
    whose top lies 30 cm under the antenna, in a soil of the scan's permittivity that absorbs nothing."""
    noise_reach: int = 2
    """Traces over which noise is correlated."""
    direct_db: tuple[float, float] = (20.0, 60.0)
    """Range of the direct wave's peak over the reference echo, dB."""
    jitter: float = 0.005
    """Standard deviation of each trace's time zero, in periods of the wavelet."""
    gain_drift: float = 0.01
    """Standard deviation of the slow change of gain along the line."""
    wow: float = 0.02
    """Peak of the slow decay under every trace, as a share of the direct wave."""
    lost: float = 0.002
    """Chance of a trace to be lost: it holds noise alone, or repeats the one before."""

    def __post_init__(self) -> None:
        for name, least in (("scans", 4), ("traces", 1), ("samples", 2), ("seed", 0), ("noise_reach", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} = {getattr(self, name)}: at least {least}")
        for name in _RANGES:
            low, high = getattr(self, name)
            floor = {"sigma": 0.0, "lossy_sigma": 0.0, "direct_db": -math.inf, "roughness": 0.0, "variation": 0.0}.get(
                name, 1e-12
            )
            if not (math.isfinite(low) and math.isfinite(high) and floor <= low <= high):
                raise UsageError(f"{name} = {(low, high)}: two positive numbers, the lower one first")
        for name in _NUMBERS:
            value = getattr(self, name)
            if not math.isfinite(value) or (value < 0 and name != "noise_db"):
                raise UsageError(f"{name} = {value}: a number from 0 up")
        if self.variation[1] > 0.2:
            raise UsageError(f"variation = {self.variation}: up to 0.2, beyond which rays bend too much to be straight")
        if not 0 < self.shortest <= 1:
            raise UsageError(f"shortest = {self.shortest}: a share above 0 and up to 1")
        if self.lost > 1:
            raise UsageError(f"lost = {self.lost}: a chance from 0 to 1")
        for name, count in (("objects", 3), ("soils", len(SOILS))):
            chances = getattr(self, name)
            words = {3: "three", 5: "five"}[count]
            if len(chances) != count or not min(chances) >= 0 or not math.isclose(sum(chances), 1):
                given = f"{sum(chances):g}" if len(chances) == count else f"{len(chances)} of them"
                raise UsageError(f"{name} = {chances}: {words} chances that add up to 1, not {given}")
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


_RANGES = (
    *("line", "frequency", "offset", "eps", "sigma", "lossy_sigma", "cover", "radius", "direct_db"),
    *("stone_radius", "stone_eps", "interface", "roughness", "variation"),
)
_NUMBERS = (*("beyond", "apart", "stones", "relief", "diffractors", "noise_db", "jitter", "gain_drift", "wow", "lost"),)
