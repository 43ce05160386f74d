"""The learning rate of each step, made of :class:`tunelab.objective.RateSchedule`. No framework is known here.

How far a training has come is a number from 0 to below 1: ``(epoch + step / steps) / epochs``, of the epochs that it
may have. Early stopping and patience know nothing of it; a trial that they end has not seen the low rates.

By the incremental protocol an epoch is a shard, so there are as many as shards, or fewer where a trial may not train
for that many. Each of the passes that a shard may have is an equal part of its epoch; where patience leaves some out,
the rate goes on with that of the next shard. So the rate of a step follows from the numbers of epoch, pass and step,
whatever was left out before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Rates:
    """The learning rates of one training. What they depend on beside epoch, pass and step is in :meth:`save`."""

    def __init__(self, schedule: Mapping[str, Any], base: float, *, epochs: int, passes: int = 1) -> None:
        """Nothing was learned yet.

        Args:
            schedule: :class:`tunelab.objective.RateSchedule`, in full.
            base: the rate that is scheduled.
            epochs: that the training may have.
            passes: that an epoch may have.
        """
        self.schedule = schedule
        self.base = base
        self.epochs = epochs
        self.passes = passes
        self._best = -math.inf
        self._waited = 0
        """Epochs since the best one, or since the rate was halved."""
        self._halved = 0
        """How often."""

    def at(self, epoch: int, passed: int = 0, *, share: float = 0.0) -> float:
        """The rate of a step.

        Args:
            epoch: epochs before this one.
            passed: passes before this one, of this epoch.
            share: of the steps of this pass, those before this one.
        """
        progress = (epoch + (passed + share) / self.passes) / self.epochs
        return math.ldexp(rate_at(self.schedule, self.base, progress), -self._halved)

    def note(self, dense: float) -> None:
        """The average precision on the tune split after an epoch, by which a plateau is seen; NaN is none."""
        if self.schedule["kind"] != "plateau":
            return
        self._waited += 1
        if dense > self._best:
            self._best, self._waited = dense, 0
        elif self._waited >= self.schedule["patience"]:
            self._waited = 0
            self._halved += 1

    def save(self) -> dict[str, Any]:
        """What JSON can hold."""
        best = self._best if math.isfinite(self._best) else None
        return {"best": best, "waited": self._waited, "halved": self._halved}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`save` gave.

        Raises:
            KeyError: it is something else.
        """
        best, self._waited, self._halved = state["best"], state["waited"], state["halved"]
        self._best = -math.inf if best is None else best


def rate_at(schedule: Mapping[str, Any], base: float, progress: float) -> float:
    """The rate of a step by its place alone; that of a plateau is halved elsewhere.

    Args:
        schedule: :class:`tunelab.objective.RateSchedule`, in full.
        base: the rate that is scheduled.
        progress: of the training, from 0 to 1.
    """
    if schedule["kind"] == "cosine":
        return _fall(base, base / 100, progress)
    if schedule["kind"] == "one_cycle":
        rising: float = schedule["warm_up"]
        if progress < rising:
            return base * (1 + 24 * progress / rising) / 25
        return _fall(base, base / 10_000, (progress - rising) / (1 - rising)) if rising < 1 else base
    return base


def _fall(high: float, low: float, share: float) -> float:
    """Half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
