"""How long a search takes, as arithmetic: what early stopping lets through, seconds of an epoch, places, limits.

Estimates, from what is known before a search begins. That a trial's own patience ends it, that one on the floor is
stopped, and that the sampler comes to prefer some families is not known then, and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunelab.halving import Rules

HOUR = 3600.0
TAKE_UP = 0.5
"""Seconds from a trial's end to the next one's first epoch in the same process, when the model's structure is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved:
    """What early stopping is expected to let through."""

    epochs: float
    """That are trained of the first fold, by all trials together."""
    most: float
    """The same without early stopping."""
    whole: float
    """Trials that train all their epochs."""


def halved(rules: Rules, trials: float, spared: int = 0) -> Halved:
    """Epochs of trials of which 1/reduction go on at each rung.

    Args:
        rules: of early stopping.
        trials: how many there are.
        spared: how many of them pass the early rungs, whatever they come to.
    """
    others, spare, at, epochs = trials - spared, float(spared), 0, 0.0
    for rung in rules.rungs():
        epochs += (others + spare) * (rung - at)
        at = rung
        others = _passing(others, rules.reduction)
        if rung > rules.early:
            spare = _passing(spare, rules.reduction)
    whole = others + spare
    return Halved(epochs=epochs + whole * (rules.max_epochs - at), most=trials * rules.max_epochs, whole=whole)


def _passing(trials: float, reduction: float) -> float:
    """The best one always passes."""
    return max(trials / reduction, min(trials, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Trials of one family, and how fast they are."""

    trials: float
    spared: int
    """Of them, those that pass the early rungs."""
    max_epochs: int
    seconds: float
    """Of an epoch."""
    first: float
    """More than that of the first epoch of a model whose structure is new to its process."""
    structures: float
    """How often that is so, in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search may use; None: no limit."""

    trials: int | None
    seconds: float | None
    gpu_hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a search is expected to come to."""

    seconds: float
    """From its beginning to its report."""
    trials: float
    epochs: float
    """Of all folds."""
    most_epochs: float
    """Without early stopping."""
    gpu_hours: float
    ends_by: Literal["trials", "time", "GPU-hours"]
    """The limit that is reached first."""


def forecast(
    paces: Sequence[Pace],
    rules: Rules,
    limits: Limits,
    *,
    folds: int,
    places: int,
    gpus: float,
    before: float,
    after: float,
) -> Forecast:
    """Duration, epochs and GPU-hours of a search.

    Args:
        paces: of each family; their trials are those of the limit, or as many as are enough to tell a mean.
        rules: of early stopping.
        limits: at least one of them is set.
        folds: over which trials that early stopping lets through are trained; 0 or 1: there are none.
        places: trials at a time.
        gpus: of a trial.
        before: seconds until the first trial trains.
        after: seconds from the last trial's end to the report.
    """
    epochs = most = work = longest = 0.0
    for pace in paces:
        mine = halved(replace(rules, max_epochs=pace.max_epochs), pace.trials, pace.spared)
        later = max(folds - 1, 0) * pace.max_epochs
        trained = mine.epochs + mine.whole * later
        epochs, most = epochs + trained, most + mine.most + pace.trials * later
        work += trained * pace.seconds + pace.structures * pace.first + pace.trials * TAKE_UP
        longest = max(longest, (pace.max_epochs + later) * pace.seconds + pace.first)
    trials = sum(pace.trials for pace in paces)
    ends: dict[Literal["trials", "time", "GPU-hours"], float] = {}
    if limits.trials is not None:
        ends["trials"] = max(work / min(places, max(trials, 1.0)), longest)
    if limits.seconds is not None:
        ends["time"] = max(limits.seconds - before, 0.0)
    if limits.gpu_hours is not None and gpus:
        ends["GPU-hours"] = limits.gpu_hours * HOUR / (gpus * places)
    by = min(ends, key=lambda name: ends[name])
    share = 1.0 if by == "trials" else ends[by] * places / work
    return Forecast(
        seconds=before + ends[by] + after,
        trials=trials * share,
        epochs=epochs * share,
        most_epochs=most * share,
        gpu_hours=work * share * gpus / HOUR,
        ends_by=by,
    )


def span(seconds: float) -> str:
    """``44s``, ``1m44s``, ``1h10m`` or ``2d3h``."""
    whole = round(seconds)
    for size, unit, below, rest in ((86400, "d", "h", 3600), (3600, "h", "m", 60), (60, "m", "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // rest}{below}"
    return f"{whole}s"
