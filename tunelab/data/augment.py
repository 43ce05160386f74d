"""Training scans varied as :mod:`tunelab.augmentation` names it. Numpy only; whose scans train is decided elsewhere.

Shapes are (trace, sample) for a scan. Everything random of a scan comes from a seed, numbers such as the epoch, and the
scan's own number: the same whatever batch it is in, whatever was read before, and after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.augmentation import Augmentation
from tunelab.data.dataset import Part
from tunelab.data.order import Scans

AUGMENT = 0x6175676D
"""Stands in seeds where those of the order of scans have an epoch, which never comes so far: draws have to differ."""
NOISE_SPAN_DB = 20.0
"""How far above ``noise_db`` the ratio of a scan to its noise lies at most."""
_SILENT = float(np.finfo(np.float32).tiny)
"""Root mean square up to which a scan cannot be scaled without losing all its digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """Scans of a part, varied anew for each seed."""

    part: Part
    """Of training scans."""
    steps: Augmentation
    seed: tuple[int, ...]
    """Fixes, with the number of a scan, everything random here."""
    negatives: Scans
    """Scans without positives that may be added to others, ascending; used only by ``background``."""

    def read(self, scan: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """The part's scan of this number, varied.

        Returns:
            Traces, shape (trace, sample), and labels, shape (trace,), in arrays of their own.
        """
        rng = np.random.default_rng([*self.seed, scan])
        steps = self.steps
        traces = np.array(self.part.read(scan), order="C")
        labels = self.part.labels_of(scan).copy()
        if steps.background and rng.random() < steps.background:
            self._add_background(scan, traces, rng)
        if steps.mirror and rng.random() < steps.mirror:
            traces, labels = np.ascontiguousarray(traces[::-1]), labels[::-1].copy()
        if steps.polarity and rng.random() < steps.polarity:
            np.negative(traces, out=traces)
        if steps.gain_db:
            traces *= np.float32(10 ** (rng.uniform(-steps.gain_db, steps.gain_db) / 20))
        if steps.shift:
            traces = _shifted(traces, self.part.channels, steps.shift, rng)
        if steps.noise_db is not None:
            below = rng.uniform(steps.noise_db, steps.noise_db + NOISE_SPAN_DB)
            noise = rng.standard_normal(traces.shape, dtype=np.float32)
            traces += noise * np.float32(_rms(traces) * 10 ** (-below / 20))
        if steps.drop:
            _silence(traces, steps.drop, rng)
        return traces, labels

    def _add_background(self, scan: int, traces: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Add as many traces of another scan without positives, in place; nothing where there is none."""
        at = int(np.searchsorted(self.negatives, scan))
        itself = at < len(self.negatives) and self.negatives[at] == scan
        count = len(self.negatives) - itself
        if not count:
            return
        chosen = int(rng.integers(count))
        other = self.part.read(int(self.negatives[chosen + (itself and chosen >= at)]))
        start = int(rng.integers(max(0, len(other) - len(traces)) + 1))
        # a shorter one goes on with its own reflection, and that with itself
        rows = (start + np.arange(len(traces))) % (2 * len(other))
        added = other[np.minimum(rows, 2 * len(other) - 1 - rows)]
        weight, level = rng.random(), _rms(added)
        if level > _SILENT:
            added /= np.float32(level)
            added *= np.float32(weight * _rms(traces))
            traces += added


def augmented(part: Part, scans: Scans, steps: Augmentation, *, seed: int, number: Sequence[int]) -> Augmented | None:
    """How training scans are varied in one pass over them; None where they are not.

    What ``background`` adds is of the same pass: a pass over one shard reads no other, and no pass reads a scan that is
    not trained on.

    Args:
        part: what the scans are of.
        scans: those of the pass.
        steps: what is varied.
        seed: of the training.
        number: of the pass: its epoch, and on a shard which of the passes over it.
    """
    if steps.is_identity:
        return None
    negatives = _without_positives(part, scans) if steps.background else scans[:0]
    return Augmented(part=part, steps=steps, seed=(seed, AUGMENT, *number), negatives=negatives)


def notes_on(part: Part, passes: Sequence[Scans], steps: Augmentation) -> tuple[str, ...]:
    """For people: where ``background`` finds nothing to add.

    Args:
        part: of training scans.
        passes: the scans of each pass that differs from others: of each shard, or all.
        steps: what is varied.
    """
    if not steps.background:
        return ()
    lacking = sum(len(scans) == 1 or not len(_without_positives(part, scans)) for scans in passes)
    if not lacking:
        return ()
    where = f" in {lacking} of {len(passes)} shards" if len(passes) > 1 else ""
    return (f"augmentation.background adds nothing{where}: there is no other training scan without positives.",)


def _without_positives(part: Part, scans: Scans) -> Scans:
    positives = np.add.reduceat(part.labels, part.starts, dtype=np.int64)
    return np.sort(scans[positives[scans] == 0])


def _rms(traces: NDArray[np.float32]) -> float:
    """Root mean square, in numbers that hold the square of any sample."""
    return math.sqrt(float(np.mean(np.square(traces, dtype=np.float64))))


def _shifted(traces: NDArray[np.float32], channels: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """All traces moved by one number of samples, each channel within itself."""
    before = traces.reshape(len(traces), channels, -1)
    most = math.floor(share * before.shape[2])
    by = int(rng.integers(-most, most + 1))
    if not by:
        return traces
    after = np.zeros_like(before)
    if by > 0:
        after[..., by:] = before[..., :-by]
    else:
        after[..., :by] = before[..., -by:]
    return after.reshape(traces.shape)


def _silence(traces: NDArray[np.float32], chance: float, rng: np.random.Generator) -> None:
    """Each trace becomes silent with a chance, but one at least is left, in place."""
    dropped = rng.random(len(traces)) < chance
    if dropped.all():
        dropped[rng.integers(len(traces))] = False
    traces[dropped] = 0
