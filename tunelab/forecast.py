"""How long a search takes, as arithmetic: what early stopping lets through, seconds of an epoch, places, limits.

Estimates, from what is known before a search begins. That a trial's own patience ends it, that one on the floor is
stopped, and that the sampler comes to prefer some families is not known then, and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """Which share of all trials comes by a rung, and by those before it."""

    rung: int
    spared: float
    """Of configurations to try first."""
    others: float


def passing(rules: Rules, trials: float, spared: int = 0) -> list[Passing]:
    """What goes on at each rung: 1/reduction of those that come there, one at least; all families together.

    Args:
        rules: of early stopping.
        trials: how many there are.
        spared: how many of them pass the early rungs, whatever they come to.
    """
    found = []
    spare, others = float(spared), trials - spared
    for rung in rules.rungs():
        came = spare + others
        others /= rules.reduction
        spare /= 1 if rung <= rules.early else rules.reduction
        if (short := min(came, 1.0) / (spare + others)) > 1:  # the best one always passes
            spare, others = spare * short, others * short
        found.append(
            Passing(
                rung=rung,
                spared=spare / spared if spared else 0.0,
                others=others / (trials - spared) if trials > spared else 0.0,
            )
        )
    return found


def halved(by: Sequence[Passing], trials: float, spared: int, max_epochs: int) -> Halved:
    """Epochs that some of the trials, those of a family, train.

    Args:
        by: what goes on at each rung.
        trials: how many of them there are.
        spared: of them, those that pass the early rungs.
        max_epochs: of each.
    """
    go_on, at, epochs = trials, 0, 0.0
    for one in by:
        if one.rung >= max_epochs:
            break
        epochs += go_on * (one.rung - at)
        go_on, at = spared * one.spared + (trials - spared) * one.others, one.rung
    return Halved(epochs=epochs + go_on * (max_epochs - at), most=trials * max_epochs, whole=go_on)


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
    paid: float | None = None
    """Seconds that the money lasts, with the machines that are there."""


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
    ends_by: Literal["trials", "time", "GPU-hours", "cost"]
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
    trials = sum(pace.trials for pace in paces)
    by = passing(rules, trials, sum(pace.spared for pace in paces))
    for pace in paces:
        mine = halved(by, pace.trials, pace.spared, pace.max_epochs)
        later = max(folds - 1, 0) * pace.max_epochs
        trained = mine.epochs + mine.whole * later
        epochs, most = epochs + trained, most + mine.most + pace.trials * later
        work += trained * pace.seconds + pace.structures * pace.first + pace.trials * TAKE_UP
        longest = max(longest, (pace.max_epochs + later) * pace.seconds + pace.first)
    ends: dict[Literal["trials", "time", "GPU-hours", "cost"], float] = {}
    if limits.trials is not None:
        ends["trials"] = max(work / min(places, max(trials, 1.0)), longest)
    if limits.seconds is not None:
        ends["time"] = max(limits.seconds - before, 0.0)
    if limits.gpu_hours is not None and gpus:
        ends["GPU-hours"] = limits.gpu_hours * HOUR / (gpus * places)
    if limits.paid is not None:
        ends["cost"] = max(limits.paid - before, 0.0)
    first = min(ends, key=lambda name: ends[name])
    share = 1.0 if first == "trials" else ends[first] * places / work
    return Forecast(
        seconds=before + ends[first] + after,
        trials=trials * share,
        epochs=epochs * share,
        most_epochs=most * share,
        gpu_hours=work * share * gpus / HOUR,
        ends_by=first,
    )


def span(seconds: float) -> str:
    """``44s``, ``1m44s``, ``1h10m`` or ``2d3h``."""
    whole = round(seconds)
    for size, unit, below, rest in ((86400, "d", "h", 3600), (3600, "h", "m", 60), (60, "m", "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // rest}{below}"
    return f"{whole}s"
