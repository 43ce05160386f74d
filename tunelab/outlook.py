"""What a search would come to, as facts and as lines for people; :mod:`tunelab.dry_run` finds it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunelab.expected import UNLIMITED, Expected, Params, Sized, checkpoint_bytes
from tunelab.files import size_text
from tunelab.forecast import Forecast, span
from tunelab.models import outline
from tunelab.tuning.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A family, and how fast its trials are expected to be."""

    expected: Expected
    params: Params
    """Of the model that was timed: the family's median by its cost."""
    seconds: float
    """Of an epoch; NaN: not known."""
    first: float
    """Of the first epoch of a model that is new to its process."""
    how: str
    """Where the two are from, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a search would do."""

    plan: Plan
    families: Sequence[Timed]
    rungs: Sequence[int]
    epochs: float
    """That are expected to be trained of the first fold, under early stopping, where the number of trials is known;
    otherwise of :data:`~tunelab.expected.UNLIMITED` trials."""
    most_epochs: float
    """The same without early stopping."""
    smallest: Sized | None
    """Of the models that the space proposes; None: only families of one's own."""
    largest: Sized | None
    places: int
    """Trials at a time; 0: no node has room for one now."""
    gpus: float
    """Of a trial."""
    forecast: Forecast | None
    """None: no epoch could be timed."""
    end: datetime | None
    """Of a search that begins now, by this machine's clock."""


def of_plan(found: DryRun) -> list[str]:
    """What is known before anything is timed."""
    plan = found.plan
    names = [name for family in found.families for name, _ in family.expected.first]
    lines = [f"To try first: {', '.join(names)}." if names else "To try first: nothing."]
    if plan.space.families:
        counted = ", ".join(f"{one.expected.family} {one.expected.dimensions}" for one in found.families)
        lines.insert(0, f"Dimensions: {counted}.")
        if left_out := [
            name for name in plan.space.families if name not in {f.expected.family for f in found.families}
        ]:
            lines.append(f"Note: of {', '.join(left_out)} nothing was found that fits the data.")
    lines.append(_early_stopping(found))
    if plan.data.n_folds:
        lines.append(f"Folds: what is not stopped on the first is trained on {plan.data.n_folds - 1} more.")
    if found.smallest is not None and found.largest is not None:
        drawn = sum(len(family.expected.drawn) for family in found.families)
        lines += [
            f"Sizes, of {drawn or len(names)} that fit: {_size(found.smallest)}, to {_size(found.largest)}.",
            f"A checkpoint of the largest takes about {size_text(checkpoint_bytes(found.largest))}; two are kept of "
            "each trial that can go on.",
        ]
    return lines


def of_places(found: DryRun) -> list[str]:
    """Where it would run."""
    plan = found.plan
    each = f"{plan.cpus:g} CPU and {f'{found.gpus:g} GPU' if found.gpus else 'no GPU'} each"
    where = f"the nodes of {plan.address} that are there now" if plan.address else "this machine"
    if not found.places:
        return [f"Places: no node of {plan.address} has room for a trial now ({each}), so nothing can be timed."]
    return [f"Places: {found.places} {'trial' if found.places == 1 else 'trials'} at a time on {where}, {each}."]


def of_times(found: DryRun, limit: float) -> list[str]:
    """What was timed, and what follows."""
    lines = [_timed(family) for family in found.families] if found.places else []
    ahead = found.forecast
    if ahead is None or found.end is None:
        why = "" if not found.places else f": not every family has a time; allow more with --probe ({limit:g} s)"
        return [*lines, f"Expected: not known{why}."]
    days = (found.end.date() - (found.end - timedelta(seconds=ahead.seconds)).date()).days
    end = f"{found.end:%H:%M}" if not days else f"{found.end:%Y-%m-%d %H:%M}"
    used = f", {ahead.gpu_hours:.2f} GPU-hours" if found.gpus else ""
    trials = max(round(ahead.trials), 1)
    by = {"trials": "all its trials are over", "time": "its time is over", "GPU-hours": "its GPU-hours are used"}
    by |= {"cost": "its maximum cost is reached, with the machines that are there now"}
    lines += [
        f"Expected: end {end}, in {span(ahead.seconds)}, when {by[ahead.ends_by]}: about {trials:,} trials, "
        f"{ahead.epochs:,.0f} epochs{used}.",
        "This holds if trials are as fast as what was timed and early stopping ends as many as it says.",
    ]
    return lines


def _early_stopping(found: DryRun) -> str:
    per = "" if found.plan.trials else f" of each {UNLIMITED} trials"
    scheduler = found.plan.space.early_stopping.scheduler
    if scheduler in ("hyperband", "median"):
        most = f"{found.most_epochs:,.0f} epochs{per}"
        return f"Early stopping: what {scheduler} lets through is not foreseen; {most} at most."
    if not found.rungs:
        return (
            f"Early stopping: trials are compared nowhere, so all {found.most_epochs:,.0f} epochs{per} may be trained."
        )
    at = ", ".join(f"{rung:,}" for rung in found.rungs)
    share = f"1 in {found.plan.space.early_stopping.reduction:g}"
    return (
        f"Early stopping: trials are compared at epochs {at}, and {share} goes on: about {found.epochs:,.0f} "
        f"epochs{per} (an estimate) instead of {found.most_epochs:,.0f}."
    )


def _size(one: Sized) -> str:
    cost = one.cost
    return (
        f"{cost.parameters:,} parameters, {cost.multiplications:,} multiplications a trace "
        f"({one.params['family']} {outline(one.params)})"
    )


def _timed(family: Timed) -> str:
    name = f"{family.expected.family} ({outline(family.params)})"
    if math.isnan(family.seconds):
        return f"Timed: {name}: {family.how}."
    how = f" ({family.how})" if family.how else ""
    more = max(family.first - family.seconds, 0.0)
    return f"Timed: {name}: {family.seconds:.3g} s an epoch, {more:.3g} s more for the first of its kind{how}."
